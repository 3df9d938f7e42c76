//! JSON and YAML that stands inside of a text, as configuration files do in ConfigMaps.
//!
//! A replacement's path may lead into such a text, as with kustomize from 5.8 on. JSON is written as kustomize
//! writes it, keys sorted. In YAML only the fields change: comments, quotes and layout stay.

use serde_json::Value;

use crate::object::yaml::{self, Dialect, Lines, Node, NodeKind, read_nodes};

use super::field_path::{self, Missing, Step};
use super::hash;
use super::replacements;
use super::resource::scalar_text;

/// Sets the values at a path in the JSON or YAML of a text, which may become `limit` bytes long. Says how many there
/// were; none also where the text holds neither.
///
/// # Errors
/// What cannot be read, and what a YAML text cannot take without losing its layout.
pub(super) fn set(
    text: &mut String,
    steps: &[Step],
    missing: Missing,
    new: &Value,
    limit: usize,
) -> Result<usize, String> {
    let documents = read_nodes(text, "", Dialect::Manifest).map_err(|error| {
        format!("the text is neither JSON nor YAML from its line {} on; correct it", error.line)
    })?;
    let [node] = documents.as_slice() else {
        return match documents.len() {
            0 => Ok(0),
            _ => Err("the text holds several YAML documents; keep the one that is meant".to_owned()),
        };
    };
    let before = node.clone().into_value();
    let mut after = before.clone();
    let mut size = text.len();
    let count = field_path::visit(&mut after, steps, missing, &mut |field| {
        size = size.saturating_add(scalar_text(new).len());
        if size > limit {
            return Err("the replacement writes more than a render may hold; select fewer fields".to_owned());
        }
        replacements::replace(field, new, &replacements::Options::default())
    })?;
    if count > 0 {
        *text = if text.trim_start().starts_with(['{', '[']) {
            json(&after, is_laid_out(text), limit)?
        } else {
            yaml_text(text, node, &before, &after, new)?
        };
    }
    Ok(count)
}

/// Whether kustomize takes a JSON text for one that is meant to be read.
fn is_laid_out(text: &str) -> bool {
    text.contains('\n') && text.contains("  ")
}

/// JSON as Go writes it.
fn json(value: &Value, laid_out: bool, limit: usize) -> Result<String, String> {
    if !laid_out {
        return Ok(hash::go_json(&whole(value)));
    }
    let mut out = String::new();
    write_laid_out(value, 0, &mut out, limit)?;
    Ok(out)
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

fn write_laid_out(value: &Value, depth: usize, out: &mut String, limit: usize) -> Result<(), String> {
    // Indentation can make a nested text many times longer.
    if out.len() > limit {
        return Err("the JSON in the text becomes longer than a render may hold; nest it less".to_owned());
    }
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
                write_laid_out(item, depth + 1, out, limit)?;
            }
            line(depth, out);
            out.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                line(depth + 1, out);
                write_laid_out(item, depth + 1, out, limit)?;
            }
            line(depth, out);
            out.push(']');
        }
        scalar => out.push_str(&hash::go_json(&whole(scalar))),
    }
    Ok(())
}

/// The YAML text with what changed. Where fields only change their scalars, nothing else does; everything else
/// takes a text that is laid out as it would be written.
fn yaml_text(text: &str, node: &Node, before: &Value, after: &Value, new: &Value) -> Result<String, String> {
    let written = match edited(text, node, after, new) {
        Some(written) => Some(written),
        None if yaml::write(before).trim() == text.trim() => Some(yaml::write(after).trim().to_owned()),
        None => None,
    };
    // Aliases, and lines that end in a way of their own, can lead an edit to another place.
    let says_so = |text: &String| {
        let nodes = read_nodes(text, "", Dialect::Manifest);
        nodes.is_ok_and(|mut nodes| nodes.len() == 1 && nodes.remove(0).into_value() == *after)
    };
    written.filter(says_so).ok_or_else(|| {
        "the YAML in the text can take other scalars where they stand, and nothing else without losing its comments, \
         quotes or layout; write the field into it"
            .to_owned()
    })
}

/// The text with other scalars; none where that does not do.
fn edited(text: &str, node: &Node, after: &Value, new: &Value) -> Option<String> {
    let mut edits = Vec::new();
    find_edits(&Lines::new(text), node, after, new, &mut edits)?;
    edits.sort_by_key(|edit| edit.start);
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out.push_str(text.get(done..edit.start)?);
        out.push_str(&edit.text);
        done = edit.end;
    }
    out.push_str(text.get(done..)?);
    Some(unindented(&out))
}

