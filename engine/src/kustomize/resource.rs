//! An object on its way through a render: its value and what kustomize remembers about it.

use std::fmt;

use serde_json::{Map, Value};

use super::explain::Step;
use crate::object::schema::{self, Scope};
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

/// Stands in for the namespace of objects that have none.
pub(super) const NO_NAMESPACE: &str = "_non_namespaceable_";

/// What kustomize takes as an object's identity: the version counts, and no namespace means `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ResId {
    pub gvk: GroupVersionKind,
    /// The namespace, `default` where none is written, [`NO_NAMESPACE`] for cluster-wide kinds.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ResId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.gvk.group_kind())?;
        if self.namespace != NO_NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A group, version and kind to select by; an empty part selects all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct KindFilter {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl KindFilter {
    /// Whether a kind is selected.
    pub fn selects(&self, gvk: &GroupVersionKind) -> bool {
        (self.group.is_empty() || self.group == gvk.group)
            && (self.version.is_empty() || self.version == gvk.version)
            && (self.kind.is_empty() || self.kind == gvk.kind)
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

/// A name that an object had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PreviousId {
    kind: String,
    namespace: String,
    name: String,
}

/// An object and what kustomize remembers about it while rendering.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub value: Value,
    pub source: Source,
    previous: Vec<PreviousId>,
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
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

impl Resource {
    /// Takes a value that must be an object.
    pub fn new(value: Value, source: Source) -> Result<Self, InvalidObject> {
        let value = Object::new(value)?.into_value();
        Ok(Self {
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

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_api_version(self.text("apiVersion"), self.text("kind"))
    }

    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace as written, possibly empty.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    pub fn is_cluster_scoped(&self) -> bool {
        is_cluster_scoped(&self.gvk())
    }

    /// The namespace that the object is in: `default` where none is written.
    pub fn effective_namespace(&self) -> &str {
        if self.is_cluster_scoped() {
            return NO_NAMESPACE;
        }
        Some(self.namespace()).filter(|n| !n.is_empty()).unwrap_or("default")
    }

    pub fn id(&self) -> ResId {
        ResId {
            gvk: self.gvk(),
            namespace: self.effective_namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    /// The identities that the object had before, oldest first.
    pub fn previous_ids(&self) -> impl Iterator<Item = ResId> + '_ {
        let gvk = self.gvk();
        self.previous.iter().map(move |previous| ResId {
            gvk: GroupVersionKind { kind: previous.kind.clone(), ..gvk.clone() },
            namespace: previous.namespace.clone(),
            name: previous.name.clone(),
        })
    }

    /// The identity that the object was loaded with.
    pub fn original_id(&self) -> ResId {
        self.previous_ids().next().unwrap_or_else(|| self.id())
    }

    /// Whether any identity that the object has or had is this one.
    pub fn is_any(&self, matches: impl Fn(&ResId) -> bool) -> bool {
        self.previous_ids().any(|id| matches(&id)) || matches(&self.id())
    }

    /// Remembers the present identity before it changes.
    pub fn remember_id(&mut self) {
        let id = self.id();
        self.previous.push(PreviousId { kind: id.gvk.kind, namespace: id.namespace, name: id.name });
    }

    /// Whether kustomize would hold notes about the object in its annotations.
    pub fn has_notes(&self) -> bool {
        !self.previous.is_empty() || self.needs_hash || !self.prefixes.is_empty() || !self.suffixes.is_empty()
    }

    pub fn set_kind(&mut self, kind: &str) {
        self.value["kind"] = Value::String(kind.to_owned());
    }

    pub fn set_name(&mut self, name: &str) {
        self.metadata().insert("name".to_owned(), Value::String(name.to_owned()));
    }

    /// Sets the namespace; an empty one removes the field.
    pub fn set_namespace(&mut self, namespace: &str) {
        if namespace.is_empty() {
            self.metadata().shift_remove("namespace");
        } else {
            self.metadata().insert("namespace".to_owned(), Value::String(namespace.to_owned()));
        }
    }

    /// The object's metadata; made where a patch removed it.
    pub fn metadata(&mut self) -> &mut Map<String, Value> {
        map_at(map_of(&mut self.value), "metadata")
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
                self.metadata().shift_remove(field);
            } else {
                self.metadata().insert(field.to_owned(), Value::Object(merged));
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

    fn text(&self, key: &str) -> &str {
        self.value[key].as_str().unwrap_or_default()
    }
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

/// Cluster-wide kinds that kustomize knows from Kubernetes 1.21 and that newer schemas lack.
const OLD_CLUSTER_KINDS: [(&str, &str); 15] = [
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("policy", "PodSecurityPolicy"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
];

/// Whether a kind is known to be cluster-wide.
///
/// Kustomize 5.5 knows the kinds of Kubernetes 1.21; kinds that came later are known here as well, for a
/// namespace on a cluster-wide object is never meant.
pub(super) fn is_cluster_scoped(gvk: &GroupVersionKind) -> bool {
    match schema::scope(gvk) {
        Some(scope) => scope == Scope::Cluster,
        None => {
            gvk.version.starts_with("v1beta")
                && OLD_CLUSTER_KINDS.contains(&(gvk.group.as_str(), gvk.kind.as_str()))
        }
    }
}
