//! All or nothing at the door: every object is dry-run on the server before the first write, and all
//! errors are reported together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use engine::object::{GroupKind, Object, ObjectRef};
use engine::plan::{Plan, ShortDigest};
use futures::StreamExt;

use super::Cluster;
use super::error::{Error, FieldOwner, ObjectError};
use super::pods::controller_uid;
use super::writer::Writer;

/// How many requests of one environment are under way at most.
pub(crate) const CONCURRENT: usize = 32;

/// What the dry runs said.
#[derive(Debug, Default)]
pub struct Checked {
    /// For each object that passed: the fields that the environment will own, for its stamp.
    pub owned: HashMap<ObjectRef, ShortDigest>,
    /// Fields that will be left to others.
    pub left: Vec<(ObjectRef, FieldOwner)>,
    /// Objects that cannot be dry-run before something else of the bundle exists: their namespace or
    /// their kind. They are dry-run just before they are written.
    pub unchecked: BTreeSet<ObjectRef>,
    /// Everything that the server refuses, sorted by object.
    pub errors: Vec<ObjectError>,
}

impl Checked {
    /// Whether the server refuses nothing.
    pub fn passed(&self) -> bool {
        self.errors.is_empty()
    }

    /// All errors in one text, a line for each object.
    pub fn message(&self) -> String {
        let lines: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// Whether all errors may pass by themselves.
    pub fn is_transient(&self) -> bool {
        self.errors.iter().all(|error| error.error.is_transient())
    }
}

impl Cluster {
    /// Dry-runs every write of a plan. `bundle` is all that is wanted: what it brings itself is not missed.
    pub async fn check(&self, writer: &Writer, plan: &Plan, bundle: &[Object]) -> Checked {
        let namespaces = brought_namespaces(bundle);
        let kinds = brought_kinds(bundle);
        let writes = plan.stages.iter().flat_map(|stage| &stage.writes);
        let objects = writes.filter_map(|write| Some((&write.object, bundle.get(write.index)?)));
        let runs = futures::stream::iter(
            objects.map(|(key, object)| async move { (key, self.dry_run(writer, object).await) }),
        );
        let mut checked = Checked::default();
        let mut results = runs.buffer_unordered(CONCURRENT);
        while let Some((key, result)) = results.next().await {
            match result {
                Ok((owned, left)) => {
                    checked.owned.extend(owned.map(|owned| (key.clone(), owned)));
                    checked.left.extend(left.into_iter().map(|owner| (key.clone(), owner)));
                }
                Err(Error::UnknownKind(gvk)) if kinds.contains_key(&gvk.group_kind()) => {
                    checked.unchecked.insert(key.clone());
                }
                // The dry run of the Namespace does not make it.
                Err(Error::NotFound { .. })
                    if key.namespace.as_ref().is_some_and(|namespace| namespaces.contains(namespace)) =>
                {
                    checked.unchecked.insert(key.clone());
                }
                Err(error) => checked.errors.push(ObjectError { object: key.clone(), error }),
            }
        }
        checked.errors.sort_by(|a, b| a.object.cmp(&b.object));
        checked.left.sort_by(|a, b| (&a.0, &a.1.field).cmp(&(&b.0, &b.1.field)));
        checked
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

/// The kinds that a bundle's own CustomResourceDefinitions define, and whether they are namespaced.
pub(crate) fn brought_kinds(bundle: &[Object]) -> BTreeMap<GroupKind, bool> {
    bundle
        .iter()
        .filter(|object| object.gvk().group_kind().is("apiextensions.k8s.io", "CustomResourceDefinition"))
        .filter_map(|object| {
            let spec = &object.value()["spec"];
            let kind = GroupKind::new(spec["group"].as_str()?, spec["names"]["kind"].as_str()?);
            Some((kind, spec["scope"] == "Namespaced"))
        })
        .collect()
}
