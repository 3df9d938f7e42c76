//! `images`: other names, tags and digests for container images.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::field_path::MAX_EXPRESSION;
use super::field_spec::{Create, FieldSpec};
use super::resource::{Resource, scalar_text};

/// One entry of `images`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Image {
    pub name: String,
    pub new_name: String,
    pub new_tag: String,
    pub digest: String,
    pub tag_suffix: String,
}

impl Image {
    /// The expression that the images to change match.
    pub fn pattern(&self) -> Result<Regex, String> {
        // kustomize takes the name as part of a regular expression, so a point matches any character.
        let tail = "(:[a-zA-Z0-9_.{}-]*)?(@sha256:[a-zA-Z0-9_.{}-]*)?$";
        let compile =
            |name: &str| RegexBuilder::new(&format!("^{name}{tail}")).size_limit(MAX_EXPRESSION).build();
        compile(&self.name)
            .or_else(|_| compile(&regex::escape(&self.name)))
            .map_err(|_| format!("the image name {:?} is too long", self.name))
    }

    /// Changes every image of an object that matches the [pattern](Self::pattern). Definitions of custom resources are
    /// left alone.
    pub fn apply(&self, pattern: &Regex, resource: &mut Resource, specs: &[FieldSpec]) -> Result<(), String> {
        let kind = Arc::clone(&resource.id().kind);
        if kind.gvk.kind == "CustomResourceDefinition" {
            return Ok(());
        }
        let mut object = resource.edit();
        self.set_in_containers(pattern, &mut object)?;
        for spec in specs {
            spec.apply(&mut object, &kind.gvk, Create::Nothing, &mut |value| self.set(pattern, value))?;
        }
        Ok(())
    }

    /// Changes images in lists of containers, wherever in an object they are.
    fn set_in_containers(&self, pattern: &Regex, value: &mut Value) -> Result<(), String> {
        match value {
            Value::Array(items) => {
                items.iter_mut().try_for_each(|item| self.set_in_containers(pattern, item))
            }
            Value::Object(map) => map.iter_mut().try_for_each(|(key, field)| {
                self.set_in_containers(pattern, field)?;
                match field {
                    Value::Array(items) if key == "containers" || key == "initContainers" => items
                        .iter_mut()
                        .filter_map(|item| item.get_mut("image"))
                        .try_for_each(|image| self.set(pattern, image)),
                    _ => Ok(()),
                }
            }),
            _ => Ok(()),
        }
    }

    fn set(&self, pattern: &Regex, value: &mut Value) -> Result<(), String> {
        if value.is_array() || value.is_object() {
            return Err("an image must be a text; correct the object".to_owned());
        }
        if value.is_null() {
            return Ok(());
        }
        let image = scalar_text(value);
        if pattern.is_match(&image) {
            *value = Value::String(self.renamed(&image));
        }
        Ok(())
    }

    fn renamed(&self, image: &str) -> String {
        let (name, mut tag, mut digest) = split(image);
        let name = if self.new_name.is_empty() { name } else { self.new_name.clone() };
        if !self.new_tag.is_empty() {
            tag.clone_from(&self.new_tag);
            digest.clone_from(&self.digest);
        } else if !self.digest.is_empty() {
            tag.clear();
            digest.clone_from(&self.digest);
        } else if !self.tag_suffix.is_empty() {
            tag.push_str(&self.tag_suffix);
            digest.clear();
        }
        let tag = if tag.is_empty() { tag } else { format!(":{tag}") };
        let digest = if digest.is_empty() { digest } else { format!("@{digest}") };
        format!("{name}{tag}{digest}")
    }
}

/// Splits an image into name, tag and digest; a port of a registry is part of the name.
fn split(image: &str) -> (String, String, String) {
    let path_start = image.find('/').filter(|at| *at > 0).unwrap_or(0);
    let (head, digest) = match image[path_start..].find('@') {
        Some(at) => (&image[..path_start + at], &image[path_start + at + 1..]),
        None => (image, ""),
    };
    match head[path_start..].find(':') {
        Some(at) => {
            (head[..path_start + at].to_owned(), head[path_start + at + 1..].to_owned(), digest.to_owned())
        }
        None => (head.to_owned(), String::new(), digest.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_apart_at_tag_and_digest() {
        for (image, parts) in [
            ("nginx", ("nginx", "", "")),
            ("nginx:1.2", ("nginx", "1.2", "")),
            ("nginx@sha256:ab", ("nginx", "", "sha256:ab")),
            ("nginx:1@sha256:ab", ("nginx", "1", "sha256:ab")),
            ("localhost:5000/a/b:1", ("localhost:5000/a/b", "1", "")),
            ("localhost:5000/a@sha256:ab", ("localhost:5000/a", "", "sha256:ab")),
        ] {
            let (name, tag, digest) = split(image);
            assert_eq!((name.as_str(), tag.as_str(), digest.as_str()), parts, "{image}");
        }
    }
}
