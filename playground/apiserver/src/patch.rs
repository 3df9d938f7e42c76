//! JSON patch, JSON merge patch and strategic merge patch.
//!
//! Rules: RFC 6902, RFC 7386, and Kubernetes' "strategic merge patch" (lists merged by key, `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList`, `$setElementOrder`).

use crate::decode;
use crate::schema::{List, Type};
use crate::status::{Cause, Refusal};
use json_patch::{AddOperation, PatchOperation};
use serde_json::{Map, Value, json};

/// The refusal of a patch after which an object is not of its type any more.
///
/// Rules: `patchResource` of k8s.io/apiserver `endpoints/handlers/patch.go`, and for the words of a strategic merge patch
/// `fromUnstructured` of k8s.io/apimachinery `runtime/converter.go`.
pub fn misfit(kind: &str, patch: &Value, patched: &Value, error: &decode::Error) -> Refusal {
    let (shown, why) = if kind == STRATEGIC {
        (go_text(patch), converter_error(error))
    } else {
        (patched.to_string(), error.to_string())
    };
    let cause = Cause::invalid("patch", &shown.into(), why);
    Refusal { about: Some(Box::default()), ..Refusal::invalid("", "", "", vec![cause]) }
}

const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn converter_error(error: &decode::Error) -> String {
    let decode::Error::WrongType { found, wanted, .. } = error else { return error.to_string() };
    let found = if found.starts_with("number") { "int64" } else { found };
    match (found, wanted.as_str()) {
        ("int64", "string") => format!("cannot convert {found} to {wanted}"),
        (_, "string" | "bool" | "int32" | "int64" | "float64") => format!("unrecognized type: {wanted}"),
        (_, wanted) if wanted.starts_with("map[") => format!("cannot restore map from {found}"),
        (_, wanted) if wanted.starts_with("[]") => format!("cannot restore slice from {found}"),
        _ => format!("cannot restore struct from: {found}"),
    }
}

/// A value as Go prints maps.
fn go_text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}

/// Most operations of one JSON patch (a real server's limit).
const MOST_OPERATIONS: usize = 10_000;

/// Applies a JSON patch.
pub fn json_patch(target: &Value, patch: Value) -> Result<Value, Refusal> {
    if !patch.is_array() {
        let found = if patch.is_object() { "object" } else { "string" };
        return Err(Refusal::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp"
        )));
    }
    // What is no operation fails as it is applied, not as it is read.
    let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|_| Refusal::unprocessable())?;
    if patch.0.len() > MOST_OPERATIONS {
        return Err(Refusal::too_large());
    }
    let mut out = target.clone();
    for operation in patch.0 {
        // As on a real server, a key that is not there yet is replaced too.
        let operation = match operation {
            PatchOperation::Replace(replace) if is_new_key(&out, &replace.path.to_string()) => {
                PatchOperation::Add(AddOperation { path: replace.path, value: replace.value })
            }
            other => other,
        };
        json_patch::patch(&mut out, &json_patch::Patch(vec![operation]))
            .map_err(|_| Refusal::unprocessable())?;
    }
    Ok(out)
}

/// Whether a JSON pointer names a key that an existing object does not have.
fn is_new_key(target: &Value, pointer: &str) -> bool {
    let Some((parent, _)) = pointer.rsplit_once('/') else { return false };
    target.pointer(pointer).is_none() && target.pointer(parent).is_some_and(Value::is_object)
}

/// Applies a JSON merge patch.
pub fn merge_patch(target: &Value, patch: &Value) -> Value {
    let mut out = target.clone();
    json_patch::merge(&mut out, patch);
    out
}

