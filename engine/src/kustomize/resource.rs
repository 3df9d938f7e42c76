//! An object on its way through a render: its value and what kustomize remembers about it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::explain::Step;
use super::identity::{ResId, ScopedKind};
use crate::object::{GroupVersionKind, InvalidObject, Object};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Source {
    /// Path from the root of the tree.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl Source {
    /// A line of a file.
    pub fn new(file: impl Into<String>, line: usize) -> Self {
        Self { file: file.into(), line }
    }
}

impl fmt::Display for Source {
    /// `base/deployment.yaml:12`, as editors open it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a generated object does to one that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Behavior {
    /// It must not exist yet.
    #[default]
    Create,
    /// It takes the other's place.
    Replace,
    /// It adds to the other.
    Merge,
}

/// Where an object or a change to it comes from, as `buildMetadata` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Origin {
    /// The file, relative to the folder that is rendered.
    pub path: String,
    /// The kustomization that configured a generator or transformer.
    pub configured_in: String,
    /// The generator's or transformer's kind.
    pub configured_by: String,
    /// The name of the object that configured it, if one did.
    pub name: String,
    /// The namespace of that object.
    pub namespace: String,
}

/// An object and what kustomize remembers about it while rendering.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    value: Value,
    /// What `value` says of itself. [`Edit`] keeps the two in step: outside of it only fields change that say nothing of
    /// the identity.
    id: ResId,
    /// The namespace as written, possibly empty.
    namespace: Arc<str>,
    pub source: Source,
    previous: Vec<ResId>,
    pub prefixes: Vec<Arc<str>>,
    pub suffixes: Vec<Arc<str>>,
    /// The name gets a suffix from the content.
    pub needs_hash: bool,
    pub behavior: Behavior,
    pub variables: Vec<String>,
    /// Paths of fields that were written without any value, and whether in braces.
    pub empty_fields: Vec<(Vec<String>, bool)>,
    pub origin: Option<Origin>,
    pub transformations: Vec<Origin>,
    /// What made the object and changed it, where that is asked for.
    pub steps: Vec<Step>,
}

/// An object's value while it is changed. What it says of its identity is read again at the end.
pub(super) struct Edit<'a>(&'a mut Resource);

impl Deref for Edit<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0.value
    }
}

impl DerefMut for Edit<'_> {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0.value
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.0.read_identity();
    }
}

impl Resource {
    /// Takes a value that must be an object.
    pub fn new(value: Value, source: Source) -> Result<Self, InvalidObject> {
        let value = Object::new(value)?.into_value();
        let said = Said::by(&value);
        let namespace = Arc::from(said.namespace);
        let kind = ScopedKind::of(said.api_version, said.kind);
        Ok(Self {
            id: ResId::new(kind, &namespace, Arc::from(said.name)),
            namespace,
            value,
            source,
            previous: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            needs_hash: false,
            behavior: Behavior::Create,
            variables: Vec::new(),
            empty_fields: Vec::new(),
            origin: None,
            transformations: Vec::new(),
            steps: Vec::new(),
        })
    }

    /// The whole object.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The whole object, by move.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// Takes the value out, for another to be put in its place. Until then the identity stays.
    pub fn take_value(&mut self) -> Value {
        std::mem::take(&mut self.value)
    }

