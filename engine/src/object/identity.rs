//! What an object is called: group, kind, namespace and name.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An API group and a kind. The core group is the empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKind {
    /// API group, without a version; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind, in CamelCase.
    pub kind: String,
}

impl GroupKind {
    /// Names a kind of a group.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// Whether this is `kind` of `group`.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

impl fmt::Display for GroupKind {
    /// `Deployment.apps`, `Service`: as kubectl prints kinds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// A kind at one version of its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Kind, in CamelCase.
    pub kind: String,
}

impl GroupVersionKind {
    /// Reads an `apiVersion` (`v1`, `apps/v1`) beside its kind.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// The `apiVersion` text.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind without its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.group, &self.kind)
    }
}

/// The identity of an object in a cluster: its version is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind, in CamelCase.
    pub kind: String,
    /// Namespace; none for a cluster-wide object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// The kind without its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.group, &self.kind)
    }
}

impl fmt::Display for ObjectRef {
    /// `Deployment.apps shop/backend`, `Namespace shop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.group_kind())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// The value is not a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidObject {
    /// Something else than a mapping.
    #[error("a Kubernetes object must be a mapping, this is {0}")]
    NotAMapping(&'static str),
    /// A field that every object needs is missing, empty or not a text.
    #[error("a Kubernetes object needs {0} as a non-empty text")]
    MissingField(&'static str),
}

/// A Kubernetes object: a mapping with `apiVersion`, `kind` and `metadata.name`, checked when built.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Object(Value);

impl Object {
    /// Checks that a value is an object with an identity.
    ///
    /// # Errors
    /// [`InvalidObject`] names what is missing.
    pub fn new(value: Value) -> Result<Self, InvalidObject> {
        let map = match &value {
            Value::Object(map) => map,
            Value::Null => return Err(InvalidObject::NotAMapping("null")),
            Value::Array(_) => return Err(InvalidObject::NotAMapping("a list")),
            _ => return Err(InvalidObject::NotAMapping("a scalar")),
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        if !text(map.get("apiVersion")) {
            return Err(InvalidObject::MissingField("apiVersion"));
        }
        if !text(map.get("kind")) {
            return Err(InvalidObject::MissingField("kind"));
        }
        if !text(map.get("metadata").and_then(|m| m.get("name"))) {
            return Err(InvalidObject::MissingField("metadata.name"));
        }
        Ok(Self(value))
    }

    /// The whole value.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The whole value, by move.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// Kind and version.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_api_version(self.text("apiVersion"), self.text("kind"))
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Namespace, where one is written.
    pub fn namespace(&self) -> Option<&str> {
        self.0["metadata"]["namespace"].as_str().filter(|s| !s.is_empty())
    }

    /// Identity.
    pub fn object_ref(&self) -> ObjectRef {
        let gvk = self.gvk();
        ObjectRef {
            group: gvk.group,
            kind: gvk.kind,
            namespace: self.namespace().map(str::to_owned),
            name: self.name().to_owned(),
        }
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["annotations"].get(key)?.as_str()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["labels"].get(key)?.as_str()
    }

    /// Sets an annotation; the map is made where there is none.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        self.set_metadata("annotations", key, value);
    }

    /// Sets a label; the map is made where there is none.
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.set_metadata("labels", key, value);
    }

    /// Sets the namespace.
    pub fn set_namespace(&mut self, namespace: &str) {
        self.0["metadata"]["namespace"] = Value::String(namespace.to_owned());
    }

    /// Takes the namespace out.
    pub fn clear_namespace(&mut self) {
        if let Some(metadata) = self.0["metadata"].as_object_mut() {
            metadata.shift_remove("namespace");
        }
    }

    /// Takes out the field at a JSON pointer (RFC 6901), if it is there. What makes an object an object
    /// (`apiVersion`, `kind`, `metadata`, its name) stays.
    pub fn remove_field(&mut self, pointer: &str) {
        if matches!(pointer, "/apiVersion" | "/kind" | "/metadata" | "/metadata/name") {
            return;
        }
        let Some((parent, last)) = pointer.rsplit_once('/') else {
            return;
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match self.0.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                map.shift_remove(&last);
            }
            Some(Value::Array(items)) => {
                if let Some(index) = last.parse().ok().filter(|index: &usize| *index < items.len()) {
                    items.remove(index);
                }
            }
            _ => {}
        }
    }

    fn set_metadata(&mut self, field: &str, key: &str, value: &str) {
        let slot = &mut self.0["metadata"][field];
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        slot[key] = Value::String(value.to_owned());
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
