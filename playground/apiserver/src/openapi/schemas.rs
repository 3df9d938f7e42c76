//! Schemas of types: their structure from the type table, their sentences from [`descriptions`].

use super::descriptions;
use crate::schema::{Empty, Field, Relation, Struct, Type};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Schemas by full type name.
pub type Schemas = BTreeMap<String, Value>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The name under which a type is published: `io.k8s.api.core.v1.Pod`.
pub fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis.",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis.",
        _ => "io.k8s.api.",
    };
    format!("{prefix}{short}")
}

/// A reference to a published type.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A reference with something said beside it, which `$ref` alone does not allow.
fn described_reference(name: &str, description: Option<&str>) -> Value {
    let mut out = Map::new();
    if let Some(text) = description {
        out.insert("description".into(), text.into());
    }
    out.insert("allOf".into(), json!([reference(name)]));
    Value::Object(out)
}

/// Publishes a struct and all that it refers to.
pub fn publish(ty: &Type, schemas: &mut Schemas) {
    let Type::Struct(declared) = ty else { return };
    let name = full_name(&declared.name);
    if schemas.contains_key(&name) {
        return;
    }
    schemas.insert(name.clone(), Value::Null);
    let known = descriptions::schema(&name);
    let mut properties = Map::new();
    for (field, of) in &declared.fields {
        properties.insert(field.clone(), property(&name, field, of, schemas));
    }
    schemas.insert(name.clone(), object(declared, known, properties));
}

