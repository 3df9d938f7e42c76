//! Selecting objects by kind, name, namespace, labels and annotations.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::field_path::MAX_EXPRESSION;
use super::resource::Resource;
use crate::object::GroupVersionKind;

/// A selector as written: every part but the two label selectors is a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub labels: String,
    pub annotations: String,
}

/// One part of a selector: a regular expression for the whole text.
#[derive(Debug, Clone)]
enum Pattern {
    /// Nothing is said: every text fits.
    Any,
    /// An expression without operators fits only itself.
    Text(String),
    Expression(Regex),
}

impl Pattern {
    fn read(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Ok(Self::Any);
        }
        if pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'/') {
            return Ok(Self::Text(pattern.to_owned()));
        }
        RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(MAX_EXPRESSION)
            .build()
            .map(Self::Expression)
            .map_err(|_| format!("{pattern:?} in the target is not a regular expression; correct it"))
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(wanted) => wanted == text,
            Self::Expression(expression) => expression.is_match(text),
        }
    }

    fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

/// A selector ready for use.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    group: Pattern,
    version: Pattern,
    kind: Pattern,
    name: Pattern,
    namespace: Pattern,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
}

impl Selector {
    /// Compiles the expressions.
    pub fn compile(&self) -> Result<Matcher, String> {
        Ok(Matcher {
            group: Pattern::read(&self.group)?,
            version: Pattern::read(&self.version)?,
            kind: Pattern::read(&self.kind)?,
            name: Pattern::read(&self.name)?,
            namespace: Pattern::read(&self.namespace)?,
            labels: parse_requirements(&self.labels)?,
            annotations: parse_requirements(&self.annotations)?,
        })
    }
}

impl Matcher {
    /// Whether an object is selected. Name and namespace may match those that it was loaded with.
    pub fn matches(&self, resource: &Resource) -> bool {
        if !self.fits_kind(resource.gvk()) {
            return false;
        }
        if !self.name.is_any() || !self.namespace.is_any() {
            let original = resource.original_id();
            let namespace_fits =
                self.namespace.fits(&original.namespace) || self.namespace.fits(&resource.id().namespace);
            if !namespace_fits || !(self.name.fits(&original.name) || self.name.fits(resource.name())) {
                return false;
            }
        }
        self.fits_metadata(resource)
    }

    /// Whether any identity that the object has or had is selected, its labels and annotations aside. The present
    /// namespace counts as it is written: an object without one is in none.
    pub fn fits_identity(&self, resource: &Resource) -> bool {
        let fits = |gvk: &GroupVersionKind, name: &str, namespace: &str| {
            self.fits_kind(gvk) && self.name.fits(name) && self.namespace.fits(namespace)
        };
        fits(resource.gvk(), resource.name(), resource.namespace())
            || resource.previous_ids().any(|id| fits(id.gvk(), &id.name, &id.namespace))
    }

    /// Whether the selector says anything of identities.
    pub fn has_identity(&self) -> bool {
        [&self.group, &self.version, &self.kind, &self.name, &self.namespace]
            .iter()
            .any(|part| !part.is_any())
    }

    /// Whether the object's labels and annotations are as the selector wants them.
    pub fn fits_metadata(&self, resource: &Resource) -> bool {
        if !self.has_metadata() {
            return true;
        }
        let metadata = &resource.value()["metadata"];
        fulfils(&metadata["labels"], &self.labels) && fulfils(&metadata["annotations"], &self.annotations)
    }

    /// Whether the selector says anything of labels or annotations.
    pub fn has_metadata(&self) -> bool {
        !self.labels.is_empty() || !self.annotations.is_empty()
    }

    fn fits_kind(&self, gvk: &GroupVersionKind) -> bool {
        self.kind.fits(&gvk.kind) && self.group.fits(&gvk.group) && self.version.fits(&gvk.version)
    }
}

/// One condition of a Kubernetes label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// Whether labels, written as a label selector, hold for a map.
#[cfg(test)]
fn selector_holds(selector: &str, labels: &Value) -> Result<bool, String> {
    Ok(fulfils(labels, &parse_requirements(selector)?))
}

fn fulfils(labels: &Value, requirements: &[Requirement]) -> bool {
    let get = |key: &str| labels.get(key).map(super::resource::scalar_text);
    requirements.iter().all(|requirement| match requirement {
        Requirement::Exists(key) => get(key).is_some(),
        Requirement::Missing(key) => get(key).is_none(),
        Requirement::In(key, values) => get(key).is_some_and(|value| values.contains(&value)),
        Requirement::NotIn(key, values) => get(key).is_none_or(|value| !values.contains(&value)),
    })
}

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
fn parse_requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let wrong = |part: &str| {
        format!("{part:?} is not a label selector; write key=value, key!=value, key in (a,b), key or !key")
    };
    let mut requirements = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        let requirement = if let Some(open) = part.find('(') {
            let values = part[open + 1..].strip_suffix(')').ok_or_else(|| wrong(part))?;
            let values = values.split(',').map(|v| v.trim().to_owned()).collect();
            match part[..open].split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
                [key, "in"] => Requirement::In((*key).to_owned(), values),
                [key, "notin"] => Requirement::NotIn((*key).to_owned(), values),
                _ => return Err(wrong(part)),
            }
        } else if let Some((key, value)) = part.split_once("!=") {
            Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()])
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Requirement::In(key.trim().to_owned(), vec![value.trim().to_owned()])
        } else if let Some(key) = part.strip_prefix('!') {
            Requirement::Missing(key.trim().to_owned())
        } else {
            Requirement::Exists(part.to_owned())
        };
        let (Requirement::Exists(key)
        | Requirement::Missing(key)
        | Requirement::In(key, _)
        | Requirement::NotIn(key, _)) = &requirement;
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!<>,".contains(c)) {
            return Err(wrong(part));
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_mean_what_kubectl_means() {
        let labels = json!({"a": "1", "b": "2", "n": 3});
        for (selector, holds) in [
            ("", true),
            ("a=1", true),
            ("a==1,b=2", true),
            ("a=2", false),
            ("n=3", true),
            ("a!=1", false),
            ("x!=1", true),
            ("a in (1, 5)", true),
            ("a notin (1)", false),
            ("x notin (1)", true),
            ("a", true),
            ("!a", false),
            ("!x", true),
        ] {
            assert_eq!(selector_holds(selector, &labels), Ok(holds), "{selector}");
        }
        for wrong in ["a in 1", "=1", "a (1)", "a in (1", "a b"] {
            assert!(selector_holds(wrong, &labels).is_err(), "{wrong}");
        }
    }
}
