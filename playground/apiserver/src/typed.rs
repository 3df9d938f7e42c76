//! Walks over values with their types: validation, field sets, comparison, merging, removal.
//!
//! Rules: sigs.k8s.io/structured-merge-diff `typed` (KEP-555). A leaf is owned whole; maps and structs are owned field by
//! field; keyed lists and sets element by element.

use crate::fieldset::{Element, Set};
use crate::schema::{Relation, Struct, Type};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a walker does with a value of a type.
enum View<'t> {
    Leaf,
    List(&'t Type, &'t Relation),
    Map(Fields<'t>),
}

#[derive(Clone, Copy)]
enum Fields<'t> {
    Declared(&'t Struct),
    Free(&'t Type),
}

static ANY: Type = Type::Any;

impl<'t> Fields<'t> {
    /// Type of a field, and whether it is declared. Undeclared fields of a struct are of any type.
    fn get(&self, key: &str) -> (&'t Type, bool) {
        match self {
            Fields::Declared(s) => s.fields.get(key).map_or((&ANY, false), |f| (&*f.ty, true)),
            Fields::Free(element) => (element, false),
        }
    }
}

/// Atomic lists and maps are leaves.
fn view<'t>(ty: &'t Type, value: Option<&Value>) -> View<'t> {
    match ty {
        Type::List(list) if list.relation != Relation::Atomic => View::List(&list.element, &list.relation),
        Type::Map(map) if !map.atomic => View::Map(Fields::Free(&map.element)),
        Type::Struct(s) if !s.atomic => View::Map(Fields::Declared(s)),
        Type::Any if value.is_some_and(Value::is_object) => View::Map(Fields::Free(&ANY)),
        _ => View::Leaf,
    }
}

/// The path element of a list's item, or why it has none.
pub fn item_element(item: &Value, element: &Type, relation: &Relation) -> Result<Element, String> {
    match relation {
        Relation::Atomic => Err("atomic lists have no keys".into()),
        Relation::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("associative list without keys has an element that's a list type".into()),
            value => Ok(Element::Value(value.to_string())),
        },
        Relation::Keyed(keys) => {
            let Value::Object(fields) = item else {
                let what = if item.is_null() { "a null element" } else { "non-map elements" };
                return Err(format!("associative list with keys may not have {what}"));
            };
            let default = |key: &String| {
                let owner = element.as_struct()?;
                let field = owner.fields.get(key)?;
                // Built-in types say of each required field that its default is the empty one.
                let empty = || (!owner.name.is_empty()).then(|| field.ty.zero());
                field.default.clone().or_else(empty)
            };
            let mut out = BTreeMap::new();
            for key in keys {
                if let Some(value) = fields.get(key).cloned().or_else(|| default(key)) {
                    out.insert(key.as_str(), value);
                }
            }
            // What else identifies an element is enough.
            if let (true, Some(key)) = (out.is_empty(), keys.first()) {
                return Err(format!(
                    "associative list with keys has an element that omits key field {key:?} (and doesn't have default \
                     value)"
                ));
            }
            serde_json::to_string(&out).map(Element::Key).map_err(|e| e.to_string())
        }
    }
}

/// Checks a value that is about to be applied; each error names its path.
pub fn validate(value: &Value, ty: &Type) -> Vec<String> {
    let mut errors = Vec::new();
    check(value, ty, "", &mut errors);
    errors
}