fn object(declared: &Struct, known: Option<&Value>, properties: Map<String, Value>) -> Value {
    let mut schema = Map::new();
    if let Some(text) = known.and_then(|k| k["description"].as_str()) {
        schema.insert("description".into(), text.into());
    }
    schema.insert("type".into(), "object".into());
    let required: Vec<&String> =
        declared.fields.iter().filter(|(_, f)| f.required).map(|(name, _)| name).collect();
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema.insert("properties".into(), Value::Object(properties));
    if declared.atomic {
        schema.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    Value::Object(schema)
}

/// Marks a schema as that of a kind, and adds `apiVersion` and `kind`, which the type table leaves out.
pub fn mark_kind(schema: &mut Value, gvk: &Value) {
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
    for field in ["apiVersion", "kind"] {
        let mut property = json!({"type": "string"});
        // Every kind has the same sentences there.
        if let Some(text) = descriptions::of_field("io.k8s.api.apps.v1.Deployment", field) {
            property = json!({"description": text, "type": "string"});
        }
        schema["properties"][field] = property;
    }
}

fn property(name: &str, field: &str, of: &Field, schemas: &mut Schemas) -> Value {
    let known = descriptions::schema(name).map(|s| &s["properties"][field]);
    let mut schema = schema_of(&of.ty, known, schemas);
    let mut text = descriptions::of_field(name, field).map(str::to_owned);
    if !of.allowed.is_empty() {
        schema["enum"] = of.allowed.clone().into();
        let values: Vec<String> = of.allowed.iter().map(|v| format!("\n - `{:?}`", v)).collect();
        let values = format!("Possible enum values:{}", values.concat());
        text = Some(text.map_or_else(|| values.clone(), |text| format!("{text}\n\n{values}")));
    }
    let default = match (&of.default, of.empty, &*of.ty) {
        (Some(default), _, _) => Some(default.clone()),
        (None, Empty::Always, Type::Struct(_)) => Some(json!({})),
        (None, Empty::Always, ty @ (Type::String | Type::Boolean | Type::Integer { .. })) => Some(ty.zero()),
        _ => None,
    };
    // A bare reference cannot have anything beside it.
    if let Some(target) = schema["$ref"].as_str()
        && (text.is_some() || default.is_some() || !of.patch_strategy.is_empty())
    {
        let target = target.rsplit('/').next().unwrap_or(target).to_owned();
        schema = described_reference(&target, None);
    }
    if let Some(default) = default {
        schema["default"] = default;
    }
    if !of.patch_strategy.is_empty() {
        schema["x-kubernetes-patch-strategy"] = of.patch_strategy.clone().into();
    }
    match (text, schema) {
        (Some(text), Value::Object(fields)) => {
            let mut out = Map::new();
            out.insert("description".into(), text.into());
            out.extend(fields.into_iter().filter(|(key, _)| key != "description"));
            Value::Object(out)
        }
        (_, schema) => schema,
    }
}

/// The schema of a field's type; `known` is what k8s-openapi says of the same place.
fn schema_of(ty: &Type, known: Option<&Value>, schemas: &mut Schemas) -> Value {
    match ty {
        Type::String => json!({"type": "string"}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::Integer { bits } => json!({"type": "integer", "format": format!("int{bits}")}),
        Type::Number => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Quantity => special(
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            schemas,
        ),
        Type::IntOrString => special(
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            schemas,
        ),
        Type::Time => time("Time", schemas),
        Type::MicroTime => time("MicroTime", schemas),
        Type::Any => known.map_or_else(|| json!({"type": "object"}), |known| adopt(known, schemas)),
        Type::Struct(of) => {
            publish(ty, schemas);
            reference(&full_name(&of.name))
        }
        Type::Map(map) => {
            let known = known.map(|k| &k["additionalProperties"]);
            let element = schema_of(&map.element, known, schemas);
            let mut out = json!({"type": "object", "additionalProperties": element});
            if map.atomic {
                out["x-kubernetes-map-type"] = "atomic".into();
            }
            out
        }
        Type::List(list) => {
            let element = schema_of(&list.element, known.map(|k| &k["items"]), schemas);
            let mut out = json!({"type": "array", "items": element});
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
            out
        }
    }
}

fn time(name: &str, schemas: &mut Schemas) -> Value {
    special(&format!("{META}{name}"), json!({"type": "string", "format": "date-time"}), schemas)
}

/// Publishes a type that is written as something simpler than a struct.
fn special(name: &str, mut schema: Value, schemas: &mut Schemas) -> Value {
    if !schemas.contains_key(name) {
        if let Some(text) = descriptions::of_type(name) {
            schema["description"] = text.into();
        }
        schemas.insert(name.to_owned(), schema);
    }
    reference(name)
}

/// Takes over what the type table does not hold: the schema of schemas, for instance.
fn adopt(known: &Value, schemas: &mut Schemas) -> Value {
    let Value::Object(fields) = known else { return known.clone() };
    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
        let target = target.rsplit('/').next().unwrap_or(target);
        adopt_type(target, schemas);
        return match fields.get("description").and_then(Value::as_str) {
            Some(text) => described_reference(target, Some(text)),
            None => reference(target),
        };
    }
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(inner)) => {
                let mut properties = Map::new();
                for (name, schema) in inner {
                    properties.insert(name.clone(), adopt(schema, schemas));
                }
                Value::Object(properties)
            }
            ("items" | "additionalProperties", schema) => adopt(schema, schemas),
            // Marks of custom resource schemas, and choices; the published ones do not have them.
            ("oneOf", _) => continue,
            (key, _) if key.starts_with("x-") => continue,
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn adopt_type(name: &str, schemas: &mut Schemas) {
    if schemas.contains_key(name) {
        return;
    }
    schemas.insert(name.to_owned(), Value::Null);
    let schema = descriptions::schema(name).map_or_else(|| json!({}), |known| adopt(known, schemas));
    schemas.insert(name.to_owned(), schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;

    fn published(name: &str) -> Schemas {
        let mut schemas = Schemas::new();
        publish(TABLE.get(name).unwrap(), &mut schemas);
        assert!(schemas.values().all(|s| !s.is_null()), "a schema was announced but not written");
        schemas
    }

    #[test]
    fn a_field_has_its_sentence_structure_and_values() {
        let schemas = published("apps.v1.Deployment");
        let strategy = &schemas["io.k8s.api.apps.v1.DeploymentStrategy"]["properties"];
        assert_eq!(
            strategy["rollingUpdate"]["allOf"][0],
            reference("io.k8s.api.apps.v1.RollingUpdateDeployment")
        );
        assert!(strategy["rollingUpdate"]["description"].as_str().unwrap().contains("Rolling update"));
        assert!(
            strategy["type"]["description"]
                .as_str()
                .unwrap()
                .ends_with("Possible enum values:\n - `\"Recreate\"`\n - `\"RollingUpdate\"`")
        );
        assert_eq!(strategy["type"]["enum"], json!(["Recreate", "RollingUpdate"]));
        let pod = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(pod["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(pod["items"], reference("io.k8s.api.core.v1.Container"));
        // What `kubectl apply` needs to move from one strategy or volume to another.
        let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
        assert_eq!(spec["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
        let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    }

    #[test]
    fn a_schema_of_schemas_is_taken_over_with_what_it_refers_to() {
        let schemas = published("apiextensions.v1.CustomResourceDefinition");
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let validation =
            &schemas["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation"];
        assert_eq!(validation["properties"]["openAPIV3Schema"]["allOf"][0], reference(name));
        assert_eq!(schemas[name]["properties"]["allOf"]["items"], reference(name));
        for schema in schemas.values() {
            let text = schema.to_string();
            for target in text.split("#/components/schemas/").skip(1) {
                let target = target.split('"').next().unwrap();
                assert!(schemas.contains_key(target), "{target} is referred to but not published");
            }
        }
    }
}
