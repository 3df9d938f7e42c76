//! What made an object and what changed it: the steps of a render, for people.

use std::fmt;

use serde_json::Value;

use super::accumulator::Accumulator;
use super::resource::{Origin, Source};

/// How many changed fields a step names.
const MAX_FIELDS: usize = 6;

/// Something that made an object or changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it was, by the field of the kustomization: `patches`, `namePrefix`, `secretGenerator`.
    pub action: String,
    /// Where that is written.
    pub at: Source,
    /// A further file that it read, such as that of a patch.
    pub with: Option<String>,
    /// The fields that it changed, as far as they are worth a line; never a value.
    pub fields: Vec<String>,
}

impl fmt::Display for Step {
    /// `base/kustomization.yaml:3  patches (with base/patch.yaml)  spec.replicas`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.at, self.action)?;
        if let Some(with) = &self.with {
            write!(f, " (with {with})")?;
        }
        if !self.fields.is_empty() {
            write!(f, "  {}", self.fields.join(", "))?;
        }
        Ok(())
    }
}

impl Step {
    /// A step that names no fields.
    pub fn new(action: &str, at: &Source) -> Self {
        Self { action: action.to_owned(), at: at.clone(), with: None, fields: Vec::new() }
    }

    /// The step with a further file.
    #[must_use]
    pub(super) fn with(mut self, file: Option<&str>) -> Self {
        self.with = file.map(str::to_owned);
        self
    }

    /// The step, if it changed an object: with the fields that differ.
    pub fn between(mut self, before: &Value, after: &Value) -> Option<Self> {
        if before == after {
            return None;
        }
        changed(before, after, "", &mut self.fields);
        if self.fields.len() > MAX_FIELDS {
            let more = self.fields.len() - MAX_FIELDS;
            self.fields.truncate(MAX_FIELDS);
            self.fields.push(format!("and {more} more"));
        }
        Some(self)
    }
}

/// The fields that differ, by their paths; a list whose length changed counts as one.
fn changed(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                match old.get(name) {
                    Some(old) => changed(old, value, &inner(name), found),
                    None => found.push(inner(name)),
                }
            }
            found.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| inner(name)));
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                changed(old, new, &format!("{path}[{at}]"), found);
            }
        }
        (old, new) if old != new => found.push(path.to_owned()),
        _ => {}
    }
}

impl Accumulator {
    /// The objects as they are now are what the next step is compared with.
    pub fn begin_steps(&mut self) {
        if self.explains {
            self.before = self.resources.iter().map(|resource| resource.value().clone()).collect();
        }
    }

    /// Ends a step: notes it on every object that it changed, and where `buildMetadata` asks for it on all.
    pub fn step(&mut self, origin: Option<Origin>, step: impl FnOnce() -> Step) {
        self.remark(origin);
        if !self.explains {
            return;
        }
        let step = step();
        let same_objects = self.before.len() == self.resources.iter().count();
        let before = std::mem::take(&mut self.before);
        for (at, resource) in self.resources.iter_mut().enumerate() {
            // Where a step removed objects the others are found by what they are still alike in.
            let old = if same_objects {
                before.get(at)
            } else {
                before.iter().find(|old| {
                    old["kind"] == resource.value()["kind"]
                        && old["metadata"]["name"] == resource.value()["metadata"]["name"]
                })
            };
            if let Some(old) = old {
                resource.steps.extend(step.clone().between(old, resource.value()));
            }
        }
        self.begin_steps();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_step_names_the_fields_that_it_changed() {
        let before = json!({"a": 1, "l": [{"x": 1}, 2], "gone": 0, "same": {"deep": [1]}});
        let after = json!({"a": 2, "l": [{"x": 2}, 2], "new": {"y": 1}, "same": {"deep": [1]}});
        let step = Step::new("patches", &Source::new("k.yaml", 3)).with(Some("p.yaml"));
        assert_eq!(step.clone().between(&before, &before), None);
        assert_eq!(
            step.between(&before, &after).unwrap().to_string(),
            "k.yaml:3  patches (with p.yaml)  a, l[0].x, new, gone"
        );
    }
}
