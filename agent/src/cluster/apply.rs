//! Executing a plan's writes, stage by stage.

use std::collections::HashMap;
use std::time::Duration;

use engine::object::{Object, ObjectRef};
use engine::plan::{Plan, ShortDigest, StageName};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use super::Cluster;
use super::door::CONCURRENT;
use super::error::{Error, ObjectError};
use super::request::{Call, Target};
use super::writer::Writer;

/// How long a new kind or namespace may take to become usable.
const USABLE: Duration = Duration::from_secs(60);

/// What was written.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// Objects that were created or changed.
    pub changed: Vec<ObjectRef>,
    /// Objects that were sent but were as they should be already.
    pub unchanged: Vec<ObjectRef>,
    /// Objects that could not be written, sorted. Later stages are not begun when there is one.
    pub errors: Vec<ObjectError>,
}

impl ApplyReport {
    /// All errors in one text, a line for each object.
    pub fn message(&self) -> String {
        let lines: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// Whether the agent lost the right to write in between.
    pub fn lost_leadership(&self) -> bool {
        self.errors.iter().any(|error| error.error.is_lost_leadership())
    }
}

impl Cluster {
    /// Executes the writes of a plan. `owned` is what the door's dry runs said; objects that are not in
    /// it are dry-run now. Repeating it does no harm.
    pub async fn apply(
        &self,
        writer: &Writer,
        plan: &Plan,
        bundle: &[Object],
        owned: &HashMap<ObjectRef, ShortDigest>,
    ) -> ApplyReport {
        let mut report = ApplyReport::default();
        for (i, stage) in plan.stages.iter().enumerate() {
            let objects =
                stage.writes.iter().filter_map(|write| Some((&write.object, bundle.get(write.index)?)));
            let writes = futures::stream::iter(objects.map(|(key, object)| async move {
                (key, object, self.write(writer, object, self.stamped(key, object, owned)).await)
            }));
            let mut results = writes.buffer_unordered(CONCURRENT);
            let mut written = Vec::new();
            while let Some((key, object, result)) = results.next().await {
                match result {
                    Ok(true) => report.changed.push(key.clone()),
                    Ok(false) => report.unchanged.push(key.clone()),
                    Err(error) => report.errors.push(ObjectError { object: key.clone(), error }),
                }
                written.push(object);
            }
            drop(results);
            let more = i + 1 < plan.stages.len();
            if report.errors.is_empty() && stage.name == StageName::Definitions {
                report.errors.extend(self.usable(&written, more).await);
            }
            if !report.errors.is_empty() {
                break;
            }
        }
        report.changed.sort();
        report.errors.sort_by(|a, b| a.object.cmp(&b.object));
        report
    }

    /// The fields that the environment will own, if that is known without asking: the door asked, or what
    /// is wanted was written before.
    fn stamped(
        &self,
        key: &ObjectRef,
        object: &Object,
        owned: &HashMap<ObjectRef, ShortDigest>,
    ) -> Option<ShortDigest> {
        owned.get(key).copied().or_else(|| {
            let stamp = self.members(|index| index.get(key)?.live.stamp)?;
            (stamp.desired == ShortDigest::from(object)).then_some(stamp.owned)
        })
    }

    /// Writes one object. Tells whether that changed anything.
    async fn write(
        &self,
        writer: &Writer,
        object: &Object,
        owned: Option<ShortDigest>,
    ) -> Result<bool, Error> {
        let kind = self.kind_of(object).await?;
        let owned = match owned {
            Some(owned) => owned,
            None => self.dry_run(writer, object).await?.0.unwrap_or_else(|| ShortDigest::of(&Value::Null)),
        };
        let key = object.object_ref();
        let before = self.members(|index| index.get(&key).map(|member| member.live.resource_version.clone()));
        let mut answer = self.apply_one(writer, &kind, object, Some(owned), false).await?;
        // An admission webhook may have decided otherwise than at the dry run: the stamp has to say what
        // is, or every look at the object would find drift.
        if let Some(actual) = answer.owned.filter(|actual| *actual != owned) {
            answer = self.apply_one(writer, &kind, object, Some(actual), false).await?;
        }
        self.remember(&answer.value);
        Ok(before.as_deref() != answer.value["metadata"]["resourceVersion"].as_str())
    }

    /// Waits until the kinds and namespaces that were just written can be used.
    async fn usable(&self, written: &[&Object], needed: bool) -> Vec<ObjectError> {
        let mut errors = Vec::new();
        let deadline = Instant::now() + USABLE;
        for object in written {
            if let Some(group) = object.value()["spec"]["group"].as_str() {
                self.forget_kinds(group);
            }
            if needed && let Err(error) = self.wait_usable(object, deadline).await {
                errors.push(ObjectError { object: object.object_ref(), error });
            }
        }
        errors
    }

    async fn wait_usable(&self, object: &Object, deadline: Instant) -> Result<(), Error> {
        let kind = self.kind_of(object).await?;
        let mut pause = Duration::from_millis(20);
        loop {
            let value = self.call(Call::get(Target::object(&kind, None, object.name()))).await?;
            if is_usable(&value) {
                return Ok(());
            }
            if Instant::now() + pause > deadline {
                return Err(Error::Unavailable {
                    verb: "make usable".to_owned(),
                    what: object.object_ref().to_string(),
                    attempts: 1,
                    message: format!("it was not ready after {USABLE:?}"),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// A namespace that is not being deleted, or a definition whose kind is served.
fn is_usable(object: &Value) -> bool {
    if object["kind"] == "Namespace" {
        return object["status"]["phase"] != "Terminating"
            && object["metadata"]["deletionTimestamp"].is_null();
    }
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}
