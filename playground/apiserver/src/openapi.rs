//! OpenAPI v3 documents, made from the types: `kubectl` reads field types, merge keys and supported parameters from them.

use crate::schema::catalogue::{Catalogue, Resource};
use crate::schema::{Relation, Type};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// The document of a group-version; `None` when nothing is served in it.
pub fn document(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Arc<Resource>> =
        catalogue.all().iter().filter(|r| r.group == group && r.version == version).collect();
    if served.is_empty() {
        return None;
    }
    let mut schemas = BTreeMap::new();
    let mut paths = Map::new();
    for resource in served {
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let name = match &resource.custom {
            Some(custom) => {
                let reversed: Vec<&str> = resource.group.split('.').rev().collect();
                let name = format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind);
                let mut schema = custom.schema.clone();
                collect(crate::app::App::named_type("meta.v1.ObjectMeta").as_ref(), &mut schemas);
                schema["properties"]["metadata"] = reference("meta.v1.ObjectMeta");
                schema["properties"]["apiVersion"] = json!({"type": "string"});
                schema["properties"]["kind"] = json!({"type": "string"});
                schemas.insert(name.clone(), schema);
                name
            }
            None => {
                collect(&resource.ty, &mut schemas);
                full_name(&resource.ty.as_struct()?.name)
            }
        };
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
            if resource.custom.is_none() {
                schema["properties"]["apiVersion"] = json!({"type": "string"});
                schema["properties"]["kind"] = json!({"type": "string"});
            }
        }
        let (collection, one) = paths_of(resource, &gvk, &name);
        paths.extend([collection, one]);
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths,
        "components": {"schemas": schemas}}))
}

fn paths_of(resource: &Resource, gvk: &Value, schema: &str) -> ((String, Value), (String, Value)) {
    let base = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", resource.plural);
    let one = format!("{collection}/{{name}}");
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let operation = |action: &str, parameters: &[&str]| {
        let body = json!({"description": "OK", "content": {"application/json": {"schema":
            {"$ref": format!("#/components/schemas/{schema}")}}}});
        json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
            "parameters": parameters.iter().map(|p| parameter(p)).collect::<Vec<_>>(), "responses": {"200": body}})
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let patch = ["dryRun", "fieldManager", "fieldValidation", "force"];
    let has = |verb: &str| resource.verbs.iter().any(|v| v == verb);
    let mut on_collection = Map::new();
    let mut on_one = Map::new();
    let on = [
        ("list", "get", true, &["fieldSelector", "labelSelector", "limit", "continue", "watch"][..]),
        ("create", "post", true, &write[..]),
        ("get", "get", false, &[][..]),
        ("update", "put", false, &write[..]),
        ("patch", "patch", false, &patch[..]),
        ("delete", "delete", false, &["dryRun", "gracePeriodSeconds", "propagationPolicy"][..]),
    ];
    for (verb, method, collection, parameters) in on {
        if has(verb) {
            let action = match verb {
                "create" => "post",
                "update" => "put",
                other => other,
            };
            let place = if collection { &mut on_collection } else { &mut on_one };
            place.insert(method.into(), operation(action, parameters));
        }
    }
    ((collection, Value::Object(on_collection)), (one, Value::Object(on_one)))
}

/// The name under which a type is published: `io.k8s.api.core.v1.Pod`.
fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis.",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis.",
        _ => "io.k8s.api.",
    };
    format!("{prefix}{short}")
}

fn reference(short: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{}", full_name(short))}]})
}

/// Adds the schema of a struct and of all that it refers to.
fn collect(ty: &Type, schemas: &mut BTreeMap<String, Value>) {
    match ty {
        Type::Struct(s) => {
            let name = full_name(&s.name);
            if schemas.contains_key(&name) {
                return;
            }
            schemas.insert(name.clone(), Value::Null);
            let mut properties = Map::new();
            for (field, declared) in &s.fields {
                collect(&declared.ty, schemas);
                let mut schema = schema_of(&declared.ty);
                if let Some(default) = &declared.default {
                    schema["default"] = default.clone();
                }
                if !declared.allowed.is_empty() {
                    schema["enum"] = declared.allowed.clone().into();
                }
                properties.insert(field.clone(), schema);
            }
            let mut schema = json!({"type": "object", "properties": properties});
            if s.atomic {
                schema["x-kubernetes-map-type"] = "atomic".into();
            }
            schemas.insert(name, schema);
        }
        Type::List(list) => collect(&list.element, schemas),
        Type::Map(map) => collect(&map.element, schemas),
        _ => {}
    }
}

fn schema_of(ty: &Type) -> Value {
    match ty {
        Type::String => json!({"type": "string"}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::Integer { bits } => json!({"type": "integer", "format": format!("int{bits}")}),
        Type::Number => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Type::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
        Type::Any => json!({"type": "object"}),
        Type::Struct(s) => reference(&s.name),
        Type::Map(map) => {
            let mut out = json!({"type": "object", "additionalProperties": schema_of(&map.element)});
            if map.atomic {
                out["x-kubernetes-map-type"] = "atomic".into();
            }
            out
        }
        Type::List(list) => {
            let mut out = json!({"type": "array", "items": schema_of(&list.element)});
            match &list.relation {
                Relation::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
                Relation::Set => out["x-kubernetes-list-type"] = "set".into(),
                Relation::Keyed(keys) => {
                    out["x-kubernetes-list-type"] = "map".into();
                    out["x-kubernetes-list-map-keys"] = keys.clone().into();
                }
            }
            if let Some(key) = &list.merge_key {
                out["x-kubernetes-patch-merge-key"] = key.clone().into();
            }
            if list.merge {
                out["x-kubernetes-patch-strategy"] = "merge".into();
            }
            out
        }
    }
}
