//! `meta.k8s.io/v1` tables: what `kubectl get` prints.
//!
//! Rules: Kubernetes `pkg/printers/internalversion/printers.go`; custom resources print their
//! `additionalPrinterColumns`.

use crate::columns::{self, Column};
use crate::jsonpath;
use crate::respond::partial;
use crate::schema::catalogue::Resource;
use crate::status::Refusal;
use crate::time;
use serde_json::{Value, json};

/// What a row says of its object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads `includeObject`.
    pub fn read(text: &str) -> Result<Include, Refusal> {
        match text {
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            "" | "Metadata" => Ok(Include::Metadata),
            _ => Err(Refusal::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {text:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

/// A table of objects in the version of the resource.
pub fn render<'a>(
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    metadata: Value,
    now: jiff::Timestamp,
    include: Include,
) -> Value {
    let custom = resource.custom.as_ref();
    let columns: Vec<Column> = match custom {
        Some(custom) => custom_columns(&custom.columns),
        None => columns::of(&resource.group, &resource.plural),
    };
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                "priority": c.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .map(|object| {
            let cells = match custom {
                Some(custom) => custom_cells(object, &custom.columns, now),
                None => columns::cells(&resource.group, &resource.plural, object, now),
            };
            let mut row = json!({"cells": cells});
            if custom.is_none()
                && let Some(conditions) = conditions(resource, object)
            {
                row["conditions"] = conditions;
            }
            match include {
                Include::None => row["object"] = Value::Null,
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions,
        "rows": rows})
}

/// What the row of a pod that has ended says besides its cells.
fn conditions(resource: &Resource, object: &Value) -> Option<Value> {
    let (reason, message) = match object["status"]["phase"].as_str() {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    let row = json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    resource.is("", "pods").then_some(row)
}

fn custom_columns(declared: &[Value]) -> Vec<Column> {
    let mut out = vec![Column::name()];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for column in declared {
        let path = text(&column["jsonPath"]);
        let description = match column["description"].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => format!("Custom resource definition column (in JSONPath format): {path}"),
        };
        out.push(Column {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            format: text(&column["format"]),
            description,
            priority: column["priority"].as_i64().unwrap_or(0),
        });
    }
    if declared.is_empty() {
        let mut age = Column::age();
        age.kind = "date".into();
        out.push(age);
    }
    out
}

fn custom_cells(object: &Value, declared: &[Value], now: jiff::Timestamp) -> Vec<Value> {
    let mut out = vec![object["metadata"]["name"].clone()];
    let age = json!({"type": "date", "jsonPath": ".metadata.creationTimestamp"});
    let fallback = [age];
    let declared = if declared.is_empty() { &fallback } else { declared };
    for column in declared {
        let found = jsonpath::find(object, column["jsonPath"].as_str().unwrap_or_default());
        let Some(value) = found.first() else {
            out.push(Value::Null);
            continue;
        };
        out.push(match (column["type"].as_str(), value) {
            (Some("date"), Value::String(at)) => time::age(at, now).into(),
            (Some("integer"), Value::Number(_)) | (Some("number"), Value::Number(_)) => (*value).clone(),
            (Some("boolean"), Value::Bool(_)) => (*value).clone(),
            (Some("string"), Value::String(_)) => (*value).clone(),
            (Some("string"), Value::Object(_) | Value::Array(_)) => value.to_string().into(),
            (Some("string"), other) => other.to_string().into(),
            _ => Value::Null,
        });
    }
    out
}