/// Applies a strategic merge patch to a value of a type.
pub fn strategic(target: &Value, patch: &Value, ty: &Type) -> Result<Value, Refusal> {
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        let found = match patch {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        return Err(Refusal::bad_request(format!(
            "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    };
    if has_map_for_list(patch, ty) {
        let shown = json!(go_text(&Value::Object(patch.clone())));
        let cause = Cause::invalid("patch", &shown, "cannot restore slice from map");
        return Err(Refusal::invalid("", "", "", vec![cause]));
    }
    Ok(Value::Object(merge_object(target.clone(), patch, ty)?))
}

/// Whether a patch has a map where its type has a list.
fn has_map_for_list(patch: &Map<String, Value>, ty: &Type) -> bool {
    patch.iter().any(|(key, value)| match (value, ty.field(key).map(|t| &**t)) {
        (Value::Object(_), Some(Type::List(_))) => true,
        (Value::Object(inner), Some(below)) => has_map_for_list(inner, below),
        (Value::Array(items), Some(Type::List(list))) => {
            items.iter().filter_map(Value::as_object).any(|item| has_map_for_list(item, &list.element))
        }
        _ => false,
    })
}

fn merge_object(
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
    ty: &Type,
) -> Result<Map<String, Value>, Refusal> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => return Ok(clean(patch)),
        Some("delete") => return Ok(Map::new()),
        None | Some("merge") => {}
        Some(other) => {
            let shown = go_text(&Value::Object(patch.clone()));
            return Err(Refusal::internal(format!("unknown patch type: {other} in map: {shown}")));
        }
    }
    if let Some(Value::Array(keys)) = patch.get("$retainKeys") {
        target.retain(|key, _| keys.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(items)) = target.get_mut(list) {
                items.retain(|i| !gone.contains(i));
            }
        }
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        let below = match ty {
            Type::Struct(s) => s.fields.get(key).map_or(&Type::Any, |f| &*f.ty),
            Type::Map(map) => &*map.element,
            _ => &Type::Any,
        };
        if value.is_null() {
            target.shift_remove(key);
            continue;
        }
        let merged = match (target.get(key), value, below) {
            (Some(Value::Object(old)), Value::Object(new), _) => {
                Value::Object(merge_object(old.clone(), new, below)?)
            }
            // As on a real server, a directive has nothing to work on where there is nothing yet.
            (_, Value::Object(new), _) if new.contains_key("$patch") => Value::Object(Map::new()),
            (_, Value::Object(new), _) => Value::Object(merge_object(Map::new(), new, below)?),
            (old, Value::Array(new), Type::List(list)) if list.merge => {
                let old = old.and_then(Value::as_array).cloned().unwrap_or_default();
                let order = patch.get(&format!("$setElementOrder/{key}")).and_then(Value::as_array);
                Value::Array(merge_list(old, new, list, order)?)
            }
            (_, value, _) => value.clone(),
        };
        target.insert(key.clone(), merged);
    }
    for (key, order) in patch {
        let Some(list) = key.strip_prefix("$setElementOrder/") else { continue };
        if patch.contains_key(list) {
            continue;
        }
        let merge_key = ty.field(list).and_then(|t| match &**t {
            Type::List(l) => l.merge_key.clone(),
            _ => None,
        });
        if let (Some(Value::Array(items)), Some(order)) = (target.get_mut(list), order.as_array()) {
            let server_order = std::mem::take(items);
            *items = reorder(server_order.clone(), order, &server_order, merge_key.as_deref());
        }
    }
    Ok(target)
}

/// A patch object without its directives, where there is nothing to merge it with.
fn clean(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(key, _)| !key.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn merge_list(
    mut target: Vec<Value>,
    patch: &[Value],
    list: &List,
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, Refusal> {
    let server_order = target.clone();
    let Some(merge_key) = list.merge_key.as_deref() else {
        for value in patch {
            if !target.contains(value) {
                target.push(value.clone());
            }
        }
        return Ok(match order {
            Some(order) => reorder(target, order, &server_order, None),
            None => target,
        });
    };
    if patch.iter().any(|p| p["$patch"] == "replace") {
        return Ok(patch.iter().filter(|p| p.get("$patch").is_none()).cloned().collect());
    }
    let mut front = Vec::new();
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(Refusal::bad_request("a list that is merged by key holds objects only"));
        };
        let Some(key) = fields.get(merge_key).filter(|k| !k.is_null()) else {
            return Err(Refusal::internal(format!(
                "map: {} does not contain declared merge key: {merge_key}",
                go_text(item)
            )));
        };
        if fields.get("$patch").is_some_and(|p| p == "delete") {
            target.retain(|t| t.get(merge_key) != Some(key));
            continue;
        }
        match target.iter().position(|t| t.get(merge_key) == Some(key)) {
            Some(at) => {
                let old = target[at].as_object().cloned().unwrap_or_default();
                target[at] = Value::Object(merge_object(old, fields, &list.element)?);
            }
            None => front.push(Value::Object(merge_object(Map::new(), fields, &list.element)?)),
        }
    }
    target.extend(front);
    let order = order.map_or(patch, Vec::as_slice);
    Ok(reorder(target, order, &server_order, Some(merge_key)))
}

/// Position of an element in a list, by its key or by its value.
fn place(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| match merge_key {
        Some(key) => other.get(key) == item.get(key),
        None => other == item,
    })
}

