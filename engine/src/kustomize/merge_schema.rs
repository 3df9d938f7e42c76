//! Which lists strategic merge patches merge: the built-in kinds' schemas, and a repository's own.
//!
//! `openapi: {path: …}` names an OpenAPI v2 document. As in kustomize, the document takes the place of the
//! built-in schemas where it is named before anything needed those, and is added to them otherwise; only the
//! first one counts.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::object::GroupVersionKind;
use crate::object::schema::{self, Field, Type};
use crate::object::yaml::{Dialect, read_documents_as};

use super::error::RenderError;
use super::fields::invalid;

/// How many references may lead from a field to its schema.
const MAX_REFERENCES: usize = 32;

/// The schemas of a render.
#[derive(Debug, Clone, Default)]
pub(super) struct Schemas {
    custom: Option<Arc<Definitions>>,
    without_builtin: bool,
}

#[derive(Debug)]
struct Definitions {
    by_name: Map<String, Value>,
    /// Names by `apiVersion` and kind.
    kinds: HashMap<(String, String), String>,
}

impl Schemas {
    /// Reads an OpenAPI document. `builtin_in_use` says that built-in schemas were needed before.
    pub fn read(text: &str, file: &str, builtin_in_use: bool) -> Result<Self, RenderError> {
        let documents = read_documents_as(text, file, Dialect::Settings)?;
        let definitions = documents.into_iter().next().map(|document| document.value);
        let Some(Value::Object(mut root)) = definitions else {
            return Err(invalid(
                file,
                1,
                "an OpenAPI document is a mapping with definitions; correct the file",
            ));
        };
        let by_name = match root.remove("definitions") {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(invalid(file, 1, "definitions must be a mapping; correct the file")),
        };
        let mut kinds = HashMap::new();
        for (name, definition) in &by_name {
            let said = definition["x-kubernetes-group-version-kind"].as_array();
            for gvk in said.into_iter().flatten() {
                let text = |key: &str| gvk[key].as_str().unwrap_or_default();
                let (group, version) = (text("group"), text("version"));
                let api_version =
                    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                kinds.insert((api_version, text("kind").to_owned()), name.clone());
            }
        }
        let custom = Some(Arc::new(Definitions { by_name, kinds }));
        Ok(Self { custom, without_builtin: !builtin_in_use })
    }

    /// What is known about a kind; the built-in schemas win, as kustomize reads them last.
    pub fn of(&self, gvk: &GroupVersionKind) -> At<'_> {
        if !self.without_builtin
            && let Some(object) = schema::of(gvk)
        {
            return At::Object(object);
        }
        if let Some(custom) = &self.custom
            && let Some(name) = custom.kinds.get(&(gvk.api_version(), gvk.kind.clone()))
            && let Some(definition) = custom.by_name.get(name)
        {
            return self.resolve(definition);
        }
        At::Unknown
    }

    /// What is known about a field of a place.
    pub fn field<'a>(&'a self, at: At<'a>, name: &str) -> At<'a> {
        let field = match at {
            At::Object(object) => object.field(name),
            At::Values(target) => return At::Object(target),
            At::Custom(node) => {
                let field = node["properties"]
                    .get(name)
                    .or_else(|| node.get("additionalProperties").filter(|values| values.is_object()));
                return field.map_or(At::Unknown, |field| self.resolve(field));
            }
            At::Unknown | At::List(_) => None,
        };
        match field {
            Some(field) if field.is_list() => At::List(field),
            Some(field) => match field.target() {
                Some(target) if field.is_map_of_values() => At::Values(target),
                Some(target) => At::Object(target),
                None => At::Unknown,
            },
            None => At::Unknown,
        }
    }

    /// What is known about the items of a list.
    pub fn items<'a>(&'a self, at: At<'a>) -> At<'a> {
        match at {
            At::List(field) => field.target().map_or(At::Unknown, At::Object),
            At::Custom(node) if node["type"] == "array" => {
                node.get("items").map_or(At::Unknown, |items| self.resolve(items))
            }
            _ => At::Unknown,
        }
    }

    /// Follows `$ref`.
    fn resolve<'a>(&'a self, node: &'a Value) -> At<'a> {
        let mut node = node;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = node.get("$ref").and_then(Value::as_str) else { return At::Custom(node) };
            // JSON pointers write / and ~ in names as ~1 and ~0.
            let name = reference.trim_start_matches("#/definitions/").replace("~1", "/").replace("~0", "~");
            if !self.without_builtin
                && let Some(known) = schema::named(&name)
            {
                return At::Object(known);
            }
            match self.custom.as_ref().and_then(|custom| custom.by_name.get(&name)) {
                Some(target) => node = target,
                None => break,
            }
        }
        At::Unknown
    }
}

/// What the schemas know about a place in an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    Unknown,
    Object(Type),
    Values(Type),
    List(&'static Field),
    /// A node of the repository's own schema.
    Custom(&'a Value),
}

impl<'a> At<'a> {
    /// The keys by which a list merges: none where the list is replaced, no keys where its items are scalars.
    pub fn merge_keys(self) -> Option<Vec<&'a str>> {
        match self {
            At::List(field) if field.patch_merges() => Some(match (field.map_keys(), field.merge_key()) {
                ([], key) => key.into_iter().collect(),
                (keys, _) => keys.to_vec(),
            }),
            At::Custom(node) => {
                let strategy = node["x-kubernetes-patch-strategy"].as_str()?;
                strategy.split(',').find(|word| *word == "merge")?;
                Some(match node["x-kubernetes-list-map-keys"].as_array() {
                    Some(keys) => keys.iter().filter_map(Value::as_str).collect(),
                    None => node["x-kubernetes-patch-merge-key"].as_str().into_iter().collect(),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "
definitions:
  a.Widget:
    properties:
      spec: {$ref: '#/definitions/a.Spec'}
      loop: {$ref: '#/definitions/a.Loop'}
    x-kubernetes-group-version-kind: [{group: a, version: v1, kind: Widget}]
  a.Spec:
    properties:
      parts:
        type: array
        items: {type: object}
        x-kubernetes-patch-merge-key: id
        x-kubernetes-patch-strategy: merge,retainKeys
      plain: {type: array}
  a.Loop: {$ref: '#/definitions/a.Loop'}
";

    fn kind(version: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind::from_api_version(version, kind)
    }

    #[test]
    fn own_schemas_say_which_lists_merge() {
        let schemas = Schemas::read(SCHEMA, "s.yaml", false).unwrap();
        let widget = schemas.of(&kind("a/v1", "Widget"));
        let spec = schemas.field(widget, "spec");
        assert_eq!(schemas.field(spec, "parts").merge_keys(), Some(vec!["id"]));
        assert_eq!(schemas.field(spec, "plain").merge_keys(), None);
        assert!(matches!(schemas.field(widget, "loop"), At::Unknown));
        assert!(matches!(schemas.of(&kind("apps/v1", "Deployment")), At::Unknown));
    }

    #[test]
    fn built_in_schemas_stay_once_they_were_needed() {
        let schemas = Schemas::read(SCHEMA, "s.yaml", true).unwrap();
        assert!(matches!(schemas.of(&kind("apps/v1", "Deployment")), At::Object(_)));
        assert!(Schemas::read("[]", "s.yaml", false).is_err());
        assert!(Schemas::read("definitions: 1", "s.yaml", true).is_err());
    }
}
