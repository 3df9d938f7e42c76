//! Sets of field paths and their `FieldsV1` form.
//!
//! Rules: sigs.k8s.io/structured-merge-diff `fieldpath`. A path is a member of a set, or the way to members below it;
//! `f:` names a field, `k:` a keyed list element, `v:` an element of a set, `i:` a position, `.` the path itself.

use crate::schema::Type;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field or map key.
    Field(String),
    /// A keyed list element: its keys as JSON, sorted by name.
    Key(String),
    /// An element of a set: its value as JSON.
    Value(String),
    /// A position in a list.
    Index(usize),
}

impl Element {
    fn to_text(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(key) => format!("k:{key}"),
            Element::Value(value) => format!("v:{value}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    fn from_text(text: &str) -> Option<Element> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Element::Field(rest.into())),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Element::Key(serde_json::to_string(&keys).ok()?))
            }
            "v" => {
                let value: Value = serde_json::from_str(rest).ok()?;
                Some(Element::Value(value.to_string()))
            }
            "i" => rest.parse().ok().map(Element::Index),
            _ => None,
        }
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(key) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", parts.join(","))
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Set>,
}

/// How deep a set from a client may nest.
const DEEPEST: usize = 100;

impl Set {
    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Set::is_empty)
    }

    /// Adds one path. The empty path is nothing.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// A set of one path of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::Field((*name).into())).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether the path of one step is a member.
    pub fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// What lies below one step.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }

    /// Paths in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, set) in &other.children {
            let merged = out.children.get(element).map_or_else(|| set.clone(), |own| own.union(set));
            out.children.insert(element.clone(), merged);
        }
        out
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, set)| {
            let common = set.intersection(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        });
        Set { members, children: children.collect() }
    }

    /// Paths in this set only.
    pub fn difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, set)| {
            let rest = other.children.get(element).map_or_else(|| set.clone(), |o| set.difference(o));
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Set { members, children: children.collect() }
    }

    /// Paths in this set only, where a member of the other removes all that lies below it too.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(element, set)| {
            if other.members.contains(element) {
                return None;
            }
            let rest =
                other.children.get(element).map_or_else(|| set.clone(), |o| set.recursive_difference(o));
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Set { members, children: children.collect() }
    }

    /// Only what lies at or below the given top-level field.
    pub fn only_field(&self, name: &str) -> Set {
        let field = Element::Field(name.into());
        let members = self.members.iter().filter(|e| **e == field).cloned().collect();
        let children = self.children.get(&field).map(|set| (field, set.clone())).into_iter().collect();
        Set { members, children }
    }

    /// Adds the declared fields on the way to members: `a.b.c` owns `a` where it is a struct's field.
    pub fn with_named_fields(&self, ty: &Type) -> Set {
        let mut out = Set { members: self.members.clone(), children: BTreeMap::new() };
        for (element, set) in &self.children {
            let mut below: &Type = &Type::Any;
            match (element, ty) {
                (Element::Field(name), Type::Struct(s)) => {
                    if let Some(field) = s.fields.get(name) {
                        out.members.insert(element.clone());
                        below = &field.ty;
                    }
                }
                (Element::Field(_), Type::Map(map)) => below = &map.element,
                (_, Type::List(list)) => below = &list.element,
                _ => {}
            }
            out.children.insert(element.clone(), set.with_named_fields(below));
        }
        out
    }

    /// All paths, as `.spec.containers[name="c"].image`, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for member in &self.members {
            out.push(format!("{prefix}{member}"));
        }
        for (element, set) in &self.children {
            set.collect(&format!("{prefix}{element}"), out);
        }
    }

    /// The `fieldsV1` object.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        for member in &self.members {
            if !self.children.contains_key(member) {
                out.insert(member.to_text(), Value::Object(Map::new()));
            }
        }
        for (element, set) in &self.children {
            let mut inner = match set.to_value() {
                Value::Object(inner) => inner,
                _ => Map::new(),
            };
            if self.members.contains(element) {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            out.insert(element.to_text(), Value::Object(inner));
        }
        Value::Object(out)
    }

    /// Reads a `fieldsV1` object; `None` when it is none.
    pub fn from_value(value: &Value) -> Option<Set> {
        Set::read(value, 0)
    }

    fn read(value: &Value, depth: usize) -> Option<Set> {
        let mut out = Set::default();
        if depth > DEEPEST {
            return None;
        }
        for (key, inner) in value.as_object()? {
            if key == "." {
                continue;
            }
            let element = Element::from_text(key)?;
            let fields = inner.as_object()?;
            if fields.is_empty() || fields.contains_key(".") {
                out.members.insert(element.clone());
            }
            let below = Set::read(inner, depth + 1)?;
            if !below.is_empty() {
                out.children.insert(element, below);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_v1_round_trip_and_algebra() {
        let value = json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            "f:tags": {"v:\"a\"": {}}}});
        let set = Set::from_value(&value).unwrap();
        assert_eq!(set.to_value(), value);
        assert_eq!(
            set.paths(),
            [
                ".spec.ports",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
                ".spec.tags[=\"a\"]"
            ]
        );
        let tags = Set::from_value(&json!({"f:spec": {"f:tags": {"v:\"a\"": {}}}})).unwrap();
        assert_eq!(set.intersection(&tags), tags);
        assert_eq!(set.difference(&tags).union(&tags), set);
        assert!(set.recursive_difference(&Set::of_fields(&[&["spec"]])).is_empty());
        assert!(Set::from_value(&json!({"x": 1})).is_none());
    }
}
