//! Comparison of recorded answers with given ones.
//!
//! `<uid-N>`, `<rv-N>` and `<name-N>` are identifiers that must be equal where their symbols are; `<time>`, `<age>` and the
//! like stand for any value of their form.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// Symbols that stand for any text.
const ANY: [&str; 5] = ["<time>", "<age>", "<clusterIP>", "<continue>", "<token>"];

/// Lists whose order is not compared.
const FREE_ORDER: [&str; 4] = [".managedFields", ".causes", ".resourceRules", ".nonResourceRules"];

/// Symbol for any number of a port that the server allocated.
pub const ANY_PORT: &str = "<nodePort>";

/// Symbols of the recording and the values that stand for them here.
#[derive(Debug, Default)]
pub struct Symbols {
    values: HashMap<String, String>,
    next: Option<String>,
}

impl Symbols {
    /// A text with the values of the symbols that are known.
    pub fn fill(&self, text: &str) -> String {
        let mut out = text.to_owned();
        if !text.contains('<') {
            return out;
        }
        for (symbol, value) in &self.values {
            out = out.replace(symbol, value);
        }
        if let Some(token) = &self.next {
            out = out.replace("<continue>", token);
        }
        out
    }

    /// Compares a recorded value with a given one and says what differs; symbols that are met first are bound.
    pub fn equal(&mut self, expected: &Value, given: &Value, path: &str, differences: &mut Vec<String>) {
        match (expected, given) {
            (Value::String(e), Value::Number(_)) if e == ANY_PORT => {}
            (Value::String(e), Value::String(g)) => {
                if !self.text(e, g) {
                    differences.push(format!("{path}: expected {e:?}, got {g:?}"));
                }
            }
            (Value::Array(e), Value::Array(g)) => self.lists(e, g, path, differences),
            (Value::Object(e), Value::Object(g)) => self.objects(e, g, path, differences),
            (e, g) if e == g => {}
            (e, g) => differences.push(format!("{path}: expected {e}, got {g}")),
        }
    }

    fn lists(&mut self, expected: &[Value], given: &[Value], path: &str, differences: &mut Vec<String>) {
        let (mut e, mut g) = (expected.to_vec(), given.to_vec());
        if FREE_ORDER.iter().any(|list| path.ends_with(list)) {
            e.sort_by_key(order);
            g.sort_by_key(order);
        }
        if e.len() != g.len() {
            let (e, g) = (Value::Array(e), Value::Array(g));
            differences.push(format!("{path}: expected {e}, got {g}"));
            return;
        }
        for (i, (e, g)) in e.iter().zip(&g).enumerate() {
            self.equal(e, g, &format!("{path}[{i}]"), differences);
        }
    }

    fn objects(
        &mut self,
        e: &Map<String, Value>,
        g: &Map<String, Value>,
        path: &str,
        differences: &mut Vec<String>,
    ) {
        // Binds `metadata` first, so that identifiers in messages are known.
        let mut keys: Vec<&String> = e.keys().chain(g.keys().filter(|k| !e.contains_key(*k))).collect();
        keys.sort_by_key(|k| (k.as_str() != "metadata", k.as_str()));
        let has_causes = e.get("details").is_some_and(|d| d["causes"].is_array());
        let kind = e.get("kind").and_then(Value::as_str).unwrap_or_default();
        let is_list = kind.ends_with("List") || kind == "Table";
        for key in keys {
            let below = format!("{path}.{key}");
            let text_of_column = key == "description" && path.contains("columnDefinitions[");
            if key == "storageVersionHash" || (key == "message" && has_causes) || text_of_column {
                continue;
            }
            if key == "metadata" && is_list {
                if let Some(Value::String(token)) = g.get(key).unwrap_or(&Value::Null).get("continue") {
                    self.next = Some(token.clone());
                }
                let (e, g) = (without_version(e.get(key)), without_version(g.get(key)));
                self.equal(&e, &g, &below, differences);
                continue;
            }
            match (e.get(key), g.get(key)) {
                (Some(e), Some(g)) => self.equal(e, g, &below, differences),
                (Some(e), None) => differences.push(format!("{below}: expected {e}, got nothing")),
                (None, Some(g)) => differences.push(format!("{below}: expected nothing, got {g}")),
                (None, None) => {}
            }
        }
    }

    fn text(&mut self, expected: &str, given: &str) -> bool {
        let (expected, given) = (&without_source(expected)[..], &without_source(given)[..]);
        if expected == given {
            return true;
        }
        if ANY.contains(&expected) {
            return !given.is_empty();
        }
        if is_identifier(expected) {
            return match self.values.get(expected) {
                Some(known) => known == given,
                None => {
                    let fresh = !self.values.values().any(|v| v == given);
                    self.values.insert(expected.to_owned(), given.to_owned());
                    fresh
                }
            };
        }
        // Symbols inside a longer text: known ones are filled in, unknown ones match anything.
        let filled = self.fill(expected);
        filled == given || matches_with_gaps(&filled, given) || is_same_list(&filled, given)
    }
}

