//! What applying an object would change, as the API server itself says it.

use std::sync::Arc;

use engine::object::Object;
use engine::plan::{APPLIED, Change, diff};
use serde_json::Value;

use super::error::Error;
use super::writer::Writer;
use super::{Cluster, Kind};
use crate::api::Environment;

impl Cluster {
    /// What applying an object would change: the live object beside the answer to a dry run. Nothing is
    /// written. The marks that every write brings are left out.
    ///
    /// # Errors
    /// When the object cannot be applied, or the API server cannot be asked.
    pub async fn preview(&self, environment: &Environment, object: &Object) -> Result<Vec<Change>, Error> {
        let writer = &Writer::of(environment);
        let kind: Arc<Kind> = self.kind_of(object).await?;
        let before = self.get(&object.object_ref()).await?.unwrap_or(Value::Null);
        let after = self.apply_one(writer, &kind, object, None, true).await?.value;
        let (mut before, mut after) = (before, after);
        let created = before.is_null();
        for value in [&mut before, &mut after] {
            quiet(value, created);
        }
        if created {
            Ok(diff(&Value::Object(serde_json::Map::new()), &after))
        } else {
            Ok(diff(&before, &after))
        }
    }
}

/// Takes out what says nothing about the content.
fn quiet(value: &mut Value, created: bool) {
    if let Some(map) = value.as_object_mut()
        && created
    {
        map.shift_remove("status");
    }
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"] {
        metadata.shift_remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(APPLIED);
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_every_write_changes_is_not_shown() {
        let mut value = json!({
            "metadata": {
                "name": "a", "uid": "1", "generation": 3, "resourceVersion": "9", "managedFields": [],
                "annotations": {APPLIED: "x.y"}
            },
            "data": {"a": "1"}
        });
        quiet(&mut value, false);
        assert_eq!(value, json!({"metadata": {"name": "a"}, "data": {"a": "1"}}));
    }
}