fn check(value: &Value, ty: &Type, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    match ty {
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => {
            if !value.is_string() {
                errors.push(format!(
                    "{path}: expected string, got &value.valueUnstructured{{Value:{}}}",
                    go(value)
                ));
            }
        }
        Type::Integer { .. } | Type::Number => {
            if !value.is_number() {
                errors.push(format!("{path}: expected numeric (int or float), got {}", go_type(value)));
            }
        }
        Type::Boolean => {
            if !value.is_boolean() {
                errors.push(format!("{path}: expected boolean, got &{{{}}}", go(value)));
            }
        }
        Type::Quantity | Type::IntOrString => {
            if value.is_object() || value.is_array() {
                errors.push(format!("{path}: expected scalar, got &{{{}}}", go(value)));
            }
        }
        Type::Any => {}
        Type::List(list) => {
            let Value::Array(items) = value else {
                errors.push(format!("{path}: expected list, got &{{{}}}", go(value)));
                return;
            };
            let mut seen = std::collections::BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = match &list.relation {
                    Relation::Atomic => Element::Index(index),
                    relation => match item_element(item, &list.element, relation) {
                        Ok(element) => element,
                        Err(why) => {
                            errors.push(format!("{path}: element {index}: {why}"));
                            continue;
                        }
                    },
                };
                let below = format!("{path}{element}");
                if !seen.insert(element.clone()) {
                    errors.push(format!("{path}: duplicate entries for key {element}"));
                }
                check(item, &list.element, &below, errors);
            }
        }
        Type::Map(_) | Type::Struct(_) => {
            let Value::Object(entries) = value else {
                errors.push(format!("{path}: expected map, got &{{{}}}", go(value)));
                return;
            };
            for (key, item) in entries {
                let below = format!("{path}.{key}");
                match ty {
                    Type::Struct(s) => match s.fields.get(key) {
                        Some(field) => check(item, &field.ty, &below, errors),
                        None if s.preserve_unknown => {}
                        None => errors.push(format!("{below}: field not declared in schema")),
                    },
                    Type::Map(map) => check(item, &map.element, &below, errors),
                    _ => {}
                }
            }
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn go(value: &Value) -> String {
    match value {
        Value::Object(_) => "map[]".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// The paths that an applied configuration sets.
pub fn field_set(value: &Value, ty: &Type) -> Set {
    let mut set = Set::default();
    collect(value, ty, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, ty: &Type, path: &mut Vec<Element>, set: &mut Set) {
    match view(ty, Some(value)) {
        View::Leaf => set.insert(path),
        View::List(element_type, relation) => {
            let Value::Array(items) = value else { return };
            for item in items {
                let Ok(element) = item_element(item, element_type, relation) else { continue };
                path.push(element);
                collect(item, element_type, path, set);
                set.insert(path);
                path.pop();
            }
        }
        View::Map(fields) => {
            let Value::Object(entries) = value else { return };
            for (key, item) in entries {
                let (item_type, declared) = fields.get(key);
                path.push(Element::Field(key.clone()));
                collect(item, item_type, path, set);
                let empty = item.is_null() || item.as_object().is_some_and(Map::is_empty);
                if empty || !declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
    }
}

/// What changed from one value to another.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    /// Paths only in the new value.
    pub added: Set,
    /// Paths whose leaf differs.
    pub modified: Set,
    /// Paths only in the old value.
    pub removed: Set,
}

impl Comparison {
    /// Whether the values are the same.
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Compares two values of a type.
pub fn compare(old: &Value, new: &Value, ty: &Type) -> Comparison {
    let mut out = Comparison::default();
    descend(Some(old), Some(new), ty, &mut Vec::new(), &mut out);
    out
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, path: &[Element], out: &mut Comparison) {
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (Some(old), Some(new)) if old != new => out.modified.insert(path),
        _ => {}
    }
}

fn descend(
    old: Option<&Value>,
    new: Option<&Value>,
    ty: &Type,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    // A value whose structure is not declared may change from a map to a scalar.
    if let (Type::Any, Some(before), Some(after)) = (ty, old, new)
        && before.is_object() != after.is_object()
    {
        descend(old, None, ty, path, out);
        descend(None, new, ty, path, out);
        return;
    }
    let shape = view(ty, new.or(old));
    let whole = matches!(shape, View::Leaf) || (is_empty(old) && is_empty(new));
    if whole {
        leaf(old, new, path, out);
        return;
    }
    match shape {
        View::Leaf => {}
        View::List(element_type, relation) => {
            let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let after = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            // Of duplicates the first counts.
            let index = |items: &'_ [Value]| -> BTreeMap<Element, usize> {
                let elements = items.iter().map(|item| item_element(item, element_type, relation).ok());
                elements
                    .enumerate()
                    .filter_map(|(at, element)| Some((element?, at)))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect()
            };
            let (left, right) = (index(before), index(after));
            for element in left.keys().chain(right.keys().filter(|e| !left.contains_key(*e))) {
                let old_item = left.get(element).and_then(|i| before.get(*i));
                let new_item = right.get(element).and_then(|i| after.get(*i));
                if old_item == new_item {
                    continue;
                }
                path.push(element.clone());
                descend(old_item, new_item, element_type, path, out);
                path.pop();
            }
        }
        View::Map(fields) => {
            let before = old.and_then(Value::as_object);
            let after = new.and_then(Value::as_object);
            let keys: std::collections::BTreeSet<&String> =
                before.into_iter().chain(after).flat_map(Map::keys).collect();
            for key in keys {
                path.push(Element::Field(key.clone()));
                let old_item = before.and_then(|m| m.get(key));
                let new_item = after.and_then(|m| m.get(key));
                if old_item != new_item {
                    descend(old_item, new_item, fields.get(key).0, path, out);
                }
                path.pop();
            }
        }
    }
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        _ => {}
    }
}

/// Merges an applied configuration over a live value: the configuration wins, list order follows it.
pub fn merge(live: Option<&Value>, config: Option<&Value>, ty: &Type) -> Option<Value> {
    let keep = || config.or(live).cloned();
    if let (Type::Any, Some(a), Some(b)) = (ty, live, config)
        && a.is_object() != b.is_object()
    {
        return keep();
    }
    if is_empty(live) && is_empty(config) {
        return keep();
    }
    match view(ty, config.or(live)) {
        View::Leaf => keep(),
        View::List(element, relation) => {
            let none = Vec::new();
            let lhs = live.and_then(Value::as_array).unwrap_or(&none);
            let rhs = config.and_then(Value::as_array).unwrap_or(&none);
            let out = merge_list(lhs, rhs, element, relation);
            (!out.is_empty()).then_some(Value::Array(out))
        }
        View::Map(fields) => {
            let lhs = live.and_then(Value::as_object);
            let rhs = config.and_then(Value::as_object);
            let mut out = Map::new();
            for (key, value) in lhs.into_iter().flatten() {
                let other = rhs.and_then(|m| m.get(key));
                if let Some(merged) = merge(Some(value), other, fields.get(key).0) {
                    out.insert(key.clone(), merged);
                }
            }
            for (key, value) in rhs.into_iter().flatten() {
                if !lhs.is_some_and(|m| m.contains_key(key))
                    && let Some(merged) = merge(None, Some(value), fields.get(key).0)
                {
                    out.insert(key.clone(), merged);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
    }
}

/// Order: shared elements as the configuration has them, elements of one side keep their neighbours.
fn merge_list(lhs: &[Value], rhs: &[Value], element: &Type, relation: &Relation) -> Vec<Value> {
    let keys = |items: &[Value]| -> Vec<(Element, Value)> {
        items.iter().filter_map(|i| Some((item_element(i, element, relation).ok()?, i.clone()))).collect()
    };
    let (left, right) = (keys(lhs), keys(rhs));
    let in_left: BTreeMap<&Element, &Value> = left.iter().rev().map(|(e, v)| (e, v)).collect();
    let in_right: BTreeMap<&Element, &Value> = right.iter().rev().map(|(e, v)| (e, v)).collect();
    let mut shared = right.iter().map(|(e, _)| e).filter(|e| in_left.contains_key(*e));
    let mut next = shared.next();
    let mut merged = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some((a, _)), Some((b, value))) = (left.get(l), right.get(r)) {
            if a == b {
                merged.insert(b);
                out.extend(merge(in_left.get(a).copied(), Some(value), element));
                l += 1;
                r += 1;
                next = shared.next();
                continue;
            }
            if in_right.contains_key(a) && next.is_some_and(|n| n != a) {
                l += 1;
                continue;
            }
        }
        if let Some((a, value)) = left.get(l) {
            if !in_right.contains_key(a) {
                out.extend(merge(Some(value), None, element));
                l += 1;
                continue;
            } else if merged.contains(a) {
                l += 1;
            }
        }
        if let Some((b, value)) = right.get(r) {
            merged.insert(b);
            out.extend(merge(in_left.get(b).copied(), Some(value), element));
            r += 1;
            if next == Some(b) {
                next = shared.next();
            }
        }
    }
    out
}

/// The value without the paths of a set. What becomes empty becomes null.
pub fn remove(value: &Value, set: &Set, ty: &Type) -> Value {
    match (view(ty, Some(value)), value) {
        (View::List(element_type, relation), Value::Array(items)) => {
            let mut out = Vec::new();
            for item in items {
                match item_element(item, element_type, relation) {
                    Ok(element) if set.has(&element) => {}
                    Ok(element) => out.push(match set.below(&element).filter(|s| !s.is_empty()) {
                        Some(below) => remove(item, below, element_type),
                        None => item.clone(),
                    }),
                    Err(_) => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (View::Map(fields), Value::Object(entries)) => {
            let mut out = Map::new();
            for (key, item) in entries {
                let element = Element::Field(key.clone());
                if set.has(&element) {
                    continue;
                }
                let kept = match set.below(&element).filter(|s| !s.is_empty()) {
                    Some(below) => remove(item, below, fields.get(key).0),
                    None => item.clone(),
                };
                out.insert(key.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;
    use serde_json::json;

    fn pod_spec() -> &'static Type {
        TABLE.get("core.v1.PodSpec").unwrap()
    }

    #[test]
    fn a_list_is_merged_by_key_in_the_order_of_the_configuration() {
        let live = json!({"containers": [{"name": "a", "image": "1"}, {"name": "x"}, {"name": "b"}]});
        let config = json!({"containers": [{"name": "b"}, {"name": "a", "image": "2"}]});
        let merged = merge(Some(&live), Some(&config), pod_spec()).unwrap();
        let names: Vec<&str> =
            merged["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["x", "b", "a"]);
        assert_eq!(merged["containers"][2]["image"], "2");
    }

    #[test]
    fn validation_names_the_path() {
        let config =
            json!({"containers": [{"name": "c", "imagee": "x", "env": [{"name": "A"}, {"name": "A"}]}]});
        assert_eq!(
            validate(&config, pod_spec()),
            [
                ".containers[name=\"c\"].imagee: field not declared in schema",
                ".containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]"
            ]
        );
    }

    #[test]
    fn an_added_map_is_owned_with_its_keys() {
        let old = json!({"metadata": {}});
        let new = json!({"metadata": {}, "data": {"a": "1"}});
        let compared = compare(&old, &new, TABLE.get("core.v1.ConfigMap").unwrap());
        assert_eq!(compared.added.to_value(), json!({"f:data": {".": {}, "f:a": {}}}));
    }
}
