//! Custom resources: from a CustomResourceDefinition to resources with types.
//!
//! Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/

use super::catalogue::{Resource, Subresource};
use super::table::TABLE;
use super::{Empty, Field, List, Map, Relation, Struct, Type};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a custom resource has beyond its type.
#[derive(Debug)]
pub struct Custom {
    /// `openAPIV3Schema`.
    pub schema: Value,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    /// `subresources.scale`, when there is one.
    pub scale: Option<Value>,
    /// JSON paths that field selectors may use.
    pub selectable: Vec<String>,
    /// Version that objects are stored in.
    pub storage_version: String,
    /// What clients of this version are warned of.
    pub deprecation: Option<String>,
}

/// The deepest schema that is read.
const DEEPEST: usize = 60;

/// The resources that a definition serves, one per version.
pub fn resources(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &Value| -> Vec<String> { v.as_array().into_iter().flatten().map(text).collect() };
    let none = Vec::new();
    let versions = spec["versions"].as_array().unwrap_or(&none);
    let storage_version =
        versions.iter().find(|v| v["storage"] == true).map(|v| text(&v["name"])).unwrap_or_default();
    let mut out = Vec::new();
    for version in versions.iter().filter(|v| v["served"] == true) {
        let schema = version["schema"]["openAPIV3Schema"].clone();
        let subresources = &version["subresources"];
        let kind = text(&names["kind"]);
        let mut subs = Vec::new();
        let verbs: Vec<String> = ["get", "patch", "update"].map(String::from).to_vec();
        if !subresources["status"].is_null() {
            subs.push(Subresource {
                name: "status".into(),
                kind: kind.clone(),
                group: text(&spec["group"]),
                version: text(&version["name"]),
                verbs: verbs.clone(),
            });
        }
        let scale = subresources.get("scale").filter(|s| !s.is_null()).cloned();
        if scale.is_some() {
            subs.push(Subresource {
                name: "scale".into(),
                kind: "Scale".into(),
                group: "autoscaling".into(),
                version: "v1".into(),
                verbs,
            });
        }
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let custom = Custom {
            columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            scale,
            selectable: selectable.map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
            storage_version: storage_version.clone(),
            deprecation: (version["deprecated"] == true).then(|| {
                match version["deprecationWarning"].as_str() {
                    Some(warning) => warning.to_owned(),
                    None => {
                        format!("{}/{} {kind} is deprecated", text(&spec["group"]), text(&version["name"]))
                    }
                }
            }),
            schema,
        };
        let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
        out.push(Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&names["plural"]),
            singular: text(&names["singular"]),
            list_kind: names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
            kind,
            namespaced: spec["scope"] == "Namespaced",
            short_names: list(&names["shortNames"]),
            categories: list(&names["categories"]),
            verbs: verbs.map(String::from).to_vec(),
            subresources: subs,
            ty: Arc::new(object_type(&custom.schema)),
            custom: Some(Arc::new(custom)),
        });
    }
    out
}

/// The type of a custom object: its schema, with Kubernetes' own metadata.
fn object_type(schema: &Value) -> Type {
    let mut out = match convert(schema, 0) {
        Type::Struct(s) => s,
        _ => Struct { preserve_unknown: true, ..Struct::default() },
    };
    out.fields.remove("apiVersion");
    out.fields.remove("kind");
    let metadata = TABLE.get("meta.v1.ObjectMeta").cloned().unwrap_or_else(|| Arc::new(Type::Any));
    let field = Field {
        ty: metadata,
        empty: Empty::Always,
        default: None,
        allowed: Vec::new(),
        required: false,
        patch_strategy: String::new(),
    };
    out.fields.insert("metadata".into(), field);
    Type::Struct(out)
}

fn convert(schema: &Value, depth: usize) -> Type {
    if depth > DEEPEST {
        return Type::Any;
    }
    let preserve = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::Any;
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, preserve, depth),
        Some("array") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            let relation = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Relation::Set,
                Some("map") => Relation::Keyed(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
                _ => Relation::Atomic,
            };
            let element = Arc::new(convert(&schema["items"], depth + 1));
            Type::List(List { element, relation, merge_key: None, merge: false })
        }
        Some("string") => Type::String,
        Some("integer") => Type::Integer { bits: 64 },
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn object(schema: &Value, preserve: bool, depth: usize) -> Type {
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    let properties = schema["properties"].as_object();
    if properties.is_none() && schema["x-kubernetes-embedded-resource"] != true {
        match &schema["additionalProperties"] {
            Value::Object(_) => {
                let element = Arc::new(convert(&schema["additionalProperties"], depth + 1));
                return Type::Map(Map { element, atomic });
            }
            Value::Bool(true) => return Type::Map(Map { element: Arc::new(Type::Any), atomic }),
            _ if preserve && !atomic => return Type::Any,
            _ => {}
        }
    }
    let mut fields = BTreeMap::new();
    for (name, property) in properties.into_iter().flatten() {
        let field = Field {
            ty: Arc::new(convert(property, depth + 1)),
            empty: Empty::AsSent,
            default: property.get("default").cloned(),
            allowed: Vec::new(),
            required: false,
            patch_strategy: String::new(),
        };
        fields.insert(name.clone(), field);
    }
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    if embedded {
        let metadata = TABLE.get("meta.v1.ObjectMeta").cloned().unwrap_or_else(|| Arc::new(Type::Any));
        let field = |ty: Arc<Type>| Field {
            ty,
            empty: Empty::AsSent,
            default: None,
            allowed: Vec::new(),
            required: false,
            patch_strategy: String::new(),
        };
        fields.insert("metadata".into(), field(metadata));
        for name in ["apiVersion", "kind"] {
            fields.entry(name.into()).or_insert_with(|| field(Arc::new(Type::String)));
        }
    }
    Type::Struct(Struct {
        name: String::new(),
        fields,
        atomic,
        preserve_unknown: preserve,
        ..Struct::default()
    })
}
