//! `buildMetadata`: annotations that say where objects are from and what changed them.

use serde_json::{Map, Value};

use crate::object::yaml::write;

use super::resource::{Origin, Resource, map_at, metadata_of};

const ORIGIN: &str = "config.kubernetes.io/origin";
const TRANSFORMATIONS: &str = "alpha.config.kubernetes.io/transformations";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What `kubectl kustomize` of the version that this follows writes.
const MANAGER: &str = "kustomize-v5.8.1";

fn origin_value(origin: &Origin) -> Value {
    let mut map = Map::new();
    if !origin.path.is_empty() {
        map.insert("path".to_owned(), Value::String(origin.path.clone()));
    }
    if !origin.configured_in.is_empty() {
        map.insert("configuredIn".to_owned(), Value::String(origin.configured_in.clone()));
        let by = [("apiVersion", "builtin"), ("kind", origin.configured_by.as_str())];
        let named = [("name", origin.name.as_str()), ("namespace", origin.namespace.as_str())];
        let by = by.into_iter().chain(named.into_iter().filter(|(_, text)| !text.is_empty()));
        let by = by.map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect();
        map.insert("configuredBy".to_owned(), Value::Object(by));
    }
    Value::Object(map)
}

/// Writes what `buildMetadata` asks for.
pub(super) fn write_annotations(resource: &mut Resource, options: &[String]) {
    let asks = |option: &str| options.iter().any(|o| o == option);
    if asks("managedByLabel") {
        map_at(metadata_of(&mut resource.edit()), "labels")
            .insert(MANAGED_BY.to_owned(), Value::String(MANAGER.to_owned()));
    }
    if asks("originAnnotations")
        && let Some(origin) = resource.origin.clone()
    {
        let text = Value::String(write(&origin_value(&origin)));
        map_at(metadata_of(&mut resource.edit()), "annotations").insert(ORIGIN.to_owned(), text);
    }
    if asks("transformerAnnotations") && !resource.transformations.is_empty() {
        let list = Value::Array(resource.transformations.iter().map(origin_value).collect());
        let text = Value::String(write(&list));
        map_at(metadata_of(&mut resource.edit()), "annotations").insert(TRANSFORMATIONS.to_owned(), text);
    }
}
