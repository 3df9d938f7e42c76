//! Leaving fields to their owners: the fields that a server-side apply conflict names are taken out of
//! what is applied.

use engine::object::Object;
use serde_json::Value;

use super::error::FieldOwner;

/// The object without these fields. None if one of them is not in it: then leaving it cannot help.
pub(crate) fn leave_fields(object: &Object, fields: &[FieldOwner]) -> Option<Object> {
    let mut value = object.value().clone();
    for owner in fields {
        if !remove(&mut value, &owner.field) {
            return None;
        }
    }
    Object::new(value).ok()
}

/// Removes the field at a path as the server prints it: `.spec.template.spec.containers[name="app"].image`,
/// `.metadata.annotations.example.com/a`. Keys may have dots in them, so each key of the object is tried.
fn remove(value: &mut Value, path: &str) -> bool {
    if let Some(rest) = path.strip_prefix('.') {
        let Some(map) = value.as_object_mut() else { return false };
        // The longest key first: `a.b` before `a`.
        let mut keys: Vec<String> = map.keys().filter(|key| begins_with(rest, key)).cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
        for key in keys {
            let after = &rest[key.len()..];
            if after.is_empty() {
                map.shift_remove(&key);
                return true;
            }
            if map.get_mut(&key).is_some_and(|inner| remove(inner, after)) {
                return true;
            }
        }
        return false;
    }
    let Some((selector, after)) = path.strip_prefix('[').and_then(split_selector) else { return false };
    let Some(items) = value.as_array_mut() else { return false };
    let Some(place) = items.iter().position(|item| selects(selector, item)) else { return false };
    if after.is_empty() {
        items.remove(place);
        return true;
    }
    items.get_mut(place).is_some_and(|item| remove(item, after))
}

fn begins_with(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Splits `name="a]b"].image` at the bracket that ends the selector.
fn split_selector(path: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in path.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return Some((&path[..i], &path[i + 1..])),
            _ => {}
        }
    }
    None
}

/// Whether a list's item is the one: `name="a",port=80` by its keys, `="a"` by its value.
fn selects(selector: &str, item: &Value) -> bool {
    if let Some(value) = selector.strip_prefix('=') {
        return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
    }
    let mut rest = selector;
    while !rest.is_empty() {
        let Some((key, value)) = rest.split_once('=') else { return false };
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<Value>();
        let Some(Ok(wanted)) = values.next() else { return false };
        if item.get(key) != Some(&wanted) {
            return false;
        }
        rest = value[values.byte_offset()..].trim_start_matches(',');
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_as_the_server_prints_them() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "annotations": {"example.com/a.b": "1", "example": "2"}, "finalizers": ["x/y", "z"]},
            "spec": {
                "replicas": 3,
                "template": {"spec": {"containers": [
                    {"name": "app", "image": "i:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                    {"name": "b]\"", "image": "j"}
                ]}}
            }
        });
        let table = [
            (".spec.replicas", "/spec/replicas"),
            (".metadata.annotations.example.com/a.b", "/metadata/annotations/example.com~1a.b"),
            (".spec.template.spec.containers[name=\"app\"].image", "/spec/template/spec/containers/0/image"),
            (
                ".spec.template.spec.containers[name=\"b]\\\"\"].image",
                "/spec/template/spec/containers/1/image",
            ),
            (
                ".spec.template.spec.containers[name=\"app\"].ports[containerPort=80,protocol=\"TCP\"]",
                "/spec/template/spec/containers/0/ports/0",
            ),
            (".metadata.finalizers[=\"z\"]", "/metadata/finalizers/1"),
        ];
        for (path, pointer) in table {
            let owner = FieldOwner { field: path.into(), manager: "kubectl".into() };
            assert!(object.pointer(pointer).is_some(), "{pointer}");
            let left = leave_fields(&Object::new(object.clone()).unwrap(), &[owner]).unwrap();
            assert!(left.value().pointer(pointer).is_none(), "{path}");
        }
        for path in
            ["", "spec", ".nothing", ".spec.replicas.x", "[", ".metadata.finalizers[=]", ".spec.template["]
        {
            let owner = FieldOwner { field: path.into(), manager: "kubectl".into() };
            assert_eq!(leave_fields(&Object::new(object.clone()).unwrap(), &[owner]), None, "{path}");
        }
    }
}
