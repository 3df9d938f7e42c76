//! `replicas`: the number of replicas by an object's name.

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
    /// Sets the count on every object that has or had the name. Fails if there is none.
    pub fn apply(&self, resources: &mut [Resource], specs: &[FieldSpec]) -> Result<(), String> {
        let mut found = false;
        for resource in resources {
            for spec in specs {
                if !resource.is_any(|id| id.name == self.name && spec.kinds.selects(&id.gvk)) {
                    continue;
                }
                found = true;
                let gvk = resource.gvk();
                spec.apply(&mut resource.value, &gvk, Create::Scalar, &mut |value| {
                    *value = Value::from(self.count);
                    Ok(())
                })?;
            }
        }
        if found {
            return Ok(());
        }
        Err(format!(
            "no Deployment, ReplicaSet, ReplicationController or StatefulSet is called {:?}; correct the name",
            self.name
        ))
    }
}
