//! Field paths of replacements and variables: `spec.template.spec.containers.[name=app].env.0.value`.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// How many bytes a compiled expression may take.
pub(super) const MAX_EXPRESSION: usize = 1 << 20;

/// One step of a path.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Field(String),
    Index(usize),
    Last,
    Every,
    /// The items whose field fits a regular expression; an empty field means the item itself.
    Matching {
        field: String,
        pattern: String,
        /// None where the pattern is no regular expression.
        regex: Option<Regex>,
    },
}

/// Splits a path at its points; points in brackets or behind a backslash are part of a name.
pub(super) fn steps(path: &str) -> Vec<Step> {
    steps_between(path, '.')
}

/// As [`steps`], with another delimiter than a point.
pub(super) fn steps_between(path: &str, delimiter: char) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut pieces = super::field_spec::split_path(path, delimiter).into_iter();
    while let Some(mut piece) = pieces.next() {
        while piece.starts_with('[') && !piece.ends_with(']') {
            let Some(more) = pieces.next() else { break };
            piece.push(delimiter);
            piece.push_str(&more);
        }
        let inner = piece.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
        steps.push(match (inner, piece.as_str()) {
            (Some(inner), _) => match inner.split_once('=') {
                Some((field, pattern)) => {
                    let regex = RegexBuilder::new(pattern).size_limit(MAX_EXPRESSION).build().ok();
                    Step::Matching { field: field.to_owned(), pattern: pattern.to_owned(), regex }
                }
                None => Step::Field(inner.to_owned()),
            },
            (None, "*") => Step::Every,
            (None, "-") => Step::Last,
            (None, text) => text.parse().map_or_else(|_| Step::Field(text.to_owned()), Step::Index),
        });
    }
    steps
}

/// Where a step leads in a value.
enum Place<'s> {
    Field(Cow<'s, str>),
    Item(usize),
}

/// Where a step leads first; none where it leads nowhere, or to all.
fn place<'s>(value: &Value, step: &'s Step) -> Option<Place<'s>> {
    match (step, value) {
        (Step::Field(name), Value::Object(_)) => Some(Place::Field(name.into())),
        (Step::Index(index), Value::Object(_)) => Some(Place::Field(index.to_string().into())),
        (Step::Index(index), Value::Array(_)) => Some(Place::Item(*index)),
        (Step::Last, Value::Array(items)) => items.len().checked_sub(1).map(Place::Item),
        (Step::Matching { field, pattern, .. }, Value::Array(items)) => {
            let is_meant = |item| key(item, field).is_some_and(|text| text == *pattern);
            items.iter().position(is_meant).map(Place::Item)
        }
        _ => None,
    }
}

/// The first value at a path.
pub(super) fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).iter().try_fold(value, |at, step| match place(at, step)? {
        Place::Field(name) => at.get(name.as_ref()),
        Place::Item(index) => at.get(index),
    })
}

/// The text that a path leads into, and the steps that are left inside of it.
pub(super) fn text_within<'v, 's>(
    value: &'v mut Value,
    steps: &'s [Step],
) -> Option<(&'v mut String, &'s [Step])> {
    let (step, rest) = steps.split_first()?;
    match value {
        Value::String(text) => Some((text, steps)),
        value => {
            let inner = match place(value, step)? {
                Place::Field(name) => value.get_mut(name.as_ref())?,
                Place::Item(index) => value.get_mut(index)?,
            };
            text_within(inner, rest)
        }
    }
}

/// What is made where a target's field is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing: the path finds fewer places.
    Skip,
    /// The field, as null, for the caller to set.
    Create,
}

/// Calls `change` on every value at the end of the steps and says how many there were.
pub(super) fn visit(
    value: &mut Value,
    steps: &[Step],
    missing: Missing,
    change: &mut dyn FnMut(&mut Value) -> Result<(), String>,
) -> Result<usize, String> {
    let Some((step, rest)) = steps.split_first() else {
        change(value)?;
        return Ok(1);
    };
    let creates = missing == Missing::Create;
    if creates && value.is_null() {
        // What is missing is made in the shape that the next step needs.
        *value = match step {
            Step::Field(_) => Value::Object(Map::new()),
            _ => Value::Array(Vec::new()),
        };
    }
    let mut count = 0;
    match (step, value) {
        (Step::Index(index), Value::Object(map)) => {
            return match map.get_mut(&index.to_string()) {
                Some(field) => visit(field, rest, missing, change),
                None => Ok(0),
            };
        }
        (Step::Field(name), Value::Object(map)) => {
            if creates && !map.contains_key(name) {
                map.insert(name.clone(), Value::Null);
            }
            if let Some(field) = map.get_mut(name) {
                count += visit(field, rest, missing, change)?;
            }
        }
        (Step::Every, Value::Object(map)) => {
            for field in map.values_mut() {
                count += visit(field, rest, missing, change)?;
            }
        }
        (Step::Every, Value::Array(items)) => {
            for item in items {
                count += visit(item, rest, missing, change)?;
            }
        }
        (Step::Last, Value::Array(items)) => {
            if let Some(item) = items.last_mut() {
                count += visit(item, rest, missing, change)?;
            }
        }
        (Step::Index(index), Value::Array(items)) => {
            if creates && *index == items.len() {
                items.push(Value::Null);
            }
            if let Some(item) = items.get_mut(*index) {
                count += visit(item, rest, missing, change)?;
            }
        }
        (Step::Matching { field, pattern, regex }, Value::Array(items)) => {
            let regex = regex
                .as_ref()
                .ok_or_else(|| format!("{pattern:?} is not a regular expression; correct it"))?;
            let mut matched = false;
            for item in
                items.iter_mut().filter(|item| key(item, field).is_some_and(|text| regex.is_match(&text)))
            {
                matched = true;
                count += visit(item, rest, missing, change)?;
            }
            if !matched && creates {
                let mut item = if field.is_empty() {
                    Value::String(pattern.clone())
                } else {
                    Value::Object(Map::from_iter([(field.clone(), Value::String(pattern.clone()))]))
                };
                count += visit(&mut item, rest, missing, change)?;
                items.push(item);
            }
        }
        _ => {}
    }
    Ok(count)
}

/// The text that an item is selected by.
fn key(item: &Value, field: &str) -> Option<String> {
    let value = if field.is_empty() { item } else { get(item, field)? };
    (!value.is_object() && !value.is_array()).then(|| super::resource::scalar_text(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_fields_items_and_all_of_them() {
        let mut value = json!({"a": {"x.y": [{"n": "p", "v": 1}, {"n": "q", "v": 2}], "l": ["s"]}});
        assert_eq!(get(&value, "a.x\\.y.[n=q].v"), Some(&json!(2)));
        assert_eq!(get(&value, "a.[x.y].0.v"), Some(&json!(1)));
        assert_eq!(get(&value, "a.l.-"), Some(&json!("s")));
        assert_eq!(get(&value, "a.none"), None);
        let mut set = |v: &mut Value| {
            *v = json!("new");
            Ok(())
        };
        assert_eq!(visit(&mut value, &steps("a.x\\.y.*.v"), Missing::Skip, &mut set), Ok(2));
        assert_eq!(visit(&mut value, &steps("a.none.deep"), Missing::Skip, &mut set), Ok(0));
        assert_eq!(visit(&mut value, &steps("a.made.[n=z].v"), Missing::Create, &mut set), Ok(1));
        assert_eq!(
            value,
            json!({"a": {"x.y": [{"n": "p", "v": "new"}, {"n": "q", "v": "new"}], "l": ["s"], "made": [{"n": "z", "v": "new"}]}})
        );
    }
}
