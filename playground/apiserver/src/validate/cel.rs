//! CEL rules of custom resources (`x-kubernetes-validations`).
//!
//! Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules

use crate::expressions::compiled;
use crate::status::Cause;
use engine::policy::cel::Scope;
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
        // Whole objects and lists are not repeated in a refusal.
        let shown = match value {
            Value::Object(_) | Value::Array(_) => String::new(),
            plain if reason == "FieldValueInvalid" => format!("{plain}: "),
            _ => String::new(),
        };
        let field = match rule["fieldPath"].as_str() {
            Some(below) if !below.is_empty() => format!("{path}{below}").trim_start_matches('.').to_owned(),
            _ if path.is_empty() => "<nil>".to_owned(),
            _ => path.to_owned(),
        };
        Cause { field, reason, message: format!("{word}{shown}{message}") }
    };
    let expression = match compiled(text) {
        Ok(expression) => expression,
        Err(error) => {
            causes.push(refuse(format!("rule compile error: {error}")));
            return;
        }
    };
    let mut scope = Scope::new();
    scope.set("self", value);
    if is_transition {
        scope.set("oldSelf", old.unwrap_or(&Value::Null));
    }
    let failed = || {
        let made =
            rule["messageExpression"].as_str().and_then(|m| compiled(m).ok()?.evaluate_text(&scope).ok());
        let fixed = rule["message"].as_str().filter(|m| !m.is_empty()).map(str::to_owned);
        made.or(fixed).unwrap_or_else(|| format!("failed rule: {text}"))
    };
    match expression.evaluate_bool(&scope) {
        Ok(true) => {}
        Ok(false) => causes.push(refuse(failed())),
        Err(error) => causes.push(refuse(format!("rule evaluation error: {error}"))),
    }
}
