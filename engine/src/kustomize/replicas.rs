//! `replicas`: the number of replicas by an object's name.

use std::sync::Arc;

use serde_json::Value;

use super::field_spec::{Create, FieldSpec};
use super::resource::Resource;

/// One entry of `replicas`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Replicas {
    pub name: String,
    pub count: i64,
}

impl Replicas {
    /// Sets the count if the object has or had the name. Says whether it is meant.
    pub fn apply(&self, resource: &mut Resource, specs: &[FieldSpec]) -> Result<bool, String> {
        let mut is_meant = false;
        for spec in specs {
            if !resource.is_any(|id| *id.name == *self.name && spec.kinds.selects(id.gvk())) {
                continue;
            }
            is_meant = true;
            let kind = Arc::clone(&resource.id().kind);
            spec.apply(&mut resource.edit(), &kind.gvk, Create::Scalar, &mut |value| {
                *value = Value::from(self.count);
                Ok(())
            })?;
        }
        Ok(is_meant)
    }

    /// What is wrong where no object is meant.
    pub fn without_object(&self) -> String {
        format!(
            "no Deployment, ReplicaSet, ReplicationController or StatefulSet is called {:?}; correct the name",
            self.name
        )
    }
}