/// The text without empty lines around it and without the indentation of all its lines.
fn unindented(text: &str) -> String {
    let text = text.trim_end().trim_start_matches(['\n', '\r']);
    let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let indent = spaces(text);
    if indent == 0 || !text.split('\n').all(|line| line.trim().is_empty() || spaces(line) >= indent) {
        return text.to_owned();
    }
    text.split('\n').map(|line| line.get(indent..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// A range of bytes and what takes its place.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// Finds what to change; none where more than scalars would change, or where one does not stand there in one line.
fn find_edits(
    lines: &Lines<'_>,
    node: &Node,
    after: &Value,
    new: &Value,
    edits: &mut Vec<Edit>,
) -> Option<()> {
    match (&node.kind, after) {
        (NodeKind::Map(entries), Value::Object(map)) if entries.len() == map.len() => entries
            .iter()
            .try_for_each(|(key, item)| find_edits(lines, item, map.get(&key.text)?, new, edits)),
        (NodeKind::List(items), Value::Array(values)) if items.len() == values.len() => {
            items.iter().zip(values).try_for_each(|(item, value)| find_edits(lines, item, value, new, edits))
        }
        (NodeKind::Scalar(before), after) if before == after => Some(()),
        (NodeKind::Scalar(before), after) if !after.is_array() && !after.is_object() => {
            edits.push(edit(lines, node, before, after, new)?);
            Some(())
        }
        _ => None,
    }
}

fn edit(lines: &Lines<'_>, node: &Node, before: &Value, after: &Value, new: &Value) -> Option<Edit> {
    let start = lines.place(node.line, node.column);
    let rest = lines.text.get(start..)?;
    let rest = rest[..rest.find('\n').unwrap_or(rest.len())].trim_end();
    let text = scalar_text(new);
    let quoted = Value::from(text.as_str()).to_string();
    let (length, written) = match rest.chars().next()? {
        '"' => (quoted_length(rest, '"')?, quoted),
        '\'' if text.contains(char::is_control) => (quoted_length(rest, '\'')?, quoted),
        '\'' => (quoted_length(rest, '\'')?, format!("'{}'", text.replace('\'', "''"))),
        _ => {
            let old = node.raw.as_deref().map_or_else(|| scalar_text(before), str::to_owned);
            // What is written in several lines, or elsewhere and only named here, does not stand here.
            let follows = rest.strip_prefix(old.as_str()).filter(|_| !old.is_empty())?.trim_start();
            let ends = follows.is_empty() || follows.starts_with(['#', ',', ']', '}']);
            // `no` may stand where `yes` stood, and `1.20` where `1.10` did.
            let like_before = !after.is_string() || !yaml::is_written_plain(&old);
            let plain = yaml::is_written_plain(&text) || (like_before && text.bytes().all(is_harmless));
            let safe = plain && !text.contains([',', '[', ']', '{', '}']);
            (ends.then_some(old.len())?, if safe { text } else { quoted })
        }
    };
    Some(Edit { start, end: start + length, text: written })
}

/// Whether a character means nothing to YAML wherever it stands in a scalar.
fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+')
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

    const LIMIT: usize = 1 << 20;

    fn set(text: &str, path: &str, value: &Value, missing: Missing) -> Result<(usize, String), String> {
        let mut changed = text.to_owned();
        let count = super::set(&mut changed, &field_path::steps(path), missing, value, LIMIT)?;
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
        let text = "# a comment\nserver:\n    host: \"quoted\"   # trailing\n    port: 80\nlist: [{n: a, v: x}, {n: b, v: 'it''s'}]\nlast: plain text # why\nversion: 1.10\nmode: 0644\n";
        let after = |old: &str, new: &str| Ok((1, text.trim().replacen(old, new, 1)));
        for (path, value, old, new) in [
            ("server.host", json!("a\"b"), "\"quoted\"", r#""a\"b""#),
            ("server.port", json!(8080), "80", "8080"),
            ("list.[n=b].v", json!("they're"), "'it''s'", "'they''re'"),
            ("list.0.v", json!("a, b"), "v: x", "v: \"a, b\""),
            ("last", json!("true"), "plain text", "\"true\""),
            ("version", json!("1.20"), "1.10", "1.20"),
            ("mode", json!("0755"), "0644", "0755"),
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
    fn a_change_that_would_reach_further_is_refused() {
        for (text, path) in [
            ("a: &x\n  c: ab\nb: *x\n", "*.c"),
            ("a: &x\n  c: 1\nb: *x\n", "b.c"),
            ("base: &x\n  c: 1\nb:\n  <<: *x\n  d: 2\n", "b.c"),
            ("- &x {c: ab}\n- *x\n", "*.c"),
            ("a: x1\rb: x1\nc: x1\nd: x1\n", "b"),
        ] {
            let refused = set(text, path, &json!("new"), Missing::Skip).unwrap_err();
            assert!(refused.contains("where they stand"), "{text:?}: {refused}");
        }
    }

    #[test]
    fn indented_texts_lose_their_indentation_as_a_whole() {
        assert_eq!(
            set("\n  a: abc\n  b:\n    c: 2\n", "a", &json!("new"), Missing::Skip),
            Ok((1, "a: new\nb:\n  c: 2".to_owned()))
        );
    }

    #[test]
    fn what_is_there_and_cannot_be_followed_is_not_made_a_second_time() {
        let text = r#"{"l":[{"n":"a","v":"b"}]}"#;
        assert_eq!(set(text, "l.[n=a].v.x", &json!("new"), Missing::Create), Ok((0, text.to_owned())));
    }

    #[test]
    fn texts_do_not_grow_without_bound() {
        let (open, close, many) = ("[".repeat(90), "]".repeat(90), "1,".repeat(20_000));
        let nested = format!("{{\"a\": \"x\",\n  \"b\": {open}{many}1{close}}}");
        let refused = set(&nested, "a", &json!("new"), Missing::Skip).unwrap_err();
        assert!(refused.contains("longer than a render may hold"), "{refused}");
    }

    #[test]
    fn what_is_no_document_has_no_fields() {
        let refused = set("a: [", "a.b", &json!(1), Missing::Create).unwrap_err();
        assert!(refused.starts_with("the text is neither JSON nor YAML from its line"), "{refused}");
        for text in ["just text", "", "- 1"] {
            assert_eq!(set(text, "a.b", &json!(1), Missing::Create), Ok((0, text.to_owned())), "{text}");
        }
        assert!(set("a: 1\n---\na: 2\n", "a", &json!(1), Missing::Skip).is_err());
    }
}
