//! What differs between two states of an object, for people.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where: `spec.template.spec.containers[app].image`.
    pub path: String,
    /// What it was; none if it was not there.
    pub from: Option<Value>,
    /// What it becomes; none if it goes.
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {} → {}", self.path, short(from), short(to)),
            (None, Some(to)) => write!(f, "{}: + {}", self.path, short(to)),
            (Some(from), None) => write!(f, "{}: - {}", self.path, short(from)),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// A value on one line that a person takes in.
fn short(value: &Value) -> String {
    const LENGTH: usize = 120;
    let mut text = match value {
        Value::String(text) if !text.is_empty() && !text.contains(['\n', ' ']) => text.clone(),
        other => other.to_string(),
    };
    if text.len() > LENGTH {
        text.truncate(text.floor_char_boundary(LENGTH));
        text.push('…');
    }
    text
}

/// Most differences that are listed.
const MOST: usize = 1000;
/// Deeper than this, values are compared as a whole.
const DEEPEST: usize = 64;

/// What differs between two states of an object, in the order of the new one. The content of Secrets, and
/// copies of it in annotations, is never shown: only that it differs.
pub fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let secret = [old, new].iter().any(|value| value["kind"] == "Secret");
    let mut out = Diff { secret, changes: Vec::new() };
    out.compare(&mut Vec::new(), Some(old), Some(new));
    out.changes
}

struct Diff {
    secret: bool,
    changes: Vec<Change>,
}

impl Diff {
    fn compare(&mut self, path: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>) {
        if old == new || self.changes.len() >= MOST {
            return;
        }
        // A Secret is taken apart even where it comes or goes as a whole: its parts are hidden one by one.
        if self.secret && path.len() <= 2 {
            let is_map = |value: Option<&Value>| value.is_some_and(Value::is_object);
            let empty = Value::Object(Map::new());
            match (is_map(old), is_map(new)) {
                (true, false) => return self.compare(path, old, Some(&empty)),
                (false, true) => return self.compare(path, Some(&empty), new),
                _ => {}
            }
        }
        let hidden = self.is_hidden(path);
        match (old, new) {
            (Some(Value::Object(a)), Some(Value::Object(b))) if path.len() < DEEPEST => {
                let gone = a.keys().filter(|key| !b.contains_key(*key));
                for key in b.keys().chain(gone) {
                    let segment = if path.is_empty() { key.clone() } else { segment(key) };
                    path.push(segment);
                    self.compare(path, a.get(key), b.get(key));
                    path.pop();
                }
            }
            (Some(Value::Array(a)), Some(Value::Array(b))) if path.len() < DEEPEST => self.lists(path, a, b),
            _ if hidden => self.push(path, old.map(mask), new.map(mask)),
            _ => self.push(path, old.cloned(), new.cloned()),
        }
    }

    fn lists(&mut self, path: &mut Vec<String>, a: &[Value], b: &[Value]) {
        if let (Some(names_a), Some(names_b)) = (names(a), names(b)) {
            let known: BTreeSet<&str> = names_b.iter().copied().collect();
            let gone = names_a.iter().filter(|name| !known.contains(**name));
            for name in names_b.iter().chain(gone) {
                let find = |names: &[&str], items: &[Value]| {
                    names.iter().position(|other| other == name).and_then(|i| items.get(i).cloned())
                };
                path.push(format!("[{name}]"));
                let (old, new) = (find(&names_a, a), find(&names_b, b));
                self.compare(path, old.as_ref(), new.as_ref());
                path.pop();
            }
            return;
        }
        for i in 0..a.len().max(b.len()) {
            path.push(format!("[{i}]"));
            self.compare(path, a.get(i), b.get(i));
            path.pop();
        }
    }

    fn push(&mut self, path: &[String], from: Option<Value>, to: Option<Value>) {
        self.changes.push(Change { path: path.concat(), from, to });
    }

    fn is_hidden(&self, path: &[String]) -> bool {
        let under = |first: &str| path.first().is_some_and(|segment| segment == first);
        (self.secret && (under("data") || under("stringData")))
            || path.get(2).is_some_and(|key| key.contains("kubectl.kubernetes.io/last-applied-configuration"))
    }
}

/// A key as a step of a path.
fn segment(key: &str) -> String {
    if key.contains(['.', '/', '[', ' ']) { format!("[{key}]") } else { format!(".{key}") }
}

fn mask(_: &Value) -> Value {
    Value::String("(hidden)".to_owned())
}

/// The names of a list's items, where all have one and all differ.
fn names(items: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> = items.iter().map(|item| item.get("name")?.as_str()).collect::<Option<_>>()?;
    (names.iter().collect::<BTreeSet<_>>().len() == names.len()).then_some(names)
}
