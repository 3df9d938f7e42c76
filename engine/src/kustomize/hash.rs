//! The suffix that kustomize gives to the names of generated ConfigMaps and Secrets.

use serde_json::{Map, Value};

use crate::object::Digest;

use super::resource::scalar_text;
use super::resource_map::ResourceMap;

/// Adds suffixes to the names of all objects that need one.
pub(super) fn rename_by_content(resources: &mut ResourceMap) {
    for resource in resources.iter_mut().filter(|resource| resource.needs_hash) {
        let suffix = suffix(resource.value());
        resource.remember_id();
        let name = format!("{}-{suffix}", resource.name());
        resource.set_name(&name);
    }
}

/// The suffix of an object: ten characters from the SHA-256 of its content.
fn suffix(object: &Value) -> String {
    let hex = Digest::of_bytes(content(object).as_bytes()).hex();
    // Letters that could make words, and digits that look like letters, are replaced.
    hex.chars()
        .take(10)
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            c => c,
        })
        .collect()
}

/// The text that is hashed: JSON as Go writes it, with sorted keys.
fn content(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let (always, sometimes): (&[&str], &str) = match kind {
        "ConfigMap" => (&["data"], "binaryData"),
        "Secret" => (&["data", "type"], "stringData"),
        _ => return go_json(object),
    };
    let mut hashed = Map::new();
    hashed.insert("kind".to_owned(), kind.into());
    // The name is meant to be hashed too, but kustomize looks for it where it never is.
    hashed.insert("name".to_owned(), Value::String(String::new()));
    for field in always {
        let value = match object.get(*field) {
            None => Value::String(String::new()),
            Some(Value::Object(map)) => Value::Object(map.clone()),
            Some(scalar) => Value::String(scalar_text(scalar)),
        };
        hashed.insert((*field).to_owned(), value);
    }
    if let Some(map) = object.get(sometimes).filter(|v| v.is_object()) {
        hashed.insert(sometimes.to_owned(), map.clone());
    }
    go_json(&Value::Object(hashed))
}

/// JSON as Go's encoder writes it: keys sorted, `<`, `>`, `&` and two line separators escaped.
pub(super) fn go_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(text: &str, out: &mut String) {
    for c in Value::String(text.to_owned()).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The suffixes are those of `kubectl kustomize` for the same generators.
    #[test]
    fn suffixes_are_kustomizes() {
        let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "<&>\u{2028}\u{8}"}});
        assert_eq!(
            content(&config_map),
            "{\"data\":{\"a\":\"\\u003c\\u0026\\u003e\\u2028\\b\"},\"kind\":\"ConfigMap\",\"name\":\"\"}"
        );
        let empty = json!({"kind": "ConfigMap", "metadata": {"name": ""}});
        assert_eq!(content(&empty), r#"{"data":"","kind":"ConfigMap","name":""}"#);
        assert_eq!(suffix(&empty), "6ct58987ht");
        let one = json!({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}});
        assert_eq!(suffix(&one), "h29d89cmmt");
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {}});
        assert_eq!(content(&secret), r#"{"data":{},"kind":"Secret","name":"","type":"Opaque"}"#);
    }
}
