//! JSON and YAML that stands inside of a text, as configuration files do in ConfigMaps.
//!
//! A replacement's path may lead into such a text, as with kustomize from 5.8 on. JSON is written as kustomize
//! writes it, keys sorted. In YAML only the fields change: comments, quotes and layout stay.

use serde_json::Value;

use crate::object::yaml::{self, Dialect, Node, NodeKind, read_nodes};

use super::field_path::{self, Missing, Step};
use super::hash;
use super::resource::scalar_text;

/// Changes the values at a path in the JSON or YAML of a text. Says how many there were; none also where the text is
/// neither.
///
/// # Errors
/// What `change` says, and what a YAML text cannot take without losing its layout.
pub(super) fn change(
    text: &mut String,
    steps: &[Step],
    missing: Missing,
    change: &mut dyn FnMut(&mut Value) -> Result<(), String>,
) -> Result<usize, String> {
    let Ok(documents) = read_nodes(text, "", Dialect::Manifest) else { return Ok(0) };
    let [node] = documents.as_slice() else {
        return match documents.len() {
            0 => Ok(0),
            _ => Err("the text holds several YAML documents; keep the one that is meant".to_owned()),
        };
    };
    let before = node.clone().into_value();
    let mut after = before.clone();
    let count = field_path::visit(&mut after, steps, missing, change)?;
    if count > 0 {
        *text = if text.trim_start().starts_with(['{', '[']) {
            json(&after, is_laid_out(text))
        } else {
            yaml_text(text, node, &before, &after)?
        };
    }
    Ok(count)
}

/// Whether kustomize takes a JSON text for one that is meant to be read.
fn is_laid_out(text: &str) -> bool {
    text.contains('\n') && text.contains("  ")
}

/// JSON as Go writes it.
fn json(value: &Value, laid_out: bool) -> String {
    let mut out = String::new();
    if laid_out {
        write_laid_out(value, 0, &mut out)
    } else {
        out = hash::go_json(&whole(value))
    }
    out
}

/// Numbers without a fraction lose their point, as they do in Go.
fn whole(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            serde_json::from_str(&crate::object::canonical_json(value)).unwrap_or_else(|_| value.clone())
        }
        Value::Array(items) => items.iter().map(whole).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), whole(item))).collect(),
        other => other.clone(),
    }
}

