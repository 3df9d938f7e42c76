//! Values as YAML text that every reader of YAML 1.1 and 1.2 reads back the same.

use serde_json::Value;

use super::scalar::is_ambiguous;

/// Writes a value in block style: order kept, two spaces of indentation, lists not indented, texts of
/// several lines as literal blocks, and quotes wherever a reader could mistake a text for something else.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => write_list(items, 0, &mut out),
        scalar => {
            write_scalar(scalar, 2, &mut out);
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes several documents, `---` between them.
pub fn write_documents<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().map(write).collect::<Vec<_>>().join("---\n")
}

/// A text as the value of a field or of an item of a list; several lines become a block with this indentation.
pub(crate) fn write_text_at(text: &str, indent: usize) -> String {
    let mut out = String::new();
    write_text(text, Some(indent), &mut out);
    if out.starts_with('|') && out.ends_with('\n') {
        out.pop();
    }
    out
}

fn write_map(value: &Value, indent: usize, out: &mut String) {
    let Some(map) = value.as_object() else { return };
    for (i, (key, item)) in map.iter().enumerate() {
        // The first field of a list item stands behind the dash, where the indentation already is.
        if i > 0 || out.is_empty() || out.ends_with('\n') {
            pad(indent, out);
        }
        write_text(key, None, out);
        out.push(':');
        write_after_key(item, indent, out);
    }
}

fn write_after_key(item: &Value, indent: usize, out: &mut String) {
    match item {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(item, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_list(items, indent, out);
        }
        scalar => {
            out.push(' ');
            write_scalar(scalar, indent + 2, out);
            end_line(out);
        }
    }
}

