//! References that follow renamed objects.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::error::RenderError;
use super::field_spec::{Create, FieldSpec};
use super::resource::{KindFilter, NO_NAMESPACE, Resource, scalar_text};
use super::resource_map::ResourceMap;
use super::transformer_config::TransformerConfig;

/// What must be known about an object that may be referred to. Taken before any reference changes.
struct Candidate {
    name: String,
    namespace: String,
    kind: String,
    is_cluster_scoped: bool,
    effective_namespace: String,
    original_namespace: String,
    previous: Vec<super::resource::ResId>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

/// Changes every field that refers by name to an object whose name changed.
pub(super) fn follow(resources: &mut ResourceMap, config: &TransformerConfig) -> Result<(), RenderError> {
    let candidates: Vec<Candidate> = resources.iter().map(candidate).collect();
    let mut by_old_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let names: HashSet<&str> = candidate.previous.iter().map(|id| id.name.as_str()).collect();
        for name in names {
            by_old_name.entry(name).or_default().push(at);
        }
    }
    let came_from = CameFrom::of(&candidates);
    if by_old_name.is_empty() {
        // Nothing was renamed; kustomize checks the subjects of role bindings even so.
        return resources.iter().try_for_each(|resource| {
            binding_namespaces(resource).map(|_| ()).map_err(|problem| invalid(resource, problem))
        });
    }
    for (at, resource) in resources.iter_mut().enumerate() {
        let original = resource.original_id();
        let binding_namespaces =
            binding_namespaces(resource).map_err(|problem| invalid(resource, problem))?;
        let referrer = Referrer {
            me: &candidates[at],
            binding_namespaces,
            role_ref: role_ref(resource),
            candidates: &candidates,
            by_old_name: &by_old_name,
            came_from: &came_from,
        };
        for reference in &config.name_reference {
            for spec in reference.referrers.iter().filter(|spec| spec.kinds.selects(&original.gvk)) {
                referrer.update(resource, spec, &reference.target)?;
            }
        }
    }
    Ok(())
}

fn invalid(resource: &Resource, problem: String) -> RenderError {
    RenderError::Invalid { source_at: resource.source.clone(), problem }
}

fn candidate(resource: &Resource) -> Candidate {
    Candidate {
        name: resource.name().to_owned(),
        namespace: resource.namespace().to_owned(),
        kind: resource.kind().to_owned(),
        is_cluster_scoped: resource.is_cluster_scoped(),
        effective_namespace: resource.effective_namespace().to_owned(),
        original_namespace: resource.original_id().namespace,
        previous: resource.previous_ids().collect(),
        prefixes: resource.prefixes.clone(),
        suffixes: resource.suffixes.clone(),
    }
}

/// The namespaces of the service accounts that a role binding binds.
fn binding_namespaces(resource: &Resource) -> Result<HashSet<String>, String> {
    let subjects = resource.value["subjects"].as_array().filter(|_| resource.kind() == "RoleBinding");
    subjects
        .into_iter()
        .flatten()
        .filter(|subject| subject["kind"] == "ServiceAccount")
        .filter_map(|subject| subject.get("namespace"))
        .map(|namespace| match namespace.as_str() {
            Some(namespace) => Ok(namespace.to_owned()),
            None => {
                Err("the namespace of a service account is blank; name one or remove the field".to_owned())
            }
        })
        .collect()
}

/// The group and kind that a binding's `roleRef` names.
fn role_ref(resource: &Resource) -> Option<KindFilter> {
    let role = resource.value.get("roleRef")?;
    Some(KindFilter {
        group: role["apiGroup"].as_str()?.to_owned(),
        version: String::new(),
        kind: role["kind"].as_str()?.to_owned(),
    })
}

struct Referrer<'a> {
    me: &'a Candidate,
    binding_namespaces: HashSet<String>,
    role_ref: Option<KindFilter>,
    candidates: &'a [Candidate],
    by_old_name: &'a HashMap<&'a str, Vec<usize>>,
    came_from: &'a CameFrom<'a>,
}

/// Where the objects came from that live in namespaces, and where they are now.
#[derive(Default)]
struct CameFrom<'a> {
    any: HashSet<&'a str>,
    /// The original namespaces of what a patch made cluster-wide.
    into_cluster: HashSet<&'a str>,
    /// The original and the effective namespace.
    into_effective: HashSet<(&'a str, &'a str)>,
    /// The original namespace and the one that is written.
    into_written: HashSet<(&'a str, &'a str)>,
}

impl<'a> CameFrom<'a> {
    fn of(candidates: &'a [Candidate]) -> Self {
        let mut came_from = Self::default();
        for c in candidates.iter().filter(|c| c.original_namespace != NO_NAMESPACE) {
            came_from.any.insert(&c.original_namespace);
            if c.is_cluster_scoped {
                came_from.into_cluster.insert(&c.original_namespace);
            }
            came_from.into_effective.insert((&c.original_namespace, &c.effective_namespace));
            came_from.into_written.insert((&c.original_namespace, &c.namespace));
        }
        came_from
    }
}

