//! The part of JSONPath that printer columns use: fields, quoted fields, indices, `[*]`, and filters on equality.

use serde_json::Value;

/// All values at a path such as `.status.conditions[?(@.type=="Ready")].status`.
pub fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut found = vec![object];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner) else { return Vec::new() };
            let (step, after) = inner.split_at(end);
            found = found.into_iter().flat_map(|v| bracket(v, step)).collect();
            rest = &after[1..];
        } else {
            let name = rest.trim_start_matches('.');
            if name.len() == rest.len() && rest.len() != path.len() {
                return Vec::new();
            }
            let (field, after) = field(name);
            found = found.into_iter().filter_map(|v| v.get(&field)).collect();
            rest = after;
        }
    }
    found
}

/// A field name up to the next `.` or `[`; `\.` is a dot in it.
fn field(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (out, &text[at..]),
            c => out.push(c),
        }
    }
    (out, "")
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracket<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    let step = step.trim();
    if step == "*" {
        return match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        };
    }
    if let Some(filter) = step.strip_prefix("?(").and_then(|s| s.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==").unwrap_or((filter, ""));
        let path = path.trim().trim_start_matches('@');
        let wanted = wanted.trim().trim_matches(|c| c == '"' || c == '\'');
        let fits = |item: &&Value| {
            find(item, path).first().is_some_and(|v| match v {
                Value::String(s) => s == wanted,
                Value::Bool(b) => wanted.parse() == Ok(*b),
                Value::Number(n) => wanted.parse::<serde_json::Number>().is_ok_and(|w| w == *n),
                _ => false,
            })
        };
        return value.as_array().into_iter().flatten().filter(fits).collect();
    }
    if step.starts_with(['"', '\'']) {
        return value.get(step.trim_matches(|c| c == '"' || c == '\'')).into_iter().collect();
    }
    let Ok(index) = step.parse::<i64>() else { return Vec::new() };
    let Some(items) = value.as_array() else { return Vec::new() };
    let index = if index < 0 { items.len() as i64 + index } else { index };
    usize::try_from(index).ok().and_then(|i| items.get(i)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({"status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"annotations": {"a.b/c": "v"}}});
        assert_eq!(find(&object, ".status.conditions[?(@.type==\"Ready\")].status"), [&json!("True")]);
        assert_eq!(find(&object, ".status.conditions[-1:].status").len(), 0);
        assert_eq!(find(&object, ".status.conditions[0].status"), [&json!("x")]);
        assert_eq!(find(&object, ".status.conditions[*].type").len(), 2);
        assert_eq!(find(&object, r".metadata.annotations.a\.b/c"), [&json!("v")]);
        assert!(find(&object, ".x[").is_empty());
    }
}