fn write_list(items: &[Value], indent: usize, out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 || out.is_empty() || out.ends_with('\n') {
            pad(indent, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(item, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => write_list(inner, indent + 2, out),
            scalar => {
                write_scalar(scalar, indent + 2, out);
                end_line(out);
            }
        }
    }
}

fn write_scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) => write_text(text, Some(indent), out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        // YAML 1.1 needs a point or a sign in the exponent to see a float in 1e21.
        Value::Number(number) if number.is_f64() => {
            let text = number.to_string();
            match text.split_once('e') {
                Some((mantissa, exponent)) => {
                    let point = if mantissa.contains('.') { "" } else { ".0" };
                    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
                    out.push_str(&format!("{mantissa}{point}e{sign}{exponent}"));
                }
                None => out.push_str(&text),
            }
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Writes a text; a block is possible where `block` gives its indentation.
fn write_text(text: &str, block: Option<usize>, out: &mut String) {
    if let Some(indent) = block
        && fits_a_block(text)
    {
        write_block(text, indent, out);
    } else if text.chars().any(needs_escape) {
        out.push('"');
        for c in text.chars() {
            push_escaped(c, out);
        }
        out.push('"');
    } else if is_ambiguous(text) {
        out.push_str(&format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    } else if needs_quotes(text) {
        out.push_str(&format!("'{}'", text.replace('\'', "''")));
    } else {
        out.push_str(text);
    }
}

/// Whether a text is written without quotes and in one line.
pub(crate) fn is_written_plain(text: &str) -> bool {
    !fits_a_block(text) && !text.chars().any(needs_escape) && !is_ambiguous(text) && !needs_quotes(text)
}

/// Several lines, none of which a literal block would change.
fn fits_a_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n') | (text.len() > 1 && text.ends_with('\n'))
        && !text.starts_with([' ', '\n', '\t'])
        && !text.chars().any(|c| c != '\n' && c != '\t' && needs_escape(c))
        // A first line of nothing but white space would hide the indentation.
        && text.lines().next().is_some_and(|line| !line.trim().is_empty())
        && !text.trim_end_matches('\n').ends_with([' ', '\t'])
}

fn write_block(text: &str, indent: usize, out: &mut String) {
    let content = text.trim_end_matches('\n');
    let newlines = text.len() - content.len();
    out.push_str(match newlines {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in content.split('\n') {
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
        out.push('\n');
    }
    for _ in 1..newlines {
        out.push('\n');
    }
}

/// Characters that plain and single-quoted texts cannot hold.
fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if needs_escape(c) && (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if needs_escape(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push(c),
    }
}

fn needs_quotes(text: &str) -> bool {
    let first_is_indicator = text.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ',
    ]);
    // A dash that begins a word is fine in every reader; a dash alone or before a space is not.
    let harmless_dash = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '-'))
        && !text.starts_with("---");
    (first_is_indicator && !harmless_dash)
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.starts_with("...")
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn end_line(out: &mut String) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, read_documents, read_documents_as};
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_look_as_kubectl_writes_them() {
        let value = json!({
            "kind": "ConfigMap",
            "metadata": {"name": "a", "labels": {}, "finalizers": []},
            "data": {"conf": "a: 1\nb: 2\n", "tail": "x\n\n", "none": "x\ny", "on": "yes", "n": "0644"},
            "list": [{"a": 1, "b": [1, [2, {"c": null}]]}, [], "-x", "- x", "a: b", "it's"],
        });
        let text = "kind: ConfigMap\nmetadata:\n  name: a\n  labels: {}\n  finalizers: []\ndata:\n  conf: |\n    a: 1\n    b: 2\n  tail: |+\n    x\n\n  none: |-\n    x\n    y\n  \"on\": \"yes\"\n  \"n\": \"0644\"\nlist:\n- a: 1\n  b:\n  - 1\n  - - 2\n    - c: null\n- []\n- -x\n- '- x'\n- 'a: b'\n- it's\n";
        assert_eq!(write(&value), text);
        assert_eq!(read_documents(text, "t").unwrap()[0].value, value);
    }

    #[test]
    fn every_text_reads_back_the_same() {
        let texts = [
            "",
            " ",
            "a ",
            " a",
            "\n",
            "\n\n",
            "a\n",
            "a\nb",
            "a\n\nb\n",
            " a\nb\n",
            "\ta\n",
            "a\n b\n",
            "a \nb",
            "a\nb \n",
            "a\n\t\nb",
            "yes",
            "no",
            "on",
            "y",
            "n",
            "true",
            "null",
            "~",
            "1",
            "1.0",
            "1e3",
            "0x1",
            "0b1",
            "0o7",
            "1_000",
            "12:30:45",
            "190:20:30.5",
            "2001-12-14",
            "2001-12-14T10:00:00Z",
            ".inf",
            ".nan",
            "=",
            "<<",
            "-",
            "--",
            "---",
            "...",
            "- a",
            "-a",
            "--flag=x",
            "a:",
            "a: b",
            "a #b",
            "#a",
            "a#b",
            "a:b",
            "http://x:80/",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "'",
            "\"",
            "'a'",
            "it's",
            "\"a\" b",
            "{a}",
            "[a]",
            "a, b",
            "a,b",
            "\u{7f}",
            "\u{0}",
            "\u{1b}[0m",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "é",
            "日本",
            "😀",
            "\\",
            "a\\nb",
            "a\r\nb",
            "\r",
            "a\tb",
            "?",
            "? a",
            "?a",
            ":",
            ":a",
            "1e400",
            "0777777777777777777777777",
            "+1",
            "+",
            ".",
            ".5",
            "._5",
            "5.",
            "08",
            "Yes",
            "OFF",
            "nUll",
            "line one\n  line two\n",
            "x\n\n\n",
            "# not\n# a comment\n",
            "--- a\nb\n",
            "a\n---\nb\n",
            "a\n...\nb\n",
        ];
        for text in texts {
            for value in [
                json!(text),
                json!({"k": text}),
                json!([text]),
                json!({"k": [{"a": text, "b": [text]}]}),
                json!({text: 1}),
            ] {
                let written = write(&value);
                let read =
                    read_documents(&written, "t").unwrap_or_else(|e| panic!("{text:?}: {e}\n{written}"));
                assert_eq!(read[0].value, value, "{text:?}\n{written}");
                assert_eq!(
                    read_documents_as(&written, "t", Dialect::Settings).unwrap()[0].value,
                    value,
                    "{text:?}\n{written}"
                );
            }
        }
    }

    #[test]
    fn numbers_read_back_the_same() {
        for value in [
            json!(1e21),
            json!(1.5),
            json!(1e-7),
            json!(-3),
            json!(u64::MAX),
            json!(1.2345e300),
            json!(7.777777777777778e23),
        ] {
            let written = write(&value);
            assert_eq!(read_documents(&written, "t").unwrap()[0].value, value, "{written}");
        }
    }

    #[test]
    fn documents_are_parted() {
        assert_eq!(write_documents([&json!({"a": 1}), &json!({"b": 2})]), "a: 1\n---\nb: 2\n");
    }
}
