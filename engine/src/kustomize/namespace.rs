//! `namespace`: one namespace for everything that lives in namespaces.

use std::sync::Arc;

use serde_json::Value;

use super::field_spec::{Create, FieldSpec};
use super::resource::{Resource, set_namespace_of};

/// Which subjects of role bindings get the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Subjects {
    /// Those that are called `default`.
    #[default]
    Default,
    /// All service accounts.
    ServiceAccounts,
    /// None.
    None,
}

impl Subjects {
    /// Reads `setRoleBindingSubjects`.
    pub fn read(text: &str) -> Option<Self> {
        Some(match text {
            "" | "defaultOnly" => Self::Default,
            "allServiceAccounts" => Self::ServiceAccounts,
            "none" => Self::None,
            _ => return None,
        })
    }
}

/// How the namespace is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct NamespaceOptions {
    /// Only where there is none yet.
    pub unset_only: bool,
    pub subjects: Subjects,
}

/// Puts an object into a namespace: its own field, the subjects named `default` of role bindings, the name
/// of a Namespace, and the services of API services and conversion webhooks.
pub(super) fn set_namespace(
    namespace: &str,
    resource: &mut Resource,
    specs: &[FieldSpec],
    options: NamespaceOptions,
) -> Result<(), String> {
    resource.remember_id();
    place_in_namespace(namespace, resource, specs, options)
}

/// As [`set_namespace`], for one who need not be told later what the namespace was.
pub(super) fn place_in_namespace(
    namespace: &str,
    resource: &mut Resource,
    specs: &[FieldSpec],
    options: NamespaceOptions,
) -> Result<(), String> {
    let kind = Arc::clone(&resource.id().kind);
    let gvk = &kind.gvk;
    let keeps = |old: &Value| options.unset_only && old.as_str().is_some_and(|old| !old.is_empty());
    let is_unset = resource.namespace().is_empty();
    let text = || Value::String(namespace.to_owned());
    let is_binding = matches!(gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
    let mut object = resource.edit();
    if !kind.is_cluster_scoped && (is_unset || !options.unset_only) {
        set_namespace_of(&mut object, namespace);
    }
    if is_binding && let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut) {
        let is_meant = |subject: &Value| match options.subjects {
            Subjects::Default => subject["name"] == "default",
            Subjects::ServiceAccounts => subject["kind"] == "ServiceAccount",
            Subjects::None => false,
        };
        for subject in
            subjects.iter_mut().filter(|subject| is_meant(subject) && !keeps(&subject["namespace"]))
        {
            subject["namespace"] = text();
        }
    }
    for spec in specs {
        let is_own_field = spec.path == *"metadata/namespace";
        // Kinds called Namespace in other groups keep their name.
        let is_foreign_name = spec.path == *"metadata/name" && gvk.api_version() != "v1";
        let is_subject =
            is_binding && spec.kinds.kind.ends_with("RoleBinding") && spec.path == *"subjects/namespace";
        if is_own_field || is_foreign_name || is_subject {
            continue;
        }
        spec.apply(&mut object, gvk, Create::Scalar, &mut |value| {
            if value.is_array() || value.is_object() {
                return Err("a namespace must be a text; correct the object".to_owned());
            }
            if !keeps(value) {
                *value = text();
            }
            Ok(())
        })?;
    }
    Ok(())
}
