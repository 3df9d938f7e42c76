//! OpenAPI documents: `kubectl` reads field types, merge keys, descriptions and supported parameters from them.

mod descriptions;
mod paths;
mod protobuf;
mod schemas;
mod v2;

use crate::app::App;
use crate::schema::catalogue::{Catalogue, Resource};
use crate::schema::table::TABLE;
use bytes::Bytes;
use schemas::Schemas;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The media type in which clients like the document of version 2 best.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same in an answer, where Go takes no `@`.
const V2_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Documents of group-versions that hold nothing but built-in kinds: they never change.
static BUILT_IN: LazyLock<Mutex<HashMap<(String, String), Bytes>>> = LazyLock::new(Mutex::default);

/// `/openapi/v3`.
pub fn index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, versions) in catalogue.groups() {
        for version in versions {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")}));
        }
    }
    json!({"paths": paths})
}

/// The document of a group-version as JSON; `None` when nothing is served in it.
pub fn document(catalogue: &Catalogue, group: &str, version: &str) -> Option<Bytes> {
    let served = served(catalogue, group, version);
    let key = (group.to_owned(), version.to_owned());
    let cacheable = served.iter().all(|r| r.custom.is_none());
    let known = || BUILT_IN.lock().unwrap_or_else(PoisonError::into_inner);
    if cacheable && let Some(bytes) = known().get(&key) {
        return Some(bytes.clone());
    }
    let bytes = Bytes::from(serde_json::to_vec(&whole(&served)?).ok()?);
    if cacheable {
        known().insert(key, bytes.clone());
    }
    Some(bytes)
}

/// `/openapi/v2`: everything in one document, and its media type.
pub fn everything(catalogue: &Catalogue, accept: &str) -> (Bytes, &'static str) {
    let mut parts = Vec::new();
    for (group, versions) in catalogue.groups() {
        for version in versions {
            parts.extend(whole(&served(catalogue, &group, &version)));
        }
    }
    let document = v2::document(&parts);
    if accept.split(',').any(|media| media.trim().starts_with(V2_PROTOBUF)) {
        return (protobuf::encode(&document).into(), V2_ANSWER);
    }
    (serde_json::to_vec(&document).unwrap_or_default().into(), "application/json")
}

fn served(catalogue: &Catalogue, group: &str, version: &str) -> Vec<Arc<Resource>> {
    catalogue.all().iter().filter(|r| r.group == group && r.version == version).cloned().collect()
}

fn whole(served: &[Arc<Resource>]) -> Option<Value> {
    if served.is_empty() {
        return None;
    }
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for resource in served {
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let name = match (&resource.custom, resource.ty.as_struct()) {
            (Some(custom), _) => custom_schema(resource, &custom.schema, &mut schemas),
            (None, Some(declared)) => {
                schemas::publish(&resource.ty, &mut schemas);
                schemas::full_name(&declared.name)
            }
            (None, None) => continue,
        };
        if resource.custom.is_some()
            && let Some(schema) = schemas.get_mut(&name)
        {
            schemas::mark_kind(schema, &gvk);
        }
        paths.extend(paths::of(resource, &gvk, &name));
    }
    // Kinds are kinds in whatever document they are: a StatefulSet holds claims.
    for source in &TABLE.resources {
        if let Some(schema) = schemas.get_mut(&schemas::full_name(&source.type_name)) {
            let gvk = json!({"group": source.group, "version": source.version, "kind": source.kind});
            schemas::mark_kind(schema, &gvk);
        }
    }
    let version = crate::discovery::version()["gitVersion"].clone();
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "components": {"schemas": schemas}}))
}

/// Publishes the schema of a custom resource; returns its name.
fn custom_schema(resource: &Resource, declared: &Value, schemas: &mut Schemas) -> String {
    let reversed: Vec<&str> = resource.group.split('.').rev().collect();
    let name = format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind);
    let mut schema = declared.clone();
    if !schema.is_object() {
        schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    schemas::publish(App::named_type("meta.v1.ObjectMeta").as_ref(), schemas);
    let mut metadata = json!({"allOf": [schemas::reference(&schemas::full_name("meta.v1.ObjectMeta"))]});
    if let Some(text) = descriptions::of_field("io.k8s.api.apps.v1.Deployment", "metadata") {
        metadata["description"] = text.into();
    }
    schema["properties"]["metadata"] = metadata;
    schemas.insert(name.clone(), schema);
    name
}
