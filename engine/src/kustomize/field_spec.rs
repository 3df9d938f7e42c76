//! Field specs: which field of which kind a transformer touches.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::object::GroupVersionKind;

use super::identity::KindFilter;

/// How many names a path may have: more than an object can nest.
const MAX_STEPS: usize = 256;

/// The path of a field spec: names parted by `/` (`\/` is a slash in a name); a name with `[]` must be a list.
///
/// It is taken apart once, for all objects.
#[derive(Clone)]
pub(super) struct SpecPath {
    text: Arc<str>,
    steps: Arc<[PathStep]>,
}

#[derive(Debug)]
struct PathStep {
    name: String,
    is_list: bool,
}

impl SpecPath {
    /// Takes a path apart.
    ///
    /// Fails where no object could have the field, since the parts are kept for every spec.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.split('/').nth(MAX_STEPS).is_some() {
            return Err(format!("a path has at most {MAX_STEPS} names, this one has more; shorten it"));
        }
        Ok(Self::new(text))
    }

    /// Takes apart a path that the program itself names.
    pub fn new(text: &str) -> Self {
        let step = |part: String| match part.strip_suffix("[]") {
            Some(name) => PathStep { name: name.to_owned(), is_list: true },
            None => PathStep { name: part, is_list: false },
        };
        Self { text: Arc::from(text), steps: split_path(text, '/').into_iter().map(step).collect() }
    }
}

impl Deref for SpecPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl PartialEq<str> for SpecPath {
    fn eq(&self, other: &str) -> bool {
        *self.text == *other
    }
}

impl PartialEq for SpecPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpecPath {}

impl fmt::Display for SpecPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpecPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A field of some kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldSpec {
    pub kinds: KindFilter,
    pub path: SpecPath,
    /// Make the field where it is missing.
    pub create: bool,
}

/// What to make where a field is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Create {
    /// Nothing is made, whatever the field spec says.
    Nothing,
    /// A scalar.
    Scalar,
    /// A mapping.
    Map,
}

impl FieldSpec {
    /// A field of every kind, made where it is missing.
    pub fn everywhere(path: &str) -> Self {
        Self { kinds: KindFilter::default(), path: SpecPath::new(path), create: true }
    }

    /// Whether another spec names the same field of the same kinds.
    fn covers(&self, other: &Self) -> bool {
        let covers = |own: &str, other: &str| other.is_empty() || other == own;
        covers(&self.kinds.kind, &other.kinds.kind)
            && covers(&self.kinds.group, &other.kinds.group)
            && covers(&self.kinds.version, &other.kinds.version)
            && self.path == other.path
    }

    /// As [`apply`](Self::apply), whatever the object's kind is, and making nothing.
    pub fn visit(
        &self,
        object: &mut Value,
        change: &mut dyn FnMut(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        walk(object, &self.path.steps, Create::Nothing, change)
            .map_err(|problem| format!("at {}: {problem}", self.path))
    }

    /// Calls `change` on every place of an object that the spec names.
    ///
    /// Lists on the way are entered item by item. A scalar on the way is an error, as in kustomize.
    pub fn apply(
        &self,
        object: &mut Value,
        gvk: &GroupVersionKind,
        create: Create,
        change: &mut dyn FnMut(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.kinds.selects(gvk) {
            return Ok(());
        }
        let create = if self.create { create } else { Create::Nothing };
        walk(object, &self.path.steps, create, change)
            .map_err(|problem| format!("at {}: {problem}", self.path))
    }
}

fn walk(
    value: &mut Value,
    path: &[PathStep],
    create: Create,
    change: &mut dyn FnMut(&mut Value) -> Result<(), String>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return change(value) };
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter_mut().try_for_each(|item| walk(item, path, create, change)),
        Value::Object(map) => {
            let PathStep { name, is_list } = first;
            let creates = create != Create::Nothing && !is_list;
            let made = || {
                if rest.is_empty() && create == Create::Scalar {
                    Value::Null
                } else {
                    Value::Object(Map::new())
                }
            };
            let field = match map.get_mut(name) {
                Some(field) => field,
                None if creates => map.entry(name.as_str()).or_insert_with(made),
                None => return Ok(()),
            };
            if field.is_null() && creates {
                *field = made();
            } else if field.is_null() && *is_list {
                *field = Value::Array(Vec::new());
            }
            walk(field, rest, create, change)
        }
        _ => Err("a mapping or a list was expected on the way, this object has a scalar; correct the object"
            .to_owned()),
    }
}

/// Splits a path; a delimiter behind a backslash is part of a name.
pub(super) fn split_path(path: &str, delimiter: char) -> Vec<String> {
    let path = path.strip_prefix(delimiter).filter(|_| path.len() > 1).unwrap_or(path);
    let mut parts: Vec<String> = Vec::new();
    let mut joins = false;
    for part in path.split(delimiter) {
        let (text, escaped) = part.strip_suffix('\\').map_or((part, false), |text| (text, true));
        match parts.last_mut() {
            Some(last) if joins => {
                last.push(delimiter);
                last.push_str(text);
            }
            _ => parts.push(text.to_owned()),
        }
        joins = escaped;
    }
    parts
}

/// Adds specs to a list; one that is there already is not added again.
///
/// Fails with the path where two specs differ only in `create`.
pub(super) fn merge_specs(into: &mut Vec<FieldSpec>, more: &[FieldSpec]) -> Result<(), String> {
    for spec in more {
        match into.iter().find(|known| known.covers(spec)) {
            Some(known) if known.create != spec.create => {
                return Err(format!(
                    "the field spec {} is given with create and without; keep one",
                    spec.path
                ));
            }
            Some(_) => {}
            None => into.push(spec.clone()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_split_at_slashes_that_are_not_escaped() {
        assert_eq!(split_path("metadata/annotations/a.b\\/c", '/'), ["metadata", "annotations", "a.b/c"]);
        assert_eq!(split_path("/spec/replicas", '/'), ["spec", "replicas"]);
        assert_eq!(split_path("a", '/'), ["a"]);
    }

    #[test]
    fn fields_are_made_only_where_asked() {
        let gvk = GroupVersionKind::from_api_version("apps/v1", "Deployment");
        let mut object = json!({"spec": {"list": [{"a": 1}, {"a": null}]}});
        let mut set = |value: &mut Value| {
            *value = json!("x");
            Ok(())
        };
        let spec = |path: &str, create| FieldSpec {
            kinds: KindFilter::default(),
            path: SpecPath::new(path),
            create,
        };
        spec("spec/list/a", false).apply(&mut object, &gvk, Create::Nothing, &mut set).unwrap();
        spec("spec/none", false).apply(&mut object, &gvk, Create::Scalar, &mut set).unwrap();
        spec("spec/made/deep", true).apply(&mut object, &gvk, Create::Scalar, &mut set).unwrap();
        assert_eq!(object, json!({"spec": {"list": [{"a": "x"}, {"a": "x"}], "made": {"deep": "x"}}}));
        assert!(spec("spec/made/deep/er", true).apply(&mut object, &gvk, Create::Scalar, &mut set).is_err());
    }
}
