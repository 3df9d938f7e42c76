//! Paths of resources with what clients read from them: verbs, kinds, supported parameters.

use crate::schema::catalogue::Resource;
use serde_json::{Map, Value, json};

/// The paths of a resource: its collection and one object. `schema` is the full name of its type.
pub fn of(resource: &Resource, gvk: &Value, schema: &str) -> [(String, Value); 2] {
    let base = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", resource.plural);
    let one = format!("{collection}/{{name}}");
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let patch = ["dryRun", "fieldManager", "fieldValidation", "force"];
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
        if resource.verbs.iter().any(|v| v == verb) {
            let action = match verb {
                "create" => "post",
                "update" => "put",
                other => other,
            };
            let place = if collection { &mut on_collection } else { &mut on_one };
            place.insert(method.into(), operation(action, gvk, schema, parameters));
        }
    }
    [(collection, Value::Object(on_collection)), (one, Value::Object(on_one))]
}

fn operation(action: &str, gvk: &Value, schema: &str, parameters: &[&str]) -> Value {
    let parameter =
        |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let body = json!({"description": "OK", "content": {"application/json": {"schema":
        {"$ref": format!("#/components/schemas/{schema}")}}}});
    json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
        "parameters": parameters.iter().map(parameter).collect::<Vec<_>>(), "responses": {"200": body}})
}
