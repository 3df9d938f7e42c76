//! The document of OpenAPI version 2 (Swagger), made from those of version 3.
//!
//! Rules: https://swagger.io/specification/v2/; what version 2 cannot say is left out, as a real server does.

use serde_json::{Map, Value, json};

/// One document from those of all group-versions.
pub fn document(parts: &[Value]) -> Value {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    let mut info = json!({"title": "Kubernetes", "version": ""});
    for part in parts {
        info = part["info"].clone();
        for (name, schema) in part["components"]["schemas"].as_object().into_iter().flatten() {
            let schema = self::schema(schema);
            match definitions.get_mut(name) {
                // The same type in another group-version may be a kind there only.
                Some(known) => merge_kinds(known, &schema),
                None => {
                    definitions.insert(name.clone(), schema);
                }
            }
        }
        for (path, operations) in part["paths"].as_object().into_iter().flatten() {
            let operations = operations.as_object().into_iter().flatten();
            let operations: Map<String, Value> =
                operations.map(|(method, operation)| (method.clone(), self::operation(operation))).collect();
            paths.insert(path.clone(), Value::Object(operations));
        }
    }
    definitions.sort_keys();
    json!({"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions})
}

const KINDS: &str = "x-kubernetes-group-version-kind";

fn merge_kinds(known: &mut Value, other: &Value) {
    let Some(kinds) = other.get(KINDS) else { return };
    if known.get(KINDS).is_none() {
        *known = other.clone();
    } else if let Some(list) = known[KINDS].as_array_mut() {
        for kind in kinds.as_array().into_iter().flatten() {
            if !list.contains(kind) {
                list.push(kind.clone());
            }
        }
    }
}

fn reference(text: &str) -> Value {
    text.replace("#/components/schemas/", "#/definitions/").into()
}

fn schema(of: &Value) -> Value {
    let Value::Object(fields) = of else { return of.clone() };
    let mut out = Map::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("$ref", Value::String(text)) => {
                out.insert("$ref".into(), reference(text));
            }
            // The one use of `allOf` in the API is to say something beside a reference, which version 2 allows.
            ("allOf", Value::Array(list)) if list.len() == 1 => {
                if let Some(text) = list.first().and_then(|only| only["$ref"].as_str()) {
                    out.insert("$ref".into(), reference(text));
                }
            }
            ("oneOf", Value::Array(list)) => {
                out.insert("type".into(), simple_type(fields, list));
            }
            ("properties", Value::Object(inner)) => {
                let inner: Map<String, Value> =
                    inner.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
                out.insert("properties".into(), Value::Object(inner));
            }
            ("items" | "additionalProperties", value) => {
                out.insert(key.clone(), schema(value));
            }
            ("anyOf" | "allOf" | "not" | "nullable" | "default", _) => {}
            (_, value) => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}

/// The type of what may be one of several: text, which quantities and ports can always be written as.
fn simple_type(fields: &Map<String, Value>, choices: &[Value]) -> Value {
    let text = choices.iter().any(|choice| choice["type"] == "string");
    match fields.get("type") {
        Some(declared) => declared.clone(),
        None if text => "string".into(),
        None => "object".into(),
    }
}

fn operation(of: &Value) -> Value {
    let mut out = of.clone();
    for parameter in out["parameters"].as_array_mut().into_iter().flatten() {
        let Value::Object(fields) = parameter else { continue };
        if let Some(Value::Object(schema)) = fields.shift_remove("schema") {
            fields.extend(schema);
        }
    }
    for (_, response) in out["responses"].as_object_mut().into_iter().flatten() {
        let Value::Object(fields) = response else { continue };
        if let Some(content) = fields.shift_remove("content") {
            fields.insert("schema".into(), schema(&content["application/json"]["schema"]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_say_what_version_2_can() {
        let three = json!({"type": "object", "properties": {
            "a": {"description": "An a.", "allOf": [{"$ref": "#/components/schemas/x.A"}], "default": {}},
            "b": {"type": "array", "items": {"$ref": "#/components/schemas/x.B"}},
            "default": {"oneOf": [{"type": "string"}, {"type": "number"}]}}});
        assert_eq!(
            schema(&three),
            json!({"type": "object", "properties": {
                "a": {"description": "An a.", "$ref": "#/definitions/x.A"},
                "b": {"type": "array", "items": {"$ref": "#/definitions/x.B"}},
                "default": {"type": "string"}}})
        );
    }

    #[test]
    fn a_type_is_a_kind_wherever_one_part_says_so() {
        let part = |kinds: Value| {
            let mut schema = json!({"type": "object"});
            if kinds.is_array() {
                schema[KINDS] = kinds;
            }
            json!({"info": {"version": "v1"}, "components": {"schemas": {"x.Scale": schema}}, "paths": {}})
        };
        let both = document(&[part(Value::Null), part(json!([{"kind": "Scale"}]))]);
        assert_eq!(both["definitions"]["x.Scale"][KINDS], json!([{"kind": "Scale"}]));
    }
}