/// Sorts what `order` names as it names it, and weaves in the rest, which keeps the order that the server has: a rest element
/// comes before the first named one that it preceded.
fn reorder(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(order, item, merge_key).is_some());
    named.sort_by_key(|item| place(order, item, merge_key));
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    let mut out = Vec::new();
    loop {
        let take_other = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(named)) => {
                let known = place(server_order, other, merge_key).zip(place(server_order, named, merge_key));
                known.is_some_and(|(other, named)| other < named)
            }
        };
        out.extend(if take_other { others.next() } else { named.next() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;
    use serde_json::json;

    #[test]
    fn strategic_lists() {
        let ty = TABLE.get("core.v1.PodSpec").unwrap();
        let live = json!({"containers": [{"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}, {"name": "B"}]}]});
        let patch = json!({"containers": [{"name": "side", "image": "s"}]});
        let out = strategic(&live, &patch, ty).unwrap();
        assert_eq!(out["containers"][0]["name"], "side");
        let patch =
            json!({"containers": [{"name": "c", "env": [{"name": "A", "$patch": "delete"}, {"name": "C"}]}]});
        let out = strategic(&live, &patch, ty).unwrap();
        assert_eq!(out["containers"][0]["env"], json!([{"name": "C"}, {"name": "B"}]));
        let patch = json!({"$setElementOrder/containers": [{"name": "n"}, {"name": "c"}], "containers": [{"name": "n"}]});
        let out = strategic(&live, &patch, ty).unwrap();
        assert_eq!(out["containers"][0]["name"], "n");
    }

    #[test]
    fn json_patches() {
        let live = json!({"a": 1});
        let patch = json!([{"op": "test", "path": "/a", "value": 2}]);
        assert_eq!(json_patch(&live, patch).unwrap_err(), Refusal::unprocessable());
        assert_eq!(merge_patch(&live, &json!({"a": null, "b": {"c": null}})), json!({"b": {}}));
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_words_of_the_converter() {
        let wrong = |found: &str, wanted: &str| decode::Error::WrongType {
            found: found.into(),
            field: "DeploymentSpec.spec.replicas".into(),
            wanted: wanted.into(),
        };
        let patch = json!({"spec": {"replicas": "x", "list": [1, {"b": null, "a": true}]}});
        let refusal = misfit(STRATEGIC, &patch, &json!({}), &wrong("string", "int32"));
        assert_eq!(
            refusal.message,
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[list:[1 map[a:true b:<nil>]] replicas:x]]\": unrecognized \
             type: int32"
        );
        assert_eq!(converter_error(&wrong("number", "string")), "cannot convert int64 to string");
        assert_eq!(converter_error(&wrong("string", "v1.PodSpec")), "cannot restore struct from: string");
        let merged =
            misfit("application/merge-patch+json", &patch, &json!({"a": 1}), &wrong("string", "int32"));
        assert!(
            merged.message.contains(r#"Invalid value: "{\"a\":1}": json: cannot unmarshal string"#),
            "{}",
            merged.message
        );
    }
}
