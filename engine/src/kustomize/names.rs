//! `namePrefix` and `nameSuffix`.

use serde_json::Value;

use super::field_spec::{Create, FieldSpec};
use super::resource::{Resource, scalar_text};

/// Puts a prefix before, or a suffix behind, names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affix<'a> {
    Prefix(&'a str),
    Suffix(&'a str),
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
    let is_fixed = matches!(original.gvk.kind.as_str(), "CustomResourceDefinition" | "Namespace")
        || (original.gvk.kind == "APIService" && original.gvk.group == "apiregistration.k8s.io");
    if is_fixed {
        return Ok(());
    }
    for spec in specs.iter().filter(|spec| spec.kinds.selects(&original.gvk)) {
        if spec.path == "metadata/name" {
            match affix {
                Affix::Prefix(prefix) => resource.prefixes.push(prefix.to_owned()),
                Affix::Suffix(suffix) => resource.suffixes.push(suffix.to_owned()),
            }
            if !affix.is_empty() {
                resource.remember_id();
            }
        }
        let gvk = resource.gvk();
        spec.apply(&mut resource.value, &gvk, Create::Scalar, &mut |value| {
            *value = Value::String(affix.on(&scalar_text(value)));
            Ok(())
        })?;
    }
    Ok(())
}
