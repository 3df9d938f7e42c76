//! Deleting what an environment no longer wants.

use engine::plan::{Deletion, PART_OF};
use serde_json::{Value, json};

use super::Cluster;
use super::error::{Error, ObjectError};
use super::request::{Call, Target};
use super::writer::Writer;
use crate::api::Environment;

/// How often a deletion that met another write is repeated.
const ROUNDS: usize = 5;

impl Cluster {
    /// Executes deletions, one after the other; the answer is how many objects are gone, or going. What
    /// was made anew or belongs to somebody else by now is kept. Repeating it does no harm.
    ///
    /// # Errors
    /// The objects that could not be deleted.
    pub async fn prune(
        &self,
        environment: &Environment,
        deletions: &[Deletion],
    ) -> Result<u32, Vec<ObjectError>> {
        let writer = Writer::of(environment);
        let mut deleted = 0;
        let mut errors = Vec::new();
        for deletion in deletions {
            match self.delete(&writer, deletion).await {
                Ok(None) => deleted += 1,
                Ok(Some(reason)) => {
                    tracing::info!(environment = %environment.key(), object = %deletion.object, reason, "kept");
                }
                Err(error) => errors.push(ObjectError { object: deletion.object.clone(), error }),
            }
        }
        if errors.is_empty() { Ok(deleted) } else { Err(errors) }
    }

    /// Deletes an object; the answer is why it was kept, if it was.
    async fn delete(&self, writer: &Writer, deletion: &Deletion) -> Result<Option<String>, Error> {
        // A kind that is gone took its objects along.
        let Some(kind) = self.kind_of_group(&deletion.object.group_kind()).await? else { return Ok(None) };
        let target = Target::object(&kind, deletion.object.namespace.as_deref(), &deletion.object.name);
        let mut version = deletion.resource_version.clone();
        for _ in 0..ROUNDS {
            let options = json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Background",
                "preconditions": {"uid": deletion.uid, "resourceVersion": version},
            });
            match self.call(Call::delete(target, &options).on_behalf_of(writer.user.as_deref())).await {
                Ok(_) | Err(Error::NotFound { .. }) => return Ok(None),
                Err(Error::Conflict { .. }) => match self.look_again(target, writer, deletion).await? {
                    Again::Gone => return Ok(None),
                    Again::Keep(reason) => return Ok(Some(reason)),
                    Again::Delete(newer) => version = newer,
                },
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict {
            what: deletion.object.to_string(),
            message: "it changes faster than it can be deleted".to_owned(),
        })
    }

    async fn look_again(
        &self,
        target: Target<'_>,
        writer: &Writer,
        deletion: &Deletion,
    ) -> Result<Again, Error> {
        let current = match self.call(Call::get(target)).await {
            Ok(current) => current,
            Err(Error::NotFound { .. }) => return Ok(Again::Gone),
            Err(error) => return Err(error),
        };
        Ok(judge(&current, writer, deletion))
    }
}

/// What is to be done about an object that is not as it was when its deletion was planned.
#[derive(Debug, PartialEq)]
enum Again {
    Gone,
    Keep(String),
    Delete(String),
}

fn judge(current: &Value, writer: &Writer, deletion: &Deletion) -> Again {
    let metadata = &current["metadata"];
    if metadata["uid"].as_str() != Some(&deletion.uid) {
        return Again::Keep("it was made anew in the meantime".to_owned());
    }
    if !metadata["deletionTimestamp"].is_null() {
        return Again::Gone;
    }
    if metadata["labels"][PART_OF].as_str() != Some(&writer.marks.part_of) {
        return Again::Keep("it belongs to somebody else by now".to_owned());
    }
    if metadata["annotations"][engine::plan::PRUNE] == "disabled" {
        return Again::Keep("holdfast.dev/prune is disabled".to_owned());
    }
    Again::Delete(metadata["resourceVersion"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::object::ObjectRef;

    #[test]
    fn a_changed_object_is_looked_at_before_it_is_deleted() {
        let writer = Writer::of(&Environment::test("dev"));
        let object =
            ObjectRef { group: String::new(), kind: "ConfigMap".into(), namespace: None, name: "a".into() };
        let deletion = Deletion { object, uid: "u".into(), resource_version: "1".into() };
        let ours = json!({"metadata": {"uid": "u", "resourceVersion": "7", "labels": {PART_OF: writer.marks.part_of}}});
        let with = |field: &str, value: Value| {
            let mut object = ours.clone();
            object["metadata"][field] = value;
            object
        };
        let keep = |reason: &str| Again::Keep(reason.to_owned());
        let table = [
            (ours.clone(), Again::Delete("7".into())),
            (with("uid", json!("v")), keep("it was made anew in the meantime")),
            (with("deletionTimestamp", json!("2026-01-01T00:00:00Z")), Again::Gone),
            (with("labels", json!({})), keep("it belongs to somebody else by now")),
            (
                with("annotations", json!({"holdfast.dev/prune": "disabled"})),
                keep("holdfast.dev/prune is disabled"),
            ),
        ];
        for (current, expected) in table {
            assert_eq!(judge(&current, &writer, &deletion), expected, "{current}");
        }
    }
}
