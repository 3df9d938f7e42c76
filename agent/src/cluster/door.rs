//! All or nothing at the door: every object is dry-run on the server before the first write, and all
//! errors are reported together.

use std::collections::{BTreeSet, HashMap};

use engine::object::{GroupKind, Object, ObjectRef};
use engine::plan::{Marks, Plan, ShortDigest};
use futures::StreamExt;

use super::Cluster;
use super::error::{Error, FieldOwner, ObjectError};
use super::pods::controller_uid;
use super::writer::Writer;
use crate::api::Environment;

/// How many requests of one environment are under way at most.
pub(crate) const CONCURRENT: usize = 32;

impl Cluster {
    /// Dry-runs every write of a plan over `objects`, which are all that is wanted: what a bundle brings
    /// itself is not missed. The answer has, for each object that could be dry-run, the fields that the
    /// environment will own, for its stamp. Objects in a namespace or of a kind that the bundle itself
    /// brings are dry-run just before they are written.
    ///
    /// # Errors
    /// Everything that the server refuses, sorted by object.
    pub async fn check(
        &self,
        environment: &Environment,
        marks: &Marks,
        objects: &[Object],
        plan: &Plan,
    ) -> Result<HashMap<ObjectRef, ShortDigest>, Vec<ObjectError>> {
        let writer = &Writer::new(environment, marks);
        let namespaces = brought_namespaces(objects);
        let kinds = brought_kinds(objects);
        let writes = plan.stages.iter().flat_map(|stage| &stage.writes);
        let writes = writes.filter_map(|write| Some((&write.object, objects.get(write.index)?)));
        // Collected, so that no borrowing closure lives across an await: the future must be Send.
        let runs: Vec<_> =
            writes.map(|(key, object)| async move { (key, self.dry_run(writer, object).await) }).collect();
        let mut owned = HashMap::new();
        let mut errors = Vec::new();
        let mut results = futures::stream::iter(runs).buffer_unordered(CONCURRENT);
        while let Some((key, result)) = results.next().await {
            match result {
                Ok((fields, left)) => {
                    owned.extend(fields.map(|fields| (key.clone(), fields)));
                    for FieldOwner { field, manager } in left {
                        tracing::info!(environment = %environment.key(), object = %key, field, manager, "left to its owner");
                    }
                }
                Err(Error::UnknownKind(gvk)) if kinds.contains(&gvk.group_kind()) => {}
                // The dry run of the Namespace does not make it.
                Err(Error::NotFound { .. })
                    if key.namespace.as_ref().is_some_and(|namespace| namespaces.contains(namespace)) => {}
                Err(error) => errors.push(ObjectError { object: key.clone(), error }),
            }
        }
        errors.sort_by(|a, b| a.object.cmp(&b.object));
        if errors.is_empty() { Ok(owned) } else { Err(errors) }
    }

    pub(crate) async fn dry_run(
        &self,
        writer: &Writer,
        object: &Object,
    ) -> Result<(Option<ShortDigest>, Vec<FieldOwner>), Error> {
        let kind = self.kind_of(object).await?;
        let answer = self.apply_one(writer, &kind, object, None, true).await?;
        // An object with a controller is made from another one: the two would undo each other's work.
        if controller_uid(&answer.value).is_some() {
            return Err(Error::Invalid {
                what: object.object_ref().to_string(),
                message: "another object controls it: take it out of Git, or choose another name".to_owned(),
                immutable: false,
            });
        }
        Ok((answer.owned, answer.left))
    }
}

fn brought_namespaces(bundle: &[Object]) -> BTreeSet<String> {
    let namespaces = bundle.iter().filter(|object| object.gvk().group_kind().is("", "Namespace"));
    namespaces.map(|object| object.name().to_owned()).collect()
}

/// The kinds that a bundle's own CustomResourceDefinitions define.
fn brought_kinds(bundle: &[Object]) -> BTreeSet<GroupKind> {
    bundle
        .iter()
        .filter(|object| object.gvk().group_kind().is("apiextensions.k8s.io", "CustomResourceDefinition"))
        .filter_map(|object| {
            let spec = &object.value()["spec"];
            Some(GroupKind::new(spec["group"].as_str()?, spec["names"]["kind"].as_str()?))
        })
        .collect()
}
