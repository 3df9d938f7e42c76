//! Executing a plan's writes, stage by stage.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use engine::object::{GroupVersionKind, Object, ObjectRef};
use engine::plan::{Marks, Plan, ShortDigest, StageName};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use super::Cluster;
use super::applyset::group_kinds;
use super::door::CONCURRENT;
use super::error::{Error, ObjectError};
use super::request::{Call, Target};
use super::writer::Writer;
use crate::api::{Environment, GROUP};

/// How long a new kind or namespace may take to become usable.
const USABLE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Executes the writes of a plan over `objects`, which are all that is wanted; the answer is how many
    /// objects that created or changed. `owned` is what [`Cluster::check`] said; objects that are not in it
    /// are dry-run now unless they only go back to what was written before. Repeating it does no harm.
    ///
    /// # Errors
    /// The objects that could not be written, sorted. Later stages are not begun when there is one.
    pub async fn apply(
        &self,
        environment: &Environment,
        marks: &Marks,
        objects: &[Object],
        plan: &Plan,
        owned: &HashMap<ObjectRef, ShortDigest>,
    ) -> Result<u32, Vec<ObjectError>> {
        let writer = &Writer::new(environment, marks);
        self.mark(environment, marks, objects).await.map_err(|error| vec![error])?;
        let mut changed = 0;
        for (i, stage) in plan.stages.iter().enumerate() {
            let writes =
                stage.writes.iter().filter_map(|write| Some((&write.object, objects.get(write.index)?)));
            // Collected, so that no borrowing closure lives across an await: the future must be Send.
            let writes: Vec<_> = writes
                .map(|(key, object)| async move {
                    (key, object, self.write(writer, object, self.stamped(key, object, owned)).await)
                })
                .collect();
            let mut results = futures::stream::iter(writes).buffer_unordered(CONCURRENT);
            let mut written = Vec::new();
            let mut errors = Vec::new();
            while let Some((key, object, result)) = results.next().await {
                match result {
                    Ok(news) => changed += u32::from(news),
                    Err(error) => errors.push(ObjectError { object: key.clone(), error }),
                }
                written.push(object);
            }
            drop(results);
            let needed = i + 1 < plan.stages.len();
            if errors.is_empty() && stage.name == StageName::Definitions {
                errors.extend(self.usable(&written, needed).await);
            }
            if !errors.is_empty() {
                errors.sort_by(|a, b| a.object.cmp(&b.object));
                return Err(errors);
            }
        }
        Ok(changed)
    }

    /// Marks the Environment as the parent of what is wanted and of what is still there, before the first
    /// write: an agent that starts in between has to look for both.
    async fn mark(
        &self,
        environment: &Environment,
        marks: &Marks,
        objects: &[Object],
    ) -> Result<(), ObjectError> {
        let wanted = objects.iter().map(Object::object_ref);
        let there = self.members_of(marks).into_iter().map(|live| live.object);
        let (mut kinds, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
        for object in wanted.chain(there) {
            kinds.insert(object.group_kind());
            namespaces.extend(object.namespace);
        }
        // Members of kinds that are not watched yet cannot be told from none at all.
        let marked = group_kinds(environment);
        kinds.extend(
            self.members(|index| {
                marked.into_iter().filter(|kind| !index.is_synced(kind)).collect::<Vec<_>>()
            }),
        );
        self.mark_parent(environment, &kinds, &namespaces).await.map_err(|error| ObjectError {
            object: ObjectRef {
                group: GROUP.to_owned(),
                kind: "Environment".to_owned(),
                namespace: Some(environment.namespace().to_owned()),
                name: environment.name().to_owned(),
            },
            error,
        })
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
        // A kind that this bundle brought could not be watched before.
        self.watch_kinds([kind]);
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

    /// Whether discovery has the kinds of a CustomResourceDefinition: that comes a moment after it is
    /// established.
    async fn is_served(&self, definition: &Value) -> Result<bool, Error> {
        for gvk in served(definition) {
            if self.kind(&gvk).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn wait_usable(&self, object: &Object, deadline: Instant) -> Result<(), Error> {
        let kind = self.kind_of(object).await?;
        let mut pause = Duration::from_millis(20);
        loop {
            let value = self.call(Call::get(Target::object(&kind, None, object.name()))).await?;
            if is_usable(&value) && self.is_served(&value).await? {
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

/// The kinds that a CustomResourceDefinition serves; none for anything else.
fn served(definition: &Value) -> impl Iterator<Item = GroupVersionKind> {
    let spec = &definition["spec"];
    let versions =
        spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    versions.filter_map(|version| {
        Some(GroupVersionKind {
            group: spec["group"].as_str()?.to_owned(),
            version: version["name"].as_str()?.to_owned(),
            kind: spec["names"]["kind"].as_str()?.to_owned(),
        })
    })
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