impl Referrer<'_> {
    fn update(
        &self,
        resource: &mut Resource,
        spec: &FieldSpec,
        target: &KindFilter,
    ) -> Result<(), RenderError> {
        let gvk = resource.gvk();
        // kustomize chose the referrer by its original kind and looks at the field whatever the kind is now.
        let spec = FieldSpec { kinds: KindFilter::default(), path: spec.path.clone(), create: false };
        let path = spec.path.clone();
        spec.apply(&mut resource.value, &gvk, Create::Nothing, &mut |value| self.set(value, &path, target))
            .map_err(|problem| RenderError::Invalid { source_at: resource.source.clone(), problem })
    }

    fn set(&self, value: &mut Value, path: &str, target: &KindFilter) -> Result<(), String> {
        match value {
            Value::Null => Ok(()),
            Value::Array(items) => items.iter_mut().try_for_each(|item| match item {
                Value::Object(_) => self.set_mapping(item, path, target),
                Value::Array(_) => {
                    Err("a list of lists cannot refer to names; correct the object".to_owned())
                }
                _ => self.set_scalar(item, path, target),
            }),
            Value::Object(_) => self.set_mapping(value, path, target),
            _ => self.set_scalar(value, path, target),
        }
    }

    fn set_scalar(&self, value: &mut Value, path: &str, target: &KindFilter) -> Result<(), String> {
        let name = scalar_text(value);
        let same_name = |found: &[&Candidate]| found.iter().all(|c| c.name == found[0].name);
        if let Some(referral) = self.select(&name, path, target, None, &same_name)?
            && referral.name != name
        {
            *value = Value::String(referral.name.clone());
        }
        Ok(())
    }

    fn set_mapping(&self, value: &mut Value, path: &str, target: &KindFilter) -> Result<(), String> {
        let name = value.get("name").map(scalar_text);
        let Some(name) = name else {
            return Err(
                "the field must be a name or a mapping with a name; correct the object or the configuration"
                    .to_owned(),
            );
        };
        let namespace = value.get("namespace").map(scalar_text);
        let same = |found: &[&Candidate]| {
            found.iter().all(|c| c.name == found[0].name && c.namespace == found[0].namespace)
        };
        if let Some(referral) = self.select(&name, path, target, namespace.as_deref(), &same)? {
            if referral.name != name {
                value["name"] = Value::String(referral.name.clone());
            }
            if !referral.namespace.is_empty() {
                value["namespace"] = Value::String(referral.namespace.clone());
            }
        }
        Ok(())
    }

    /// Whether an object could be meant at all by one in the referrer's namespace.
    fn is_reachable(&self, candidate: &Candidate) -> bool {
        self.me.is_cluster_scoped
            || candidate.is_cluster_scoped
            || candidate.effective_namespace == self.me.effective_namespace
            || self.binding_namespaces.contains(&candidate.namespace)
    }

    /// Whether some object that came from a namespace could be meant.
    fn reaches_any_from(&self, namespace: &str) -> bool {
        if self.me.is_cluster_scoped {
            return self.came_from.any.contains(namespace);
        }
        let here = self.me.effective_namespace.as_str();
        self.came_from.into_cluster.contains(namespace)
            || self.came_from.into_effective.contains(&(namespace, here))
            || self
                .binding_namespaces
                .iter()
                .any(|bound| self.came_from.into_written.contains(&(namespace, bound.as_str())))
    }

    /// Picks the object that a name means, by kustomize's rules.
    fn select(
        &self,
        name: &str,
        path: &str,
        target: &KindFilter,
        namespace: Option<&str>,
        are_the_same: &dyn Fn(&[&Candidate]) -> bool,
    ) -> Result<Option<&Candidate>, String> {
        let Some(renamed) = self.by_old_name.get(name) else { return Ok(None) };
        let mut found: Vec<&Candidate> =
            renamed.iter().map(|at| &self.candidates[*at]).filter(|c| self.is_reachable(c)).collect();
        if let Some(namespace) = namespace {
            // A written namespace means an original one if any object came from there, else a present one.
            let in_original = |c: &Candidate| c.original_namespace == namespace && namespace != NO_NAMESPACE;
            if self.reaches_any_from(namespace) {
                found.retain(|c| in_original(c));
            } else {
                found.retain(|c| c.effective_namespace == namespace && !c.is_cluster_scoped);
            }
        }
        let was = |kinds: &KindFilter, c: &Candidate| c.previous.iter().any(|id| kinds.selects(&id.gvk));
        found.retain(|c| was(target, c));
        if path.ends_with("roleRef/name")
            && let Some(role) = &self.role_ref
        {
            found.retain(|c| was(role, c));
        }
        found.retain(|c| {
            self.me.is_cluster_scoped
                || c.is_cluster_scoped
                || c.kind == "ServiceAccount"
                || c.effective_namespace == self.me.effective_namespace
        });
        if let [only] = found.as_slice() {
            return Ok(Some(only));
        }
        found.retain(|c| {
            same_ending(&c.prefixes, &self.me.prefixes, true)
                && same_ending(&c.suffixes, &self.me.suffixes, true)
        });
        if found.len() > 1 {
            found.retain(|c| {
                same_ending(&c.prefixes, &self.me.prefixes, false)
                    && same_ending(&c.suffixes, &self.me.suffixes, false)
            });
        }
        match found.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            several if are_the_same(several) => Ok(Some(several[0])),
            several => Err(format!(
                "{name:?} could mean {}; give these objects different names",
                several
                    .iter()
                    .map(|c| format!("{} {}/{}", c.kind, c.effective_namespace, c.name))
                    .collect::<Vec<_>>()
                    .join(" or ")
            )),
        }
    }
}

/// Whether one list ends with the other.
fn same_ending(a: &[String], b: &[String], empty_fits_all: bool) -> bool {
    if a.is_empty() || b.is_empty() {
        return empty_fits_all || a.len() == b.len();
    }
    a.ends_with(b) || b.ends_with(a)
}
