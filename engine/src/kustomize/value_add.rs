//! `ValueAddTransformer`: one value in fields of several objects, or as a part of the paths that they hold.

use serde_json::Value;

use crate::object::yaml::{Dialect, Node, read_nodes};

use super::error::RenderError;
use super::field_path::{self, Missing, Step};
use super::fields::{Fields, invalid};
use super::kustomization::selector;
use super::namespace::{NamespaceOptions, place_in_namespace};
use super::resource::{Resource, Source, scalar_text};
use super::resource_map::ResourceMap;
use super::selector::Selector;

/// Where the value goes.
pub(super) struct Target {
    source: Source,
    /// All objects, where nothing is said. Compiled only while it is used: there may be any number of targets.
    select: Option<Selector>,
    path: String,
    steps: Vec<Step>,
    /// The field holds a path, in which the value becomes the part of this number, from 1.
    position: Option<usize>,
}

/// Reads `targets`.
pub(super) fn targets(fields: &Fields<'_>, file: &str) -> Result<Vec<Target>, RenderError> {
    fields.items("targets")?.iter().map(|item| Target::read(item, file)).collect()
}

/// Reads the file that `targetFilePath` names.
pub(super) fn read_file(text: &str, file: &str) -> Result<Vec<Target>, RenderError> {
    match read_nodes(text, file, Dialect::Settings)?.as_slice() {
        [node] => targets(&Fields::new(node, file, "a file of targets", &["targets"])?, file),
        _ => Err(invalid(file, 1, "a file of targets is one document; write it or remove the others")),
    }
}

impl Target {
    fn read(node: &Node, file: &str) -> Result<Self, RenderError> {
        let fields = Fields::new(node, file, "a target", &["selector", "fieldPath", "filePathPosition"])?;
        let select = fields.get("selector").map(|(_, node)| selector(node, file)).transpose()?;
        let path = fields.text("fieldPath")?;
        if path.is_empty() {
            return Err(fields.invalid("a target needs fieldPath"));
        }
        let position = fields.integer("filePathPosition")?.unwrap_or(0);
        let position = usize::try_from(position)
            .map_err(|_| fields.invalid("filePathPosition counts from 1, it cannot be negative"))?;
        let steps = field_path::steps_between(&path, '/');
        Ok(Self {
            source: fields.source(),
            select,
            path,
            steps,
            position: Some(position).filter(|position| *position > 0),
        })
    }

    /// Puts the value into every object that is selected.
    pub fn apply(&self, value: &str, resources: &mut ResourceMap) -> Result<(), RenderError> {
        resources.grow(value.len(), resources.iter().count(), &self.source)?;
        let at = |problem| RenderError::Invalid { source_at: self.source.clone(), problem };
        let matcher = self.select.as_ref().map(Selector::compile).transpose().map_err(at)?;
        let is_meant = |resource: &Resource| matcher.as_ref().is_none_or(|matcher| matcher.matches(resource));
        resources
            .iter_mut()
            .filter(|resource| is_meant(resource))
            .try_for_each(|resource| self.put(value, resource))
            .map_err(at)
    }

    fn put(&self, value: &str, resource: &mut Resource) -> Result<(), String> {
        if self.path == "metadata/namespace" {
            return place_in_namespace(value, resource, &[], NamespaceOptions::default());
        }
        let id = resource.id().clone();
        let found =
            field_path::visit(&mut resource.edit(), &self.steps, Missing::Create, &mut |field| match field {
                Value::Array(_) | Value::Object(_) => {
                    Err(format!("{} must be a scalar; correct fieldPath", self.path))
                }
                field => {
                    let old = if field.is_null() { String::new() } else { scalar_text(field) };
                    *field = Value::String(match self.position {
                        Some(position) => with_part(&old, position - 1, value),
                        None => value.to_owned(),
                    });
                    Ok(())
                }
            });
        match found {
            Ok(0) => Err(format!("{id} has no {}; correct fieldPath or the selector", self.path)),
            Ok(_) => Ok(()),
            Err(problem) => Err(format!("{id}: {problem}")),
        }
    }
}

/// A path with another part, counted from 0; at the end where there are fewer. A path from the root stays one.
fn with_part(path: &str, at: usize, part: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.insert(at.min(parts.len()), part);
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of kustomize's documentation.
    #[test]
    fn parts_go_where_they_are_meant() {
        for (old, at, new) in [
            ("", 0, "PEACH"),
            ("/", 4, "/PEACH"),
            ("pie", 0, "PEACH/pie"),
            ("/pie", 0, "/PEACH/pie"),
            ("raw", 1, "raw/PEACH"),
            ("/raw", 9998, "/raw/PEACH"),
            ("a/nice/warm/pie", 3, "a/nice/warm/PEACH/pie"),
            ("/a/nice/warm/pie", 3, "/a/nice/warm/PEACH/pie"),
        ] {
            assert_eq!(with_part(old, at, "PEACH"), new, "{old} {at}");
        }
    }
}
