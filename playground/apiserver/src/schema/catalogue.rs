//! Which resources are served: the built-in ones and those of CustomResourceDefinitions.

use super::Type;
use super::custom::Custom;
use super::table::TABLE;
use std::collections::HashMap;
use std::sync::Arc;

/// A resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its list.
    pub list_kind: String,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Type of its objects.
    pub ty: Arc<Type>,
    /// Set for custom resources.
    pub custom: Option<Arc<Custom>>,
}

/// A subresource as discovery shows it.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// Its name, as `status`.
    pub name: String,
    /// Kind of its body.
    pub kind: String,
    /// Group of that kind, where it differs.
    pub group: String,
    /// Version of that kind, where it differs.
    pub version: String,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl Resource {
    /// `apps/v1`, or `v1` in the core group.
    pub fn group_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    /// `deployments.apps`: names the table that all versions share. Events of both groups are one table.
    pub fn table(&self) -> String {
        match (self.group.as_str(), self.plural.as_str()) {
            ("" | "events.k8s.io", "events") => "events".into(),
            ("", plural) => plural.into(),
            (group, plural) => format!("{plural}.{group}"),
        }
    }

    /// Whether there is such a subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|s| s.name == subresource)
    }

    /// Whether it is this resource of this group.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// `apps/v1`, or `v1` in the core group.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// All served resources.
#[derive(Debug, Default)]
pub struct Catalogue {
    list: Vec<Arc<Resource>>,
    index: HashMap<String, Arc<Resource>>,
}

fn key(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}

impl Catalogue {
    /// The built-in resources.
    pub fn built_in() -> Catalogue {
        let mut out = Catalogue::default();
        let any = Arc::new(Type::Any);
        for source in &TABLE.resources {
            let subresources =
                source.subresources.iter().map(|(name, kind, group, version, verbs)| Subresource {
                    name: name.clone(),
                    kind: kind.clone(),
                    group: group.clone(),
                    version: version.clone(),
                    verbs: verbs.clone(),
                });
            out.add(Resource {
                group: source.group.clone(),
                version: source.version.clone(),
                plural: source.plural.clone(),
                singular: source.singular.clone(),
                kind: source.kind.clone(),
                list_kind: format!("{}List", source.kind),
                namespaced: source.namespaced,
                short_names: source.short_names.clone(),
                categories: source.categories.clone(),
                verbs: source.verbs.clone(),
                subresources: subresources.collect(),
                ty: TABLE.get(&source.type_name).unwrap_or(&any).clone(),
                custom: None,
            });
        }
        out
    }

    /// Adds a resource, or replaces it.
    pub fn add(&mut self, resource: Resource) {
        self.add_shared(Arc::new(resource));
    }

    /// As [`Catalogue::add`], for a resource of another catalogue.
    pub fn add_shared(&mut self, resource: Arc<Resource>) {
        let key = key(&resource.group, &resource.version, &resource.plural);
        if self.index.insert(key, resource.clone()).is_some() {
            let same =
                |r: &Arc<Resource>| r.is(&resource.group, &resource.plural) && r.version == resource.version;
            if let Some(slot) = self.list.iter_mut().find(|r| same(r)) {
                *slot = resource;
                return;
            }
        }
        self.list.push(resource);
    }

    /// Removes all versions of a custom resource.
    pub fn remove(&mut self, group: &str, plural: &str) {
        let gone = |r: &Resource| r.custom.is_some() && r.is(group, plural);
        self.list.retain(|r| !gone(r));
        self.index.retain(|_, r| !gone(r));
    }

    /// One resource.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.index.get(&key(group, version, plural)).cloned()
    }

    /// All resources in discovery order.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.list
    }

    /// Groups in order, each with its versions in order of preference.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut out: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.list {
            let position = out.iter().position(|(group, _)| *group == resource.group).unwrap_or_else(|| {
                out.push((resource.group.clone(), Vec::new()));
                out.len() - 1
            });
            if let Some((_, versions)) = out.get_mut(position)
                && !versions.contains(&resource.version)
            {
                versions.push(resource.version.clone());
            }
        }
        out
    }

    /// Whether any resource is served in this group-version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.list.iter().any(|r| r.group == group && r.version == version)
    }
}
