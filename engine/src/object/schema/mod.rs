//! Schema facts of the built-in kinds: list types, map keys, merge keys, patch strategies and scope.
//!
//! The table `types.txt` is derived by `derive.py` from the OpenAPI v3 documents of a Kubernetes 1.36 API
//! server (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type`, `-patch-merge-key`,
//! `-patch-strategy`). It holds only fields about which one of these says something, and the way to them.
//!
//! ```
//! use engine::object::{GroupVersionKind, schema};
//! let deployment = schema::of(&GroupVersionKind::from_api_version("apps/v1", "Deployment")).unwrap();
//! let containers = deployment.at(&["spec", "template", "spec", "containers"]).unwrap();
//! assert_eq!(containers.map_keys(), ["name"]);
//! ```

use std::collections::HashMap;
use std::sync::LazyLock;

use super::GroupVersionKind;

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Items are scalars, each at most once.
    Set,
    /// Items are mappings with keys.
    Map,
}

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They belong to the cluster.
    Cluster,
}

/// The fields of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(&'static str);

/// What is known about one field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    list: bool,
    values: bool,
    target: Option<&'static str>,
    list_type: Option<ListType>,
    atomic_map: bool,
    map_keys: Vec<&'static str>,
    merge_key: Option<&'static str>,
    strategy: &'static str,
}

struct Table {
    kinds: HashMap<(&'static str, &'static str), (Scope, &'static str)>,
    types: HashMap<&'static str, HashMap<&'static str, Field>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| parse(include_str!("types.txt")));

/// The schema of a built-in kind; none for a kind that the table does not know.
pub fn of(gvk: &GroupVersionKind) -> Option<Type> {
    let version = gvk.api_version();
    TABLE.kinds.get(&(version.as_str(), gvk.kind.as_str())).map(|(_, name)| Type(name))
}

/// The scope of a built-in kind; none for a kind that the table does not know.
pub fn scope(gvk: &GroupVersionKind) -> Option<Scope> {
    let version = gvk.api_version();
    TABLE.kinds.get(&(version.as_str(), gvk.kind.as_str())).map(|(scope, _)| *scope)
}

/// The built-in kinds, each with its `apiVersion` first.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.kinds.keys().copied()
}

/// A type by its name in an OpenAPI v2 document, such as `io.k8s.api.core.v1.PodSpec`; none where nothing
/// is known about its fields.
pub fn named(name: &str) -> Option<Type> {
    let mut dots = name.strip_prefix("io.k8s.")?.rmatch_indices('.').map(|(at, _)| at);
    let start = "io.k8s.".len() + dots.nth(2)? + 1;
    TABLE.types.get_key_value(&name[start..]).map(|(name, _)| Type(name))
}

impl Type {
    /// What is known about a field; none where nothing is.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        TABLE.types.get(self.0)?.get(name)
    }

    /// Follows field names; lists are entered by the name of their items' field.
    pub fn at(&self, path: &[&str]) -> Option<&'static Field> {
        let (first, rest) = path.split_first()?;
        let mut field = self.field(first)?;
        let mut rest = rest;
        while let Some((name, tail)) = rest.split_first() {
            let target = field.target()?;
            if field.is_map_of_values() {
                // The name is a key of the user's; what follows is the value's.
                let (next, tail) = tail.split_first()?;
                field = target.field(next)?;
                rest = tail;
                continue;
            }
            field = target.field(name)?;
            rest = tail;
        }
        Some(field)
    }
}

impl Field {
    /// The type of the field's object, of its items if it is a list, of its values if it is a map.
    pub fn target(&self) -> Option<Type> {
        self.target.map(Type)
    }

    /// Whether the field is a list.
    pub fn is_list(&self) -> bool {
        self.list
    }

    /// Whether the field is a map with keys of the user's choice.
    pub fn is_map_of_values(&self) -> bool {
        self.values
    }

    /// The list type; lists that say none are atomic.
    pub fn list_type(&self) -> ListType {
        self.list_type.unwrap_or(ListType::Atomic)
    }

    /// Whether the object or map is one value (`x-kubernetes-map-type: atomic`).
    pub fn is_atomic_map(&self) -> bool {
        self.atomic_map
    }

