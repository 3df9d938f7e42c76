//! `namePrefix` and `nameSuffix`.

use std::sync::Arc;

use serde_json::Value;

use super::field_spec::{Create, FieldSpec};
use super::resource::{Resource, scalar_text};

/// Puts a prefix before, or a suffix behind, names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affix<'a> {
    Prefix(&'a Arc<str>),
    Suffix(&'a Arc<str>),
}

impl Affix<'_> {
    fn is_empty(self) -> bool {
        let (Self::Prefix(text) | Self::Suffix(text)) = self;
        text.is_empty()
    }

    fn on(self, name: &str) -> String {
        match self {
            Self::Prefix(prefix) => format!("{prefix}{name}"),
            Self::Suffix(suffix) => format!("{name}{suffix}"),
        }
    }
}

/// Renames an object; the names of definitions, API services and namespaces are left alone.
pub(super) fn rename(affix: Affix<'_>, resource: &mut Resource, specs: &[FieldSpec]) -> Result<(), String> {
    let original = resource.original_id();
    let original = original.gvk();
    let is_fixed = matches!(original.kind.as_str(), "CustomResourceDefinition" | "Namespace")
        || (original.kind == "APIService" && original.group == "apiregistration.k8s.io");
    if is_fixed {
        return Ok(());
    }
    for spec in specs.iter().filter(|spec| spec.kinds.selects(original)) {
        if spec.path == *"metadata/name" {
            match affix {
                Affix::Prefix(prefix) => resource.prefixes.push(Arc::clone(prefix)),
                Affix::Suffix(suffix) => resource.suffixes.push(Arc::clone(suffix)),
            }
            if !affix.is_empty() {
                resource.remember_id();
            }
        }
        let kind = Arc::clone(&resource.id().kind);
        spec.apply(&mut resource.edit(), &kind.gvk, Create::Scalar, &mut |value| {
            *value = Value::String(affix.on(&scalar_text(value)));
            Ok(())
        })?;
    }
    Ok(())
}