fn write_laid_out(value: &Value, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (at, (key, item)) in entries.into_iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                line(depth + 1, out);
                out.push_str(&hash::go_json(&Value::from(key.as_str())));
                out.push_str(": ");
                write_laid_out(item, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                line(depth + 1, out);
                write_laid_out(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        scalar => out.push_str(&hash::go_json(&whole(scalar))),
    }
}

/// The YAML text with what changed. Where fields only change their scalars, nothing else does; everything else
/// takes a text that is laid out as it would be written.
fn yaml_text(text: &str, node: &Node, before: &Value, after: &Value) -> Result<String, String> {
    let mut edits = Vec::new();
    if find_edits(text, node, after, &mut edits).is_some() {
        edits.sort_by_key(|edit| edit.start);
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for edit in edits {
            out.push_str(&text[done..edit.start]);
            out.push_str(&edit.text);
            done = edit.end;
        }
        out.push_str(&text[done..]);
        return Ok(out.trim().to_owned());
    }
    if yaml::write(before).trim() == text.trim() {
        return Ok(yaml::write(after).trim().to_owned());
    }
    Err("the YAML in the text can take other scalars, and nothing else without losing its comments, quotes or \
         layout; write the field into it"
        .to_owned())
}

/// A range of bytes and what takes its place.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// Finds what to change; none where more than scalars would change, or where one does not stand there in one line.
fn find_edits(text: &str, node: &Node, after: &Value, edits: &mut Vec<Edit>) -> Option<()> {
    match (&node.kind, after) {
        (NodeKind::Map(entries), Value::Object(map)) if entries.len() == map.len() => {
            entries.iter().try_for_each(|(key, item)| find_edits(text, item, map.get(&key.text)?, edits))
        }
        (NodeKind::List(items), Value::Array(values)) if items.len() == values.len() => {
            items.iter().zip(values).try_for_each(|(item, value)| find_edits(text, item, value, edits))
        }
        (NodeKind::Scalar(before), after) if before == after => Some(()),
        (NodeKind::Scalar(before), after) if !after.is_array() && !after.is_object() => {
            edits.push(edit(text, node, before, after)?);
            Some(())
        }
        _ => None,
    }
}

fn edit(text: &str, node: &Node, before: &Value, after: &Value) -> Option<Edit> {
    let line = text.split_inclusive('\n').nth(node.line.checked_sub(1)?)?;
    let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
    let (inside, _) = line.char_indices().nth(node.column.checked_sub(1)?)?;
    let start = line_start + inside;
    let rest = line[inside..].trim_end();
    let new = scalar_text(after);
    let quoted = Value::from(new.as_str()).to_string();
    let (length, written) = match rest.chars().next()? {
        '"' => (quoted_length(rest, '"')?, quoted),
        '\'' if new.contains(char::is_control) => (quoted_length(rest, '\'')?, quoted),
        '\'' => (quoted_length(rest, '\'')?, format!("'{}'", new.replace('\'', "''"))),
        _ => {
            let old = node.raw.as_deref().map_or_else(|| scalar_text(before), str::to_owned);
            // What is written in several lines, or elsewhere and only named here, does not stand here.
            let follows = rest.strip_prefix(old.as_str()).filter(|_| !old.is_empty())?.trim_start();
            let ends = follows.is_empty() || follows.starts_with(['#', ',', ']', '}']);
            let safe = !after.is_string()
                || (yaml::is_written_plain(&new) && !new.contains([',', '[', ']', '{', '}']));
            (ends.then_some(old.len())?, if safe { new } else { quoted })
        }
    };
    Some(Edit { start, end: start + length, text: written })
}

/// How many bytes a quoted scalar takes, quotes included; none where it does not end in its line.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if quote == '"' && c == '\\' {
            characters.next();
        } else if c == quote {
            if quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == quote) {
                characters.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(text: &str, path: &str, value: &Value, missing: Missing) -> Result<(usize, String), String> {
        let mut changed = text.to_owned();
        let count = change(&mut changed, &field_path::steps(path), missing, &mut |field| {
            *field = value.clone();
            Ok(())
        })?;
        Ok((count, changed))
    }

    #[test]
    fn json_is_written_as_kustomize_writes_it() {
        let compact =
            r#"{"z": 1.50, "a": {"b": "old", "c": "<&>"}, "big": 12345678901234567890, "f": 1e3, "n": null}"#;
        assert_eq!(
            set(compact, "a.b", &json!("hello"), Missing::Skip),
            Ok((1, r#"{"a":{"b":"hello","c":"\u003c\u0026\u003e"},"big":12345678901234567890,"f":1000,"n":null,"z":1.5}"#.to_owned()))
        );
        let laid_out = "{\n  \"z\": [1, {}],\n  \"a\": {\n    \"b\": \"old\"\n  }\n}\n";
        assert_eq!(
            set(laid_out, "a.b", &json!("new"), Missing::Skip),
            Ok((1, "{\n  \"a\": {\n    \"b\": \"new\"\n  },\n  \"z\": [\n    1,\n    {}\n  ]\n}".to_owned()))
        );
    }

    #[test]
    fn yaml_keeps_all_but_the_changed_scalars() {
        let text = "# a comment\nserver:\n    host: \"quoted\"   # trailing\n    port: 80\nlist: [{n: a, v: x}, {n: b, v: 'it''s'}]\nlast: plain text # why\n";
        let after = |old: &str, new: &str| Ok((1, text.trim().replacen(old, new, 1)));
        for (path, value, old, new) in [
            ("server.host", json!("a\"b"), "\"quoted\"", r#""a\"b""#),
            ("server.port", json!(8080), "80", "8080"),
            ("list.[n=b].v", json!("they're"), "'it''s'", "'they''re'"),
            ("list.0.v", json!("a, b"), "v: x", "v: \"a, b\""),
            ("last", json!("true"), "plain text", "\"true\""),
            ("last", json!("two\nlines"), "plain text", r#""two\nlines""#),
        ] {
            assert_eq!(set(text, path, &value, Missing::Skip), after(old, new), "{path}");
        }
        assert_eq!(
            set(text, "list.*.v", &json!("all"), Missing::Skip).unwrap().1,
            text.trim().replace("v: x", "v: all").replace("'it''s'", "'all'")
        );
    }

    #[test]
    fn fields_are_made_only_where_the_layout_is_plain() {
        assert_eq!(
            set("a: 1\nb:\n- x", "c.d", &json!("new"), Missing::Create),
            Ok((1, "a: 1\nb:\n- x\nc:\n  d: new".to_owned()))
        );
        let kept = set("a: 1 # why", "c", &json!("new"), Missing::Create).unwrap_err();
        assert!(kept.contains("without losing its comments"), "{kept}");
        assert!(set("a: |\n  x\n  y\nb: 'c'\n", "a", &json!("new"), Missing::Skip).is_err());
        assert!(set("a: &x 1\nb: *x\n", "b", &json!(2), Missing::Skip).is_err());
    }

    #[test]
    fn what_is_no_document_has_no_fields() {
        for text in ["just text", "", "a: [", "- 1"] {
            assert_eq!(set(text, "a.b", &json!(1), Missing::Create), Ok((0, text.to_owned())), "{text}");
        }
        assert!(set("a: 1\n---\na: 2\n", "a", &json!(1), Missing::Skip).is_err());
    }
}
