//! Reading a settings file's fields with their places, strictly: what is not known is an error.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::yaml::{Key, Node, NodeKind};

use super::error::RenderError;
use super::resource::{Source, scalar_text};

/// How long a name or a part of one may be, in bytes.
const MAX_SHORT: usize = 512;

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub text: String,
    pub source: Source,
}

/// The fields of a mapping. Null fields count as missing, and case does not matter, as for kustomize.
pub(super) struct Fields<'a> {
    file: &'a str,
    line: usize,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// The lines of the fields, by their names in small letters.
    pub fn lines(&self) -> BTreeMap<String, usize> {
        self.entries.iter().map(|(key, _)| (key.text.to_ascii_lowercase(), key.line)).collect()
    }

    /// The fields of a mapping whose only fields may be `known`.
    pub fn new(node: &'a Node, file: &'a str, what: &str, known: &[&str]) -> Result<Self, RenderError> {
        let NodeKind::Map(entries) = &node.kind else {
            return Err(invalid(
                file,
                node.line,
                format!("{what} must be a mapping, this is {}", node.kind_name()),
            ));
        };
        for (key, _) in entries {
            if !known.iter().any(|name| name.eq_ignore_ascii_case(&key.text)) {
                return Err(RenderError::UnknownField {
                    source_at: Source::new(file, key.line),
                    field: key.text.clone(),
                    suggestion: nearest(&key.text, known),
                });
            }
        }
        Ok(Self { file, line: node.line, entries })
    }

    /// The line of the mapping.
    pub fn source(&self) -> Source {
        Source::new(self.file, self.line)
    }

    /// An error about the whole mapping.
    pub fn invalid(&self, problem: impl Into<String>) -> RenderError {
        invalid(self.file, self.line, problem)
    }

    /// A field with its key's line.
    pub fn get(&self, name: &str) -> Option<(&'a Key, &'a Node)> {
        let find = |fits: &dyn Fn(&str) -> bool| {
            self.entries
                .iter()
                .find(|(key, node)| fits(&key.text) && node.kind != NodeKind::Scalar(Value::Null))
        };
        find(&|key| key == name).or_else(|| find(&|key| key.eq_ignore_ascii_case(name))).map(|(k, v)| (k, v))
    }

    /// A text with its place.
    pub fn located(&self, name: &str) -> Result<Option<Located>, RenderError> {
        self.get(name).map(|(_, node)| self.text_of(node, name)).transpose()
    }

    /// A text; empty where there is none.
    pub fn text(&self, name: &str) -> Result<String, RenderError> {
        Ok(self.located(name)?.map(|located| located.text).unwrap_or_default())
    }

    /// A text that becomes a part of names or images, with its place; longer ones than Kubernetes takes are
    /// refused, for they are written many times.
    pub fn short(&self, name: &str) -> Result<Option<Located>, RenderError> {
        match self.located(name)? {
            Some(located) if located.text.len() > MAX_SHORT => Err(invalid(
                self.file,
                located.source.line,
                format!("{name} has more than {MAX_SHORT} characters; shorten it"),
            )),
            Some(located) if located.text.is_empty() => Ok(None),
            other => Ok(other),
        }
    }

    /// A boolean; false where there is none.
    pub fn flag(&self, name: &str) -> Result<bool, RenderError> {
        match self.get(name) {
            None => Ok(false),
            Some((_, node)) => match &node.kind {
                NodeKind::Scalar(Value::Bool(flag)) => Ok(*flag),
                _ => Err(invalid(
                    self.file,
                    node.line,
                    format!("{name} must be true or false, this is {}", node.kind_name()),
                )),
            },
        }
    }

    /// A whole number; none where there is none.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, RenderError> {
        match self.get(name) {
            None => Ok(None),
            Some((_, node)) => match &node.kind {
                NodeKind::Scalar(Value::Number(number)) if number.is_i64() => Ok(number.as_i64()),
                _ => Err(invalid(
                    self.file,
                    node.line,
                    format!("{name} must be a whole number, this is {}", node.kind_name()),
                )),
            },
        }
    }

    /// The items of a list; none where there is no list.
    pub fn items(&self, name: &str) -> Result<&'a [Node], RenderError> {
        match self.get(name) {
            None => Ok(&[]),
            Some((_, node)) => match &node.kind {
                NodeKind::List(items) => Ok(items),
                _ => Err(invalid(
                    self.file,
                    node.line,
                    format!("{name} must be a list, this is {}", node.kind_name()),
                )),
            },
        }
    }

    /// A list of texts with their places.
    pub fn texts(&self, name: &str) -> Result<Vec<Located>, RenderError> {
        self.items(name)?.iter().map(|node| self.text_of(node, name)).collect()
    }

    /// A mapping of texts; empty where there is none.
    pub fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, RenderError> {
        let Some((_, node)) = self.get(name) else { return Ok(BTreeMap::new()) };
        let NodeKind::Map(entries) = &node.kind else {
            return Err(invalid(
                self.file,
                node.line,
                format!("{name} must be a mapping, this is {}", node.kind_name()),
            ));
        };
        entries
            .iter()
            .map(|(key, value)| match &value.kind {
                NodeKind::Scalar(Value::Null) => Ok((key.text.clone(), String::new())),
                _ => Ok((key.text.clone(), self.text_of(value, &format!("{name}.{}", key.text))?.text)),
            })
            .collect()
    }

    fn text_of(&self, node: &Node, name: &str) -> Result<Located, RenderError> {
        match &node.kind {
            NodeKind::Scalar(Value::String(text)) => {
                Ok(Located { text: text.clone(), source: Source::new(self.file, node.line) })
            }
            NodeKind::Scalar(value) => Err(invalid(
                self.file,
                node.line,
                format!(
                    "{name} must be a text, this is {}; write it in quotes: \"{}\"",
                    node.kind_name(),
                    scalar_text(value)
                ),
            )),
            _ => Err(invalid(
                self.file,
                node.line,
                format!("{name} must be a text, this is {}", node.kind_name()),
            )),
        }
    }
}

/// An error at a line.
pub(super) fn invalid(file: &str, line: usize, problem: impl Into<String>) -> RenderError {
    RenderError::Invalid { source_at: Source::new(file, line), problem: problem.into() }
}

/// The known name that differs least, if it differs little.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let limit = (name.chars().count() / 3).max(2);
    known
        .iter()
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance, over at most the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let known = ["resources", "namePrefix", "configMapGenerator"];
        assert_eq!(nearest("resource", &known).as_deref(), Some("resources"));
        assert_eq!(nearest("configmapGenerators", &known).as_deref(), Some("configMapGenerator"));
        assert_eq!(nearest("spec", &known), None);
    }
}
