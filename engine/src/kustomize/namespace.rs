//! `namespace`: one namespace for everything that lives in namespaces.

use serde_json::Value;

use super::field_spec::{Create, FieldSpec};
use super::resource::Resource;

/// Puts an object into a namespace: its own field, the subjects named `default` of role bindings, the name
/// of a Namespace, and the services of API services and conversion webhooks.
pub(super) fn set_namespace(
    namespace: &str,
    resource: &mut Resource,
    specs: &[FieldSpec],
) -> Result<(), String> {
    resource.remember_id();
    let gvk = resource.gvk();
    if !resource.is_cluster_scoped() {
        resource.set_namespace(namespace);
    }
    let text = || Value::String(namespace.to_owned());
    let is_binding = matches!(gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
    if is_binding && let Some(subjects) = resource.value.get_mut("subjects").and_then(Value::as_array_mut) {
        for subject in subjects.iter_mut().filter(|subject| subject["name"] == "default") {
            subject["namespace"] = text();
        }
    }
    for spec in specs {
        let is_own_field = spec.path == "metadata/namespace";
        // Kinds called Namespace in other groups keep their name.
        let is_foreign_name = spec.path == "metadata/name" && gvk.api_version() != "v1";
        let is_subject = is_binding && spec.path == "subjects/namespace";
        if is_own_field || is_foreign_name || is_subject {
            continue;
        }
        spec.apply(&mut resource.value, &gvk, Create::Scalar, &mut |value| {
            if value.is_array() || value.is_object() {
                return Err("a namespace must be a text; correct the object".to_owned());
            }
            *value = text();
            Ok(())
        })?;
    }
    Ok(())
}
