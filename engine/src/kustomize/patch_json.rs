//! JSON patches (RFC 6902).

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use super::resource::{Resource, map_at, metadata_of};
use super::resource_map::measure;

/// How many bytes a patch may add to one object.
const MAX_PATCHED_BYTES: usize = 16 * 1024 * 1024;

/// Reads a list of operations.
pub(super) fn read(value: &Value) -> Result<json_patch::Patch, String> {
    let operations: json_patch::Patch = serde_json::from_value(value.clone())
        .map_err(|error| format!("this is not a JSON patch: {error}; write a list of op, path and value"))?;
    if operations.0.is_empty() {
        return Err("the JSON patch has no operations; write some or remove the entry".to_owned());
    }
    Ok(operations)
}

/// The operation as kustomize carries it out: `replace` adds a field that is not there. RFC 6902 has it fail.
fn as_kustomize_means(operation: &PatchOperation, value: &Value) -> PatchOperation {
    if let PatchOperation::Replace(replace) = operation
        && value.pointer(replace.path.as_str()).is_none()
        && let Some((parent, _)) = replace.path.split_back()
        && value.pointer(parent.as_str()).is_some_and(Value::is_object)
    {
        let (path, value) = (replace.path.clone(), replace.value.clone());
        return PatchOperation::Add(AddOperation { path, value });
    }
    operation.clone()
}

/// Applies operations to an object. After an error the object is not to be used.
pub(super) fn apply(resource: &mut Resource, operations: &json_patch::Patch) -> Result<(), String> {
    // kustomize keeps its notes as annotations, so a patch may add to annotations that nobody wrote.
    let made = resource.has_notes() && resource.value()["metadata"].get("annotations").is_none();
    if made {
        map_at(metadata_of(&mut resource.edit()), "annotations");
    }
    let id = resource.id().clone();
    let mut value = resource.edit();
    let before = measure(&value)?;
    for operation in &operations.0 {
        let operation = &as_kustomize_means(operation, &value);
        json_patch::patch(&mut value, std::slice::from_ref(operation))
            .map_err(|error| format!("the patch does not fit {id}: {error}; correct the path"))?;
        // Copies can double an object with every operation.
        if measure(&value)? > before.saturating_add(MAX_PATCHED_BYTES) {
            return Err("the patch makes the object too large; patch less".to_owned());
        }
    }
    let has_identity = value["metadata"]["name"].is_string() && value["kind"].is_string();
    drop(value);
    resource.settle_annotations();
    if has_identity {
        Ok(())
    } else {
        Err("the patch removes the object's kind or name; leave them".to_owned())
    }
}
