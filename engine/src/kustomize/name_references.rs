//! References that follow renamed objects.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use crate::object::GroupVersionKind;

use super::error::RenderError;
use super::field_spec::FieldSpec;
use super::identity::{KindFilter, NO_NAMESPACE, ResId};
use super::resource::{Resource, scalar_text};
use super::resource_map::ResourceMap;
use super::transformer_config::TransformerConfig;

/// What must be known about an object that may be referred to. Taken before any reference changes.
struct Candidate {
    id: ResId,
    /// The namespace as written.
    namespace: Arc<str>,
    original_namespace: Arc<str>,
    previous: Vec<ResId>,
    prefixes: Vec<Arc<str>>,
    suffixes: Vec<Arc<str>>,
}

/// For how many kinds it is kept which of their fields refer. More at once are not to be expected.
const MAX_KINDS: usize = 256;

/// A field that may refer to an object, and to which kinds.
type Referring<'c> = (&'c FieldSpec, &'c KindFilter);

/// Changes every field that refers by name to an object whose name changed.
pub(super) fn follow(resources: &mut ResourceMap, config: &TransformerConfig) -> Result<(), RenderError> {
    let candidates: Vec<Candidate> = resources.iter().map(candidate).collect();
    let mut by_old_name: HashMap<&str, Vec<usize>> = HashMap::with_capacity(candidates.len());
    for (at, candidate) in candidates.iter().enumerate() {
        for id in &candidate.previous {
            let places = by_old_name.entry(&id.name).or_default();
            // Of the names of one object each counts once.
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
    }
    let came_from = CameFrom::of(&candidates);
    if by_old_name.is_empty() {
        // Nothing was renamed; kustomize checks the subjects of role bindings even so.
        return resources.iter().try_for_each(|resource| {
            binding_namespaces(resource).map(|_| ()).map_err(|problem| invalid(resource, problem))
        });
    }
    let mut of_kinds: HashMap<GroupVersionKind, Rc<[Referring<'_>]>> = HashMap::new();
    for (me, resource) in candidates.iter().zip(resources.iter_mut()) {
        let binding_namespaces =
            binding_namespaces(resource).map_err(|problem| invalid(resource, problem))?;
        // kustomize chooses the referrer by its original kind and looks at the field whatever the kind is now.
        let original = me.previous.first().unwrap_or(&me.id).gvk();
        let referring = of_kinds.get(original).cloned().unwrap_or_else(|| {
            let referring: Rc<[Referring<'_>]> = config.referring(original).collect();
            if of_kinds.len() >= MAX_KINDS {
                of_kinds.clear();
            }
            of_kinds.insert(original.clone(), Rc::clone(&referring));
            referring
        });
        if referring.is_empty() {
            continue;
        }
        let referrer = Referrer {
            me,
            binding_namespaces,
            role_ref: role_ref(resource),
            candidates: &candidates,
            by_old_name: &by_old_name,
            came_from: &came_from,
        };
        let mut object = resource.edit();
        let updated = referring.iter().try_for_each(|(spec, target)| {
            spec.visit(&mut object, &mut |value| referrer.set(value, &spec.path, target))
        });
        drop(object);
        updated.map_err(|problem| invalid(resource, problem))?;
    }
    Ok(())
}

fn invalid(resource: &Resource, problem: String) -> RenderError {
    RenderError::Invalid { source_at: resource.source.clone(), problem }
}

fn candidate(resource: &Resource) -> Candidate {
    let previous: Vec<ResId> = resource.previous_ids().collect();
    let id = resource.id().clone();
    Candidate {
        original_namespace: Arc::clone(&previous.first().unwrap_or(&id).namespace),
        namespace: resource.shared_namespace(),
        previous,
        id,
        prefixes: resource.prefixes.clone(),
        suffixes: resource.suffixes.clone(),
    }
}

/// The namespaces of the service accounts that a role binding binds.
fn binding_namespaces(resource: &Resource) -> Result<HashSet<String>, String> {
    let subjects = Some(resource).filter(|resource| resource.kind() == "RoleBinding");
    subjects
        .and_then(|resource| resource.value().get("subjects")?.as_array())
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
    let role = resource.value().get("roleRef")?;
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
        for c in candidates.iter().filter(|c| *c.original_namespace != *NO_NAMESPACE) {
            came_from.any.insert(&c.original_namespace);
            if c.id.kind.is_cluster_scoped {
                came_from.into_cluster.insert(&c.original_namespace);
            }
            came_from.into_effective.insert((&c.original_namespace, &c.id.namespace));
            came_from.into_written.insert((&c.original_namespace, &c.namespace));
        }
        came_from
    }
}

impl Referrer<'_> {
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
        let same_name = |found: &[&Candidate]| found.iter().all(|c| c.id.name == found[0].id.name);
        if let Some(referral) = self.select(&name, path, target, None, &same_name)?
            && *referral.id.name != *name
        {
            *value = Value::String(referral.id.name.to_string());
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
            found.iter().all(|c| c.id.name == found[0].id.name && c.namespace == found[0].namespace)
        };
        if let Some(referral) = self.select(&name, path, target, namespace.as_deref(), &same)? {
            if *referral.id.name != *name {
                value["name"] = Value::String(referral.id.name.to_string());
            }
            if !referral.namespace.is_empty() {
                value["namespace"] = Value::String(referral.namespace.to_string());
            }
        }
        Ok(())
    }

    /// Whether an object could be meant at all by one in the referrer's namespace.
    fn is_reachable(&self, candidate: &Candidate) -> bool {
        self.me.id.kind.is_cluster_scoped
            || candidate.id.kind.is_cluster_scoped
            || candidate.id.namespace == self.me.id.namespace
            || self.binding_namespaces.contains(&*candidate.namespace)
    }

    /// Whether some object that came from a namespace could be meant.
    fn reaches_any_from(&self, namespace: &str) -> bool {
        if self.me.id.kind.is_cluster_scoped {
            return self.came_from.any.contains(namespace);
        }
        let here = &*self.me.id.namespace;
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
            let in_original =
                |c: &Candidate| *c.original_namespace == *namespace && namespace != NO_NAMESPACE;
            if self.reaches_any_from(namespace) {
                found.retain(|c| in_original(c));
            } else {
                found.retain(|c| *c.id.namespace == *namespace && !c.id.kind.is_cluster_scoped);
            }
        }
        let was = |kinds: &KindFilter, c: &Candidate| c.previous.iter().any(|id| kinds.selects(id.gvk()));
        found.retain(|c| was(target, c));
        if path.ends_with("roleRef/name")
            && let Some(role) = &self.role_ref
        {
            found.retain(|c| was(role, c));
        }
        found.retain(|c| {
            self.me.id.kind.is_cluster_scoped
                || c.id.kind.is_cluster_scoped
                || c.id.kind.gvk.kind == "ServiceAccount"
                || c.id.namespace == self.me.id.namespace
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
                    .map(|c| format!("{} {}/{}", c.id.gvk().kind, c.id.namespace, c.id.name))
                    .collect::<Vec<_>>()
                    .join(" or ")
            )),
        }
    }
}

/// Whether one list ends with the other.
fn same_ending(a: &[Arc<str>], b: &[Arc<str>], empty_fits_all: bool) -> bool {
    if a.is_empty() || b.is_empty() {
        return empty_fits_all || a.len() == b.len();
    }
    a.ends_with(b) || b.ends_with(a)
}
