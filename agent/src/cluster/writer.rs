//! In whose name an environment writes, and one server-side apply.

use engine::object::{Object, ObjectRef};
use engine::plan::{Marks, ShortDigest, owned_fields, stamp};
use serde_json::Value;

use super::error::{Error, FieldOwner};
use super::leave::leave_fields;
use super::request::{Call, Target};
use super::{Cluster, Kind};
use crate::api::{ConflictsSpec, Environment};

/// In whose name an environment writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The environment's marks.
    pub marks: Marks,
    /// The user that is impersonated; none to write as the agent itself.
    pub user: Option<String>,
    /// What happens to fields that others own.
    pub conflicts: ConflictsSpec,
}

impl Writer {
    /// The writer of an Environment.
    pub fn of(environment: &Environment) -> Self {
        Self {
            marks: environment.marks(),
            user: environment.impersonated(),
            conflicts: environment.spec.conflicts,
        }
    }
}

/// The answer to an apply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The object as the server has it now, or would have it.
    pub value: Value,
    /// The fields that the environment owns in it.
    pub owned: Option<ShortDigest>,
    /// Fields that were left to their owners.
    pub left: Vec<FieldOwner>,
}

/// How often fields are left to others before giving up: each time names fields that were not known.
const LEAVE_ROUNDS: usize = 5;
/// How often an apply that met another write is repeated.
const CONFLICT_ROUNDS: usize = 5;

impl Cluster {
    /// Applies one object, with the environment's marks. `owned` goes into the stamp; a dry run does not
    /// know it yet.
    pub(crate) async fn apply_one(
        &self,
        writer: &Writer,
        kind: &Kind,
        object: &Object,
        owned: Option<ShortDigest>,
        dry_run: bool,
    ) -> Result<Answer, Error> {
        let desired = ShortDigest::from(object);
        let mut sent = stamp(object, &writer.marks, desired, owned);
        let mut left = Vec::new();
        let mut conflicts = 0;
        loop {
            let target = Target::object(kind, object.namespace(), object.name());
            let force = writer.conflicts == ConflictsSpec::Take;
            let mut call = Call::apply(target, sent.value(), &writer.marks.field_manager, force)
                .with("fieldValidation", "Strict")
                .as_user(writer.user.as_deref());
            if dry_run {
                call = call.dry_run();
            }
            match self.call(call).await {
                Ok(value) => {
                    let owned = owned_fields(&value, &writer.marks.field_manager).map(ShortDigest::from);
                    return Ok(Answer { value, owned, left });
                }
                Err(Error::FieldConflict { what, fields })
                    if writer.conflicts == ConflictsSpec::Yield && left.len() < LEAVE_ROUNDS * 64 =>
                {
                    let Some(less) = leave_fields(&sent, &fields) else {
                        return Err(Error::FieldConflict { what, fields });
                    };
                    sent = less;
                    left.extend(fields);
                }
                // Another write came in between; the server has no opinion about the fields.
                Err(Error::Conflict { .. }) if conflicts < CONFLICT_ROUNDS => conflicts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The object's kind.
    pub(crate) async fn kind_of(&self, object: &Object) -> Result<std::sync::Arc<Kind>, Error> {
        let gvk = object.gvk();
        self.kind(&gvk).await?.ok_or(Error::UnknownKind(gvk))
    }

    /// Puts every object where its kind belongs: namespaced objects without a namespace into `default`,
    /// cluster-wide ones out of any. Objects of unknown kinds stay as they are. The bundle's own
    /// CustomResourceDefinitions count as known.
    ///
    /// # Errors
    /// When the API server cannot be asked for its kinds.
    pub async fn place(&self, objects: &mut [Object], default: &str) -> Result<(), Error> {
        let gvks: Vec<_> = objects.iter().map(Object::gvk).collect();
        let kinds = self.kinds_of(&gvks).await?;
        let brought = super::door::brought_kinds(objects);
        for (object, gvk) in objects.iter_mut().zip(&gvks) {
            let namespaced = kinds
                .get(gvk)
                .map(|kind| kind.namespaced)
                .or_else(|| brought.get(&gvk.group_kind()).copied());
            match namespaced {
                Some(true) if object.namespace().is_none() => object.set_namespace(default),
                Some(false) if object.namespace().is_some() => {
                    let mut value = object.value().clone();
                    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                        metadata.shift_remove("namespace");
                    }
                    *object = Object::new(value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads an object, or nothing if it does not exist.
    ///
    /// # Errors
    /// When the API server cannot be asked, or does not know the kind.
    pub async fn get(&self, object: &ObjectRef) -> Result<Option<Value>, Error> {
        let Some(kind) = self.kind_of_group(&object.group_kind()).await? else { return Ok(None) };
        match self.call(Call::get(Target::object(&kind, object.namespace.as_deref(), &object.name))).await {
            Ok(value) => Ok(Some(value)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