    /// The value, to be changed.
    pub fn edit(&mut self) -> Edit<'_> {
        Edit(self)
    }

    /// Sees to it that the identity is the one that the value says.
    fn read_identity(&mut self) {
        let Said { api_version, kind, name, namespace } = Said::by(&self.value);
        let is_of_kind = self.id.kind.is(api_version, kind);
        if is_of_kind && *self.id.name == *name && *self.namespace == *namespace {
            return;
        }
        if !is_of_kind {
            self.id.kind = ScopedKind::of(api_version, kind);
        }
        if *self.id.name != *name {
            self.id.name = Arc::from(name);
        }
        if *self.namespace != *namespace {
            self.namespace = Arc::from(namespace);
        }
        self.id = ResId::new(Arc::clone(&self.id.kind), &self.namespace, Arc::clone(&self.id.name));
    }

    /// Removes fields that were written without a value, as strategic merge patches do.
    pub fn drop_empty_fields(&mut self) {
        for (path, _) in std::mem::take(&mut self.empty_fields) {
            if let Some((map, name)) = self.null_field(&path) {
                map.shift_remove(name);
            }
        }
    }

    /// Makes fields that were written in braces without a value empty texts, as kustomize prints them.
    pub fn settle_empty_fields(&mut self) {
        for (path, _) in
            std::mem::take(&mut self.empty_fields).into_iter().filter(|(_, in_braces)| *in_braces)
        {
            if let Some((map, name)) = self.null_field(&path) {
                map.insert(name.to_owned(), Value::String(String::new()));
            }
        }
    }

    /// The mapping that holds a field and the field's name, if the field is null.
    fn null_field<'a>(&mut self, path: &'a [String]) -> Option<(&mut Map<String, Value>, &'a str)> {
        let (name, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(&mut self.value, |value, name| value.get_mut(name))?;
        parent
            .as_object_mut()
            .filter(|map| map.get(name).is_some_and(Value::is_null))
            .map(|map| (map, name.as_str()))
    }

    pub fn gvk(&self) -> &GroupVersionKind {
        self.id.gvk()
    }

    pub fn kind(&self) -> &str {
        &self.id.kind.gvk.kind
    }

    pub fn name(&self) -> &str {
        &self.id.name
    }

    /// The namespace as written, possibly empty.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// As [`namespace`](Self::namespace), shared.
    pub fn shared_namespace(&self) -> Arc<str> {
        Arc::clone(&self.namespace)
    }

    /// The present identity. Its namespace is `default` where none is written.
    pub fn id(&self) -> &ResId {
        &self.id
    }

    /// The identities that the object had before, oldest first.
    pub fn previous_ids(&self) -> impl Iterator<Item = ResId> + '_ {
        self.previous.iter().map(|previous| previous.seen_from(&self.id.kind))
    }

    /// The identity that the object was loaded with.
    pub fn original_id(&self) -> ResId {
        self.previous_ids().next().unwrap_or_else(|| self.id.clone())
    }

    /// Whether any identity that the object has or had is this one.
    pub fn is_any(&self, matches: impl Fn(&ResId) -> bool) -> bool {
        self.previous_ids().any(|id| matches(&id)) || matches(&self.id)
    }

    /// Remembers the present identity before it changes.
    pub fn remember_id(&mut self) {
        self.previous.push(self.id.clone());
    }

    /// Whether kustomize would hold notes about the object in its annotations.
    pub fn has_notes(&self) -> bool {
        !self.previous.is_empty() || self.needs_hash || !self.prefixes.is_empty() || !self.suffixes.is_empty()
    }

    pub fn set_kind(&mut self, kind: &str) {
        self.edit()["kind"] = Value::String(kind.to_owned());
    }

    pub fn set_name(&mut self, name: &str) {
        metadata_of(&mut self.edit()).insert("name".to_owned(), Value::String(name.to_owned()));
    }

    /// Sets the namespace; an empty one removes the field.
    pub fn set_namespace(&mut self, namespace: &str) {
        set_namespace_of(&mut self.edit(), namespace);
    }

    /// Labels or annotations as texts.
    pub fn metadata_texts(&self, field: &str) -> Vec<(String, String)> {
        self.value["metadata"][field]
            .as_object()
            .map(|map| map.iter().map(|(k, v)| (k.clone(), scalar_text(v))).collect())
            .unwrap_or_default()
    }

    /// Takes over what a generated object keeps from the one that it replaces or merges with.
    pub fn take_over(&mut self, old: Self) {
        for field in ["labels", "annotations"] {
            let mut merged: Map<String, Value> =
                old.metadata_texts(field).into_iter().map(|(k, v)| (k, Value::String(v))).collect();
            merged.extend(self.metadata_texts(field).into_iter().map(|(k, v)| (k, Value::String(v))));
            if merged.is_empty() {
                metadata_of(&mut self.value).shift_remove(field);
            } else {
                metadata_of(&mut self.value).insert(field.to_owned(), Value::Object(merged));
            }
        }
        let (name, namespace) = (old.name().to_owned(), old.namespace().to_owned());
        self.set_name(&name);
        self.set_namespace(&namespace);
        self.needs_hash &= old.needs_hash;
        self.behavior = old.behavior;
        self.previous = old.previous;
        self.prefixes = old.prefixes;
        self.suffixes = old.suffixes;
        self.variables = old.variables;
        self.source = old.source;
        self.steps = old.steps.into_iter().chain(std::mem::take(&mut self.steps)).collect();
    }

    /// Makes annotations texts, as kustomize does whenever it writes its notes; an empty map goes.
    pub fn settle_annotations(&mut self) {
        let Some(metadata) = self.value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        match metadata.get_mut("annotations") {
            Some(Value::Object(map)) if !map.is_empty() => {
                for value in map.values_mut().filter(|value| !value.is_string()) {
                    *value = Value::String(scalar_text(value));
                }
            }
            Some(Value::Object(_) | Value::Null) => {
                metadata.shift_remove("annotations");
            }
            _ => {}
        }
    }
}

/// What a value says of its identity; empty where it says nothing.
struct Said<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
}

impl<'a> Said<'a> {
    fn by(value: &'a Value) -> Self {
        fn text(value: Option<&Value>) -> &str {
            value.and_then(Value::as_str).unwrap_or_default()
        }
        let metadata = value.get("metadata");
        Self {
            api_version: text(value.get("apiVersion")),
            kind: text(value.get("kind")),
            name: text(metadata.and_then(|metadata| metadata.get("name"))),
            namespace: text(metadata.and_then(|metadata| metadata.get("namespace"))),
        }
    }
}

/// Writes the namespace of an object; an empty one removes the field.
pub(super) fn set_namespace_of(value: &mut Value, namespace: &str) {
    let metadata = metadata_of(value);
    if namespace.is_empty() {
        metadata.shift_remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), Value::String(namespace.to_owned()));
    }
}

/// An object's metadata; made where a patch removed it.
pub(super) fn metadata_of(value: &mut Value) -> &mut Map<String, Value> {
    map_at(map_of(value), "metadata")
}

/// The value as a mapping; anything else becomes an empty one.
pub(super) fn map_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made a mapping just above"),
    }
}

/// A mapping in a mapping; made where there is none.
pub(super) fn map_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    map_of(map.entry(key.to_owned()).or_insert(Value::Null))
}

/// The text of a scalar, as a YAML file would say it; empty for lists and mappings.
pub(super) fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::NO_NAMESPACE;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_identity_follows_every_edit() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let mut resource = Resource::new(value, Source::default()).unwrap();
        assert_eq!(resource.id().to_string(), "ConfigMap default/a");
        resource.remember_id();
        resource.edit()["metadata"] = json!({"name": "b", "namespace": "n"});
        assert_eq!((resource.name(), resource.namespace()), ("b", "n"));
        *resource.edit() = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "c"}});
        assert_eq!(resource.id().to_string(), "ClusterRole.rbac.authorization.k8s.io c");
        assert_eq!(resource.original_id().to_string(), "ConfigMap.rbac.authorization.k8s.io default/a");
        resource.set_namespace("elsewhere");
        assert_eq!((resource.namespace(), &*resource.id().namespace), ("elsewhere", NO_NAMESPACE));
    }
}