    /// The keys of a [`ListType::Map`].
    pub fn map_keys(&self) -> &[&'static str] {
        &self.map_keys
    }

    /// The merge key of strategic merge patches.
    pub fn merge_key(&self) -> Option<&'static str> {
        self.merge_key
    }

    /// Whether a strategic merge patch merges the list instead of replacing it.
    pub fn patch_merges(&self) -> bool {
        self.strategy.split(',').any(|s| s == "merge")
    }

    /// Whether a strategic merge patch keeps only the fields that it names (`retainKeys`).
    pub fn patch_retains_keys(&self) -> bool {
        self.strategy.split(',').any(|s| s == "retainKeys")
    }
}

fn parse(text: &'static str) -> Table {
    let mut table = Table { kinds: HashMap::new(), types: HashMap::new() };
    let mut current = "";
    for line in text.lines() {
        let words: Vec<&'static str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["kind", version, kind, scope, name] => {
                let scope = if *scope == "cluster" { Scope::Cluster } else { Scope::Namespaced };
                table.kinds.insert((*version, *kind), (scope, *name));
            }
            ["type", name] => current = name,
            [field, kind, target, options @ ..] if line.starts_with(' ') => {
                let mut entry = Field {
                    list: *kind == "list",
                    values: *kind == "values",
                    target: Some(*target).filter(|t| *t != "-"),
                    ..Field::default()
                };
                for option in options {
                    match option.split_once('=') {
                        Some(("list", "map")) => entry.list_type = Some(ListType::Map),
                        Some(("list", "set")) => entry.list_type = Some(ListType::Set),
                        Some(("list", _)) => entry.list_type = Some(ListType::Atomic),
                        Some(("map", value)) => entry.atomic_map = value == "atomic",
                        Some(("keys", value)) => entry.map_keys = value.split(',').collect(),
                        Some(("merge", value)) => entry.merge_key = Some(value),
                        Some(("strategy", value)) => entry.strategy = value,
                        _ => {}
                    }
                }
                table.types.entry(current).or_default().insert(*field, entry);
            }
            _ => {}
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(version: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind::from_api_version(version, kind)
    }

    #[test]
    fn pods_are_known_to_the_last_list() {
        let deployment = of(&kind("apps/v1", "Deployment")).unwrap();
        let at = |path: &str| deployment.at(&path.split('.').collect::<Vec<_>>());
        let containers = at("spec.template.spec.containers").unwrap();
        assert_eq!(
            (containers.list_type(), containers.merge_key(), containers.patch_merges()),
            (ListType::Map, Some("name"), true)
        );
        assert_eq!(
            at("spec.template.spec.containers.ports").unwrap().map_keys(),
            ["containerPort", "protocol"]
        );
        assert_eq!(at("spec.template.spec.containers.volumeMounts").unwrap().merge_key(), Some("mountPath"));
        assert!(at("spec.template.spec.volumes").unwrap().patch_retains_keys());
        assert_eq!(at("metadata.finalizers").unwrap().list_type(), ListType::Set);
        assert_eq!(at("spec.template.spec.containers.args").unwrap().list_type(), ListType::Atomic);
        assert!(at("spec.selector").unwrap().is_atomic_map());
        assert!(at("spec.nonsense").is_none());
    }

    #[test]
    fn types_are_found_by_their_full_names() {
        assert!(named("io.k8s.api.core.v1.PodSpec").unwrap().field("containers").unwrap().patch_merges());
        for unknown in ["io.k8s.api.core.v1.Nonsense", "com.example.core.v1.PodSpec", "io.k8s.PodSpec", ""] {
            assert_eq!(named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn scope_is_known_for_built_in_kinds_only() {
        assert_eq!(scope(&kind("v1", "Namespace")), Some(Scope::Cluster));
        assert_eq!(scope(&kind("v1", "Node")), Some(Scope::Cluster));
        assert_eq!(scope(&kind("rbac.authorization.k8s.io/v1", "ClusterRole")), Some(Scope::Cluster));
        assert_eq!(scope(&kind("v1", "ConfigMap")), Some(Scope::Namespaced));
        assert_eq!(scope(&kind("example.com/v1", "Widget")), None);
    }
}