/// Whether two messages end in a list of the same reasons: what a server gathers from maps comes in another order each time.
fn is_same_list(expected: &str, given: &str) -> bool {
    fn parts(text: &str) -> Option<(&str, Vec<&str>)> {
        let (before, list) = text.strip_suffix(']')?.split_once('[')?;
        let mut list: Vec<&str> = list.split(", ").collect();
        list.sort_unstable();
        Some((before, list))
    }
    parts(expected).is_some_and(|expected| parts(given) == Some(expected))
}

/// A message without the place in the server's source where a scheme was made, which differs from build to build.
fn without_source(text: &str) -> Cow<'_, str> {
    const START: &str = " in scheme \"";
    let found = text.find(START).and_then(|at| {
        let from = at + START.len();
        Some((from, from + text[from..].find('"')?))
    });
    match found {
        Some((from, to)) => Cow::Owned(format!("{}{}", &text[..from], &text[to..])),
        None => Cow::Borrowed(text),
    }
}

/// Whether a text is one of the symbols that stand for an identifier.
fn is_identifier(text: &str) -> bool {
    ["<uid-", "<rv-", "<name-"].iter().any(|start| text.starts_with(start))
        && text.ends_with('>')
        && text.matches('<').count() == 1
}

/// Whether a text is a pattern's, in which every `<symbol>` matches anything.
fn matches_with_gaps(pattern: &str, given: &str) -> bool {
    let mut rest = given;
    let mut gap = false;
    let pieces = pattern.split_inclusive('>').flat_map(|piece| match piece.find('<') {
        Some(at) => vec![(&piece[..at], true)],
        None => vec![(piece, false)],
    });
    for (literal, then_gap) in pieces {
        let at = if gap { rest.find(literal) } else { rest.starts_with(literal).then_some(0) };
        let Some(at) = at else { return false };
        rest = &rest[at + literal.len()..];
        gap = then_gap;
    }
    (gap || rest.is_empty()) && pattern.contains('<')
}

fn without_version(metadata: Option<&Value>) -> Value {
    let fields = metadata.and_then(Value::as_object).into_iter().flatten();
    let kept = fields.filter(|(k, _)| *k != "resourceVersion");
    kept.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<String, Value>>().into()
}

fn order(value: &Value) -> String {
    let part = |key: &str| value[key].to_string();
    let parts =
        ["manager", "operation", "subresource", "apiVersion", "field", "message", "verbs", "resources"];
    format!("{}|{}|{}", parts.map(part).join("|"), part("nonResourceURLs"), part("apiGroups"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(symbols: &mut Symbols, expected: Value, given: Value) -> Vec<String> {
        let mut out = Vec::new();
        symbols.equal(&expected, &given, "body", &mut out);
        out
    }

    #[test]
    fn identifiers_are_equal_where_their_symbols_are() {
        let mut symbols = Symbols::default();
        let expected =
            json!({"message": "has <uid-1>.", "metadata": {"uid": "<uid-1>", "resourceVersion": "<rv-1>"}});
        let given = json!({"message": "has aa.", "metadata": {"uid": "aa", "resourceVersion": "7"}});
        assert!(differences(&mut symbols, expected, given).is_empty());
        assert_eq!(symbols.fill("/x?resourceVersion=<rv-1>"), "/x?resourceVersion=7");
        assert_eq!(differences(&mut symbols, json!("<uid-1>"), json!("bb")).len(), 1);
        assert_eq!(
            differences(&mut symbols, json!("<rv-2>"), json!("7")).len(),
            1,
            "another symbol, another value"
        );
    }

    #[test]
    fn gaps_match_anything_but_the_rest_must_be_equal() {
        assert!(matches_with_gaps("a <uid-9> b", "a 1 b"));
        assert!(!matches_with_gaps("a <uid-9> b", "a 1 c"));
        assert!(!matches_with_gaps("a <uid-9> b", "a 1 b and more"));
        assert!(!matches_with_gaps("a", "b"));
    }

    #[test]
    fn gathered_reasons_come_in_any_order() {
        assert!(is_same_list("p is forbidden: [b is 1, a is 2]", "p is forbidden: [a is 2, b is 1]"));
        assert!(!is_same_list("p is forbidden: [b is 1, a is 2]", "p is forbidden: [a is 2, b is 2]"));
        assert!(!is_same_list("p is forbidden: [a]", "q is forbidden: [a]"));
        assert!(!is_same_list("no list", "no list at all"));
    }

    #[test]
    fn places_in_the_source_are_free() {
        let mut symbols = Symbols::default();
        let (a, b) = ("no kind \"X\" in scheme \"a.go:30\"", "no kind \"X\" in scheme \"b.go:111\"");
        assert!(differences(&mut symbols, json!(a), json!(b)).is_empty());
        assert_eq!(differences(&mut symbols, json!(a), json!(b.replace('X', "Y"))).len(), 1);
    }

    #[test]
    fn orders_of_causes_and_messages_beside_them_are_free() {
        let mut symbols = Symbols::default();
        let expected = json!({"message": "x", "details": {"causes": [{"field": "a"}, {"field": "b"}]}});
        let given = json!({"message": "y", "details": {"causes": [{"field": "b"}, {"field": "a"}]}});
        assert!(differences(&mut symbols, expected, given).is_empty());
        assert_eq!(differences(&mut symbols, json!({"message": "x"}), json!({"message": "y"})).len(), 1);
        assert!(differences(&mut symbols, json!(ANY_PORT), json!(30001)).is_empty());
    }
}
