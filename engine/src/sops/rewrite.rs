//! Writing decrypted values into the text that they stood encrypted in.
//!
//! What sops did not encrypt stays as it is, comments included, so that a decrypted file looks as it does
//! from `sops decrypt`, and lines keep their numbers where that is asked for.

use serde_json::Value;

use super::Style;
use super::tree::{Content, Found};
use crate::object::yaml::{self, Lines};

/// A change of a text: a range of bytes and what takes its place.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// A field `sops` of a document, by the place of its key.
pub(super) struct MetadataAt {
    pub line: usize,
    pub column: usize,
    /// The line of the field that follows it, if one does.
    pub next_line: Option<usize>,
    /// Whether it is the only field.
    pub alone: bool,
}

/// The text with its values decrypted and without sops's own part; none where the text is not laid out as
/// sops writes it.
pub(super) fn rewrite(text: &str, found: &[Found], metadata: &[MetadataAt], style: Style) -> Option<String> {
    let lines = Lines::new(text);
    let mut edits = Vec::with_capacity(found.len() + metadata.len());
    let mut found: Vec<&Found> = found.iter().collect();
    found.sort_by_key(|found| (found.line, found.column));
    for value in found {
        edits.push(edit(&lines, value, style)?);
    }
    for at in metadata {
        edits.push(removal(&lines, at, style)?);
    }
    edits.sort_by_key(|edit| edit.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        if edit.start < done {
            return None;
        }
        out.push_str(&text[done..edit.start]);
        out.push_str(&edit.text);
        done = edit.end;
    }
    out.push_str(&text[done..]);
    Some(out)
}

fn edit(lines: &Lines<'_>, found: &Found, style: Style) -> Option<Edit> {
    let start = lines.place(found.line, found.column);
    let rest = &lines.text[start..];
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    let inner = if quote.is_some() { &rest[1..] } else { rest };
    // An empty text is encrypted as itself; base64 has no bracket.
    let length = if inner.starts_with("ENC[") { inner.find(']')? + 1 } else { 0 };
    let end = start + length + 2 * usize::from(quote.is_some());
    if let Some(quote) = quote
        && !lines.text[..end].ends_with(quote)
    {
        return None;
    }
    let text = match (&found.content, quote) {
        (Content::Value(Value::String(text)), Some('"')) => go_json(text),
        (Content::Value(Value::String(text)), _) if style == Style::Lines => {
            Value::from(text.as_str()).to_string()
        }
        (Content::Value(Value::String(text)), _) => go_yaml(text, found.indent + 4),
        (Content::Value(value), _) => value.to_string(),
        (Content::Float(number), None) => go_float(*number, -4, 6, 2),
        (Content::Float(number), Some(_)) => go_float(*number, -6, 21, 1),
        (Content::Time(text), _) => text.clone(),
        (Content::Comment(text), _) => {
            // In place of the dash before it, which only sops put there.
            let dash = lines.text[..start].trim_end().strip_suffix('-')?.len();
            return Some(Edit { start: dash, end, text: format!("#{}", text.replace('\n', " ")) });
        }
    };
    Some(Edit { start, end, text })
}

/// A text as go-yaml writes it: what lies beyond the first plane of Unicode is escaped.
fn go_yaml(text: &str, indent: usize) -> String {
    if text.chars().all(|c| u32::from(c) <= 0xffff) {
        return yaml::write_text_at(text, indent);
    }
    let quoted = Value::from(text).to_string();
    let escaped = quoted.chars().map(|c| match u32::from(c) {
        code if code > 0xffff => format!("\\U{code:08X}"),
        _ => c.to_string(),
    });
    escaped.collect()
}

/// A number as Go writes it: with an exponent below the one power of ten and from the other on.
fn go_float(number: f64, low: i32, high: i32, digits: usize) -> String {
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(low..high).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:0digits$}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// A text as Go writes it into JSON.
fn go_json(text: &str) -> String {
    let mut out = Value::from(text).to_string();
    for (character, escape) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if out.contains(character) {
            out = out.replace(character, escape);
        }
    }
    out
}

/// Takes a field `sops` out; its lines stay empty where lines have to keep their numbers.
fn removal(lines: &Lines<'_>, at: &MetadataAt, style: Style) -> Option<Edit> {
    let text = lines.text;
    let key = lines.place(at.line, at.column);
    let (mut start, mut end);
    if text[key..].starts_with('"') {
        // In JSON, with the comma before it, or after it where it is the first.
        let open = key + text[key..].find('{')?;
        end = open + closing(&text[open..])?;
        start = text[..key].trim_end().len();
        if text[..start].ends_with(',') {
            start -= 1;
        } else if let Some(rest) = text[end..].trim_start().strip_prefix(',') {
            end = text.len() - rest.len();
        }
    } else {
        start = lines.start(at.line);
        end = match at.next_line {
            Some(line) => lines.start(line),
            None => {
                // Up to the end of the document.
                let rest = &text[key..];
                let ends = ["\n---", "\n..."].iter().filter_map(|mark| rest.find(mark)).min();
                ends.map_or(text.len(), |at| key + at + 1)
            }
        };
    }
    let kept = if style == Style::Lines { text[start..end].matches('\n').count() } else { 0 };
    let rest = if at.alone && style == Style::AsSops { "{}\n".to_owned() } else { "\n".repeat(kept) };
    Some(Edit { start, end, text: rest })
}

/// Where the mapping that a JSON text begins with ends.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
