//! `vars`: values of fields that stand for `$(NAME)` in others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::object::GroupVersionKind;
use crate::object::yaml::Node;

use super::error::RenderError;
use super::field_path;
use super::field_spec::{Create, FieldSpec};
use super::fields::Fields;
use super::identity::{KindFilter, ResId};
use super::resource::{Resource, Source, scalar_text};

/// One entry of `vars`.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub source: Source,
    pub name: String,
    kinds: KindFilter,
    object: String,
    namespace: String,
    field_path: String,
}

impl Variable {
    /// Reads an entry.
    pub fn read(node: &Node, file: &str) -> Result<Self, RenderError> {
        let fields = Fields::new(node, file, "an entry of vars", &["name", "objref", "fieldref"])?;
        let Some((_, object)) = fields.get("objref") else {
            return Err(fields.invalid("a var needs an objref"));
        };
        let known = ["apiVersion", "group", "version", "kind", "name", "namespace"];
        let object = Fields::new(object, file, "objref", &known)?;
        let mut kinds = KindFilter {
            group: object.text("group")?,
            version: object.text("version")?,
            kind: object.text("kind")?,
        };
        let version = object.text("apiVersion")?;
        if !version.is_empty() {
            let gvk = GroupVersionKind::from_api_version(&version, &kinds.kind);
            (kinds.group, kinds.version) = (gvk.group, gvk.version);
        }
        let field_path = match fields.get("fieldref") {
            Some((_, node)) => Fields::new(node, file, "fieldref", &["fieldPath"])?.text("fieldPath")?,
            None => String::new(),
        };
        Ok(Self {
            source: fields.source(),
            name: fields.text("name")?,
            kinds,
            object: object.text("name")?,
            namespace: object.text("namespace")?,
            field_path: if field_path.is_empty() { "metadata.name".to_owned() } else { field_path },
        })
    }

    /// Marks the object that the variable reads, while its name is still the one written here.
    pub fn bind(&self, resources: &mut [Resource]) -> Result<(), RenderError> {
        let is_meant = |id: &ResId| {
            *id.name == *self.object
                && id.gvk().group == self.kinds.group
                && id.gvk().version == self.kinds.version
                && id.gvk().kind == self.kinds.kind
                && (self.namespace.is_empty() || *id.namespace == *self.namespace)
        };
        let mut found = resources.iter_mut().filter(|resource| resource.is_any(is_meant));
        if let Some(resource) = found.next() {
            resource.variables.push(self.name.clone());
        }
        if found.next().is_some() {
            return Err(self.invalid("several objects are meant; add a namespace to objref"));
        }
        Ok(())
    }

    fn value(&self, resources: &[Resource]) -> Result<Value, RenderError> {
        let resource = resources.iter().find(|resource| resource.variables.contains(&self.name));
        let Some(resource) = resource else {
            return Err(
                self.invalid(format!("there is no {} {}; correct objref", self.kinds.kind, self.object))
            );
        };
        field_path::get(resource.value(), &with_indices(&self.field_path)).cloned().ok_or_else(|| {
            self.invalid(format!("{} has no {}; correct fieldref", resource.id(), self.field_path))
        })
    }

    fn invalid(&self, problem: impl Into<String>) -> RenderError {
        RenderError::Invalid {
            source_at: self.source.clone(),
            problem: format!("var {}: {}", self.name, problem.into()),
        }
    }
}

/// Puts the values of all variables in.
pub(super) fn resolve(
    variables: &[Variable],
    resources: &mut [Resource],
    specs: &[FieldSpec],
) -> Result<(), RenderError> {
    let mut values = BTreeMap::new();
    for variable in variables {
        values.insert(variable.name.clone(), variable.value(resources)?);
    }
    if values.is_empty() {
        return Ok(());
    }
    for resource in resources {
        let (kind, source) = (Arc::clone(&resource.id().kind), resource.source.clone());
        let mut object = resource.edit();
        for spec in specs {
            spec.apply(&mut object, &kind.gvk, Create::Nothing, &mut |value| substitute(value, &values))
                .map_err(|problem| RenderError::Invalid { source_at: source.clone(), problem })?;
        }
    }
    Ok(())
}

/// A variable's `ports[0]` is `ports.0` in the paths of replacements.
fn with_indices(path: &str) -> String {
    let indexed = |step: &str| {
        let (field, index) = step.strip_suffix(']')?.rsplit_once('[')?;
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        is_index.then(|| if field.is_empty() { index.to_owned() } else { format!("{field}.{index}") })
    };
    let steps: Vec<String> =
        path.split('.').map(|step| indexed(step).unwrap_or_else(|| step.to_owned())).collect();
    steps.join(".")
}

fn substitute(value: &mut Value, values: &BTreeMap<String, Value>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            *value = replaced(text, values);
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| match item {
            Value::String(text) => {
                *item = replaced(text, values);
                Ok(())
            }
            _ => Err("a list with variables must hold texts; correct the object".to_owned()),
        }),
        Value::Object(map) => {
            for item in map.values_mut() {
                if let Value::String(text) = item {
                    *item = replaced(text, values);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How long a text may grow, in bytes, while references are replaced.
const MAX_TEXT: usize = 1024 * 1024;

/// Replaces `$(NAME)`; `$$` is a dollar sign, unknown names stay. A text that is one variable takes its type.
fn replaced(text: &str, values: &BTreeMap<String, Value>) -> Value {
    let mut out = String::new();
    let mut rest = text;
    // A text that grows beyond all use keeps the rest of its references as they are.
    while let Some(at) = rest.find('$').filter(|_| out.len() < MAX_TEXT) {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.get(name).filter(|value| !value.is_object() && !value.is_array() && !value.is_null())
            {
                Some(value) if text.len() == name.len() + 3 => return value.clone(),
                Some(value) => out.push_str(&scalar_text(value)),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    Value::String(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_named_by_their_number() {
        for (path, meant) in [
            ("spec.ports[0].port", "spec.ports.0.port"),
            ("[1]", "1"),
            ("a.[n=x].b", "a.[n=x].b"),
            ("metadata.annotations.[x.y]", "metadata.annotations.[x.y]"),
        ] {
            assert_eq!(with_indices(path), meant);
        }
    }

    #[test]
    fn variables_keep_their_type_only_when_alone() {
        let values = BTreeMap::from([("N".to_owned(), json!(5)), ("S".to_owned(), json!("x"))]);
        for (text, value) in [
            ("$(N)", json!(5)),
            ("a$(N)$(S)", json!("a5x")),
            ("$$(N)", json!("$(N)")),
            ("$(NONE)", json!("$(NONE)")),
            ("$(N", json!("$(N")),
            ("$", json!("$")),
            ("$x", json!("$x")),
        ] {
            assert_eq!(replaced(text, &values), value, "{text}");
        }
    }
}
