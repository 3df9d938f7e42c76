//! CEL rules of custom resources (`x-kubernetes-validations`).
//!
//! Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules

use crate::status::Cause;
use cel::{Context, Program};
use serde_json::Value;

/// The deepest schema whose rules are looked for.
const DEEPEST: usize = 60;

/// Whether a schema has rules anywhere.
pub fn has_rules(schema: &Value, depth: usize) -> bool {
    if depth > DEEPEST {
        return false;
    }
    let children = schema["properties"].as_object().into_iter().flatten().map(|(_, v)| v);
    schema["x-kubernetes-validations"].as_array().is_some_and(|r| !r.is_empty())
        || children
            .chain([&schema["items"], &schema["additionalProperties"]])
            .any(|s| s.is_object() && has_rules(s, depth + 1))
}

/// Evaluates the rules of a schema on an object.
pub fn check(object: &Value, old: Option<&Value>, schema: &Value, causes: &mut Vec<Cause>) {
    if has_rules(schema, 0) {
        walk(object, old, schema, "", 0, causes);
    }
}

fn walk(
    value: &Value,
    old: Option<&Value>,
    schema: &Value,
    path: &str,
    depth: usize,
    causes: &mut Vec<Cause>,
) {
    if depth > DEEPEST || value.is_null() {
        return;
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        evaluate(value, old, rule, path, causes);
    }
    match value {
        Value::Object(fields) => {
            for (name, item) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let inner = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                walk(item, old.and_then(|o| o.get(name)), inner, &below, depth + 1, causes);
            }
        }
        Value::Array(items) => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            for (index, item) in items.iter().enumerate() {
                // Only keyed lists say which old element a new one was.
                let before = keys.and_then(|keys| {
                    let same =
                        |o: &&Value| keys.iter().filter_map(Value::as_str).all(|k| o.get(k) == item.get(k));
                    old.and_then(Value::as_array).into_iter().flatten().find(same)
                });
                walk(item, before, &schema["items"], &format!("{path}[{index}]"), depth + 1, causes);
            }
        }
        _ => {}
    }
}

fn evaluate(value: &Value, old: Option<&Value>, rule: &Value, path: &str, causes: &mut Vec<Cause>) {
    let text = rule["rule"].as_str().unwrap_or_default();
    let is_transition = text.contains("oldSelf");
    if is_transition && old.is_none() && rule["optionalOldSelf"] != true {
        return;
    }
    let refuse = |message: String| {
        let (reason, word) = match rule["reason"].as_str() {
            Some("FieldValueForbidden") => ("FieldValueForbidden", "Forbidden: "),
            Some("FieldValueRequired") => ("FieldValueRequired", "Required value: "),
            Some("FieldValueDuplicate") => ("FieldValueDuplicate", "Duplicate value: "),
            _ => ("FieldValueInvalid", "Invalid value: "),
        };
        let field = match rule["fieldPath"].as_str() {
            Some(below) if !below.is_empty() => format!("{path}{below}").trim_start_matches('.').to_owned(),
            _ if path.is_empty() => "<nil>".to_owned(),
            _ => path.to_owned(),
        };
        Cause { field, reason, message: format!("{word}{message}") }
    };
    let Ok(program) = Program::compile(text) else {
        causes.push(refuse(format!("rule compile error: compilation failed: {text}")));
        return;
    };
    let mut context = Context::default();
    let mut added = context.add_variable("self", value).is_ok();
    if is_transition {
        added &= context.add_variable("oldSelf", old.unwrap_or(&Value::Null)).is_ok();
    }
    let failed = || match (rule["messageExpression"].as_str(), rule["message"].as_str()) {
        (Some(expression), message) => {
            let shown = Program::compile(expression).ok().and_then(|p| match p.execute(&context) {
                Ok(cel::Value::String(text)) => Some(text.to_string()),
                _ => None,
            });
            shown.or(message.map(str::to_owned)).unwrap_or_else(|| format!("failed rule: {text}"))
        }
        (None, Some(message)) if !message.is_empty() => message.to_owned(),
        _ => format!("failed rule: {text}"),
    };
    match program.execute(&context) {
        Ok(cel::Value::Bool(true)) if added => {}
        Ok(cel::Value::Bool(false)) => causes.push(refuse(failed())),
        Ok(_) => causes.push(refuse(format!("rule does not evaluate to a boolean: {text}"))),
        Err(error) => causes.push(refuse(format!("rule evaluation error: {error}"))),
    }
}
