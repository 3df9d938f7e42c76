//! Ratcheting: what an update leaves as it is may stay wrong.
//!
//! Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-ratcheting

use crate::status::Cause;
use serde_json::Value;

/// One step into a value.
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// Reads `spec.ports[0].name`.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let mut pieces = part.split('[');
        if let Some(name) = pieces.next().filter(|n| !n.is_empty()) {
            out.push(Step::Field(name));
        }
        for piece in pieces {
            let inner = piece.trim_end_matches(']');
            out.push(inner.parse().map_or(Step::Field(inner), Step::Index));
        }
    }
    out
}

/// Whether a complaint is about a value that an update did not touch. Elements of lists are compared by their keys, those of
/// lists without keys only where the whole list is the same.
pub fn is_unchanged(cause: &Cause, new: &Value, old: &Value, schema: &Value) -> bool {
    if cause.field == "<nil>" || cause.field.is_empty() {
        return false;
    }
    let path = steps(&cause.field);
    // What is missing is missing in its parent, and an element that is there twice is so in its list.
    let whole = if matches!(cause.reason, "FieldValueRequired" | "FieldValueDuplicate") {
        path.len().saturating_sub(1)
    } else {
        path.len()
    };
    if whole == 0 {
        return new == old;
    }
    let (mut new, mut old, mut schema) = (new, old, schema);
    for step in &path[..whole] {
        let (next_new, next_old, next_schema) = match step {
            Step::Field(name) => {
                let inner = schema["properties"].get(*name).unwrap_or(&schema["additionalProperties"]);
                (new.get(*name), old.get(*name), inner)
            }
            Step::Index(index) => {
                let item = new.get(*index);
                let before = match schema["x-kubernetes-list-map-keys"].as_array() {
                    Some(keys) => {
                        let same = |o: &&Value| {
                            let keys = keys.iter().filter_map(Value::as_str);
                            item.is_some_and(|item| {
                                keys.map(|k| (o.get(k), item.get(k))).all(|(a, b)| a == b)
                            })
                        };
                        old.as_array().into_iter().flatten().find(same)
                    }
                    None if new == old => old.get(*index),
                    None => None,
                };
                (item, before, &schema["items"])
            }
        };
        let (Some(next_new), Some(next_old)) = (next_new, next_old) else { return false };
        (new, old, schema) = (next_new, next_old, next_schema);
    }
    new == old
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_stays_may_stay_wrong() {
        let schema = json!({"properties": {"spec": {"properties": {"l": {"x-kubernetes-list-map-keys": ["k"],
            "items": {"properties": {"v": {}}}}}}}});
        let old = json!({"spec": {"a": "long", "l": [{"k": 1, "v": "x"}], "free": [1, 2]}});
        let new = json!({"spec": {"a": "long", "b": 1, "l": [{"k": 2}, {"k": 1, "v": "x"}], "free": [1]}});
        let about = |field: &str| Cause::invalid(field, &json!(""), "");
        for (field, expected) in [
            ("spec.a", true),
            ("spec.b", false),
            ("spec.l[1].v", true),
            ("spec.l[0]", false),
            ("spec.free[0]", false),
            ("<nil>", false),
        ] {
            assert_eq!(is_unchanged(&about(field), &new, &old, &schema), expected, "{field}");
        }
        assert!(!is_unchanged(&Cause::required("spec.c", ""), &new, &old, &schema), "its parent changed");
    }
}
