//! Request bodies: JSON and YAML, with the complaints of a real server's decoders.

use crate::decode::{self, Parsed};
use crate::status::Refusal;
use serde::Deserialize;
use serde_json::Value;

/// Largest body that is read, in bytes (a real server's limit).
pub const LIMIT: usize = 3 * 1024 * 1024;

/// Parses a JSON body; the error is the text that Go's decoder gives.
pub fn json(bytes: &[u8]) -> Result<Parsed, String> {
    decode::parse_json(bytes).map_err(|error| {
        go_syntax_error(bytes).unwrap_or_else(|| {
            let text = error.to_string();
            if text.contains("recursion") { "exceeded max depth".into() } else { text }
        })
    })
}

/// Parses a YAML body, of which JSON is a part.
pub fn yaml(bytes: &[u8]) -> Result<Parsed, Refusal> {
    if bytes.first().is_some_and(|b| *b == b'{')
        && let Ok(parsed) = decode::parse_json(bytes)
    {
        return Ok(parsed);
    }
    let refuse = |why: String| {
        Refusal::bad_request(format!("error decoding YAML: error converting YAML to JSON: yaml: {why}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("control characters are not allowed".into()))?;
    // Of several documents the first one counts.
    let first = serde_yaml::Deserializer::from_str(text).next();
    let parsed = first.map_or(Ok(serde_yaml::Value::Null), serde_yaml::Value::deserialize);
    let value: serde_yaml::Value = parsed.map_err(|error| {
        let line = error.location().map_or(1, |l| l.line()).min(text.lines().count());
        let text = error.to_string();
        let why = if text.contains("did not find expected") {
            text.split(" at line").next().unwrap_or(&text).to_owned()
        } else {
            "did not find expected node content".into()
        };
        let why = why
            .trim_start_matches("while parsing a flow node: ")
            .trim_start_matches("while parsing a node, ");
        let why = why.split_once(": ").map_or(why, |(_, rest)| rest);
        refuse(format!("line {line}: {why}"))
    })?;
    let value = from_yaml(value, 0).ok_or_else(|| refuse("unsupported value".into()))?;
    Ok(Parsed { value, duplicates: Vec::new() })
}

/// The same value with the keys of objects in order, as Go writes them.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            let pairs = keys.into_iter().map(|k| (k.clone(), sorted(&fields[k])));
            pairs.collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn from_yaml(value: serde_yaml::Value, depth: usize) -> Option<Value> {
    use serde_yaml::Value as Yaml;
    if depth > 120 {
        return None;
    }
    Some(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => b.into(),
        Yaml::String(s) => s.into(),
        Yaml::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => i.into(),
            (_, Some(u), _) => u.into(),
            (_, _, f) => serde_json::Number::from_f64(f?).map(Value::Number)?,
        },
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(|i| from_yaml(i, depth + 1)).collect::<Option<_>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut out = serde_json::Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(s) => s,
                    Yaml::Number(n) => n.to_string(),
                    Yaml::Bool(b) => b.to_string(),
                    _ => return None,
                };
                out.insert(key, from_yaml(value, depth + 1)?);
            }
            Value::Object(out)
        }
        Yaml::Tagged(tagged) => from_yaml(tagged.value, depth + 1)?,
    })
}

/// The first syntax error of a JSON text in the words of Go's scanner; `None` where Go and we disagree.
pub fn go_syntax_error(bytes: &[u8]) -> Option<String> {
    let at = bytes.iter().position(|b| !b.is_ascii_whitespace());
    let Some(at) = at else { return Some("unexpected end of JSON input".into()) };
    let quote = |b: u8| match b {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        0x20..=0x7e => format!("'{}'", b as char),
        _ => format!("'\\u{b:04x}'"),
    };
    let rest = &bytes[at..];
    for literal in ["null", "true", "false"] {
        let literal = literal.as_bytes();
        if rest[0] != literal[0] {
            continue;
        }
        for (expected, found) in literal.iter().zip(rest.iter().map(Some).chain(std::iter::repeat(None))) {
            match found {
                None => return Some("unexpected end of JSON input".into()),
                Some(found) if found != expected => {
                    let word = String::from_utf8_lossy(literal).into_owned();
                    let (found, expected) = (quote(*found), quote(*expected));
                    return Some(format!(
                        "invalid character {found} in literal {word} (expecting {expected})"
                    ));
                }
                Some(_) => {}
            }
        }
        return None;
    }
    if !matches!(rest[0], b'{' | b'[' | b'"' | b'-' | b'0'..=b'9') {
        return Some(format!("invalid character {} looking for beginning of value", quote(rest[0])));
    }
    None
}

/// The body as hexadecimal, as an unreadable one is quoted.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(100).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_the_words_of_go() {
        assert_eq!(json(b"not json").unwrap_err(), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(
            go_syntax_error(&[0x81]).unwrap(),
            "invalid character '\\u0081' looking for beginning of value"
        );
        assert_eq!(
            yaml(b"{not yaml: [").unwrap_err().message,
            "error decoding YAML: error converting YAML to JSON: yaml: line 1: did not find expected node content"
        );
        assert_eq!(yaml(b"a: 1\nb: [x]").unwrap().value, serde_json::json!({"a": 1, "b": ["x"]}));
    }
}
