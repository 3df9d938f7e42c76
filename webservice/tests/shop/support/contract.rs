//! Holds every answer that a test gets to the OpenAPI document that the shop serves.

use std::sync::LazyLock;

use http::Method;
use serde_json::{Map, Value, json};

use super::Answer;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../api/openapi.json")).unwrap());

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Fails the test if the document does not promise this answer.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap();
    let status = answer.status.as_u16();
    let what = format!("{method} {path} answered {status}: {}", answer.text());
    let operation = operation(method, path);
    let Some(operation) = operation else {
        // Not in the document, so it must not be there. A preflight is no operation.
        let refused =
            matches!(status, 404 | 405 | 413 | 429) || (*method == Method::OPTIONS && status == 204);
        assert!(refused, "undocumented: {what}");
        return;
    };
    // The frontend's own, when it gets no answer from the backend.
    if matches!(status, 502 | 504) {
        return;
    }
    let response = operation["responses"].get(status.to_string());
    let response = resolve(response.unwrap_or_else(|| panic!("undocumented status: {what}")));
    for (name, _) in response["headers"].as_object().unwrap_or(&Map::new()) {
        assert!(!answer.header(&name.to_lowercase()).is_empty(), "no {name}: {what}");
    }
    let Some(content) = response.get("content") else {
        assert!(answer.body.is_empty(), "undocumented body: {what}");
        return;
    };
    let (media_type, content) = content.as_object().unwrap().iter().next().unwrap();
    assert_eq!(answer.header("content-type"), media_type, "{what}");
    if *method == Method::HEAD || !answer.header("content-encoding").is_empty() {
        return;
    }
    if let Err(problem) = validate(&content["schema"], &answer.json(), "$") {
        panic!("{problem}: {what}");
    }
}

/// The documented operation; HEAD is promised wherever GET is.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let path = path.strip_suffix('/').unwrap_or(path);
    let paths = document()["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (wanted, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        wanted.len() == given.len() && wanted.iter().zip(&given).all(|(w, g)| w == g || w.starts_with('{'))
    };
    // A template without variables is more exact than one with.
    let found = paths.get(path).or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, p)| p));
    found?.get(method)
}

/// Follows a reference within the document.
pub fn resolve(value: &'static Value) -> &'static Value {
    match value.get("$ref") {
        Some(reference) => {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            document().pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))
        }
        None => value,
    }
}

/// JSON Schema, as much of it as the document uses; a keyword that is not known here fails the test.
pub fn validate(schema: &'static Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(schema);
    let number = |bound: &Value| bound.as_f64().unwrap();
    let length = |text: &Value| text.as_str().map(|text| text.chars().count() as u64);
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "description" | "default" | "example" => true,
            "type" => is_of_type(rule, value),
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|value| value >= number(rule)),
            "maximum" => value.as_f64().is_none_or(|value| value <= number(rule)),
            "minLength" => length(value).is_none_or(|length| length >= rule.as_u64().unwrap()),
            "maxLength" => length(value).is_none_or(|length| length <= rule.as_u64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "pattern" => value
                .as_str()
                .is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "format" => {
                assert_eq!(rule, "date-time");
                value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok())
            }
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
            }),
            "additionalProperties" => {
                assert_eq!(rule, &json!(false));
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|object| object.keys().all(|name| known.contains_key(name)))
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        validate(schema, value, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, value, &format!("{at}[{index}]"))?;
                }
                true
            }
            unknown => panic!("the keyword {unknown} is not known"),
        };
        if !good {
            return Err(format!("{at} is {value}, but {keyword} is {rule}"));
        }
    }
    Ok(())
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    match rule {
        Value::Array(any) => any.iter().any(|rule| is_of_type(rule, value)),
        rule => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            unknown => panic!("the type {unknown} is not known"),
        },
    }
}
