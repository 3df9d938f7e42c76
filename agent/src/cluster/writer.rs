//! In whose name an environment writes, and one server-side apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::object::{Object, ObjectRef};
use engine::plan::{Marks, ShortDigest, keep_scale, owned_fields, stamp};
use serde_json::Value;

use super::environments::environment_kind;
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
        Self::new(environment, &environment.marks())
    }

    /// The writer of an Environment whose marks are at hand.
    pub fn new(environment: &Environment, marks: &Marks) -> Self {
        Self { marks: marks.clone(), user: environment.impersonated(), conflicts: environment.spec.conflicts }
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
        let live = self.members(|index| index.get(&object.object_ref()).map(|member| member.live.clone()));
        let mut sent = keep_scale(stamp(object, &writer.marks, desired, owned), live.as_ref());
        let mut left = Vec::new();
        let mut conflicts = 0;
        loop {
            let target = Target::object(kind, object.namespace(), object.name());
            let force = writer.conflicts == ConflictsSpec::Take;
            let mut call = Call::apply(target, sent.value(), &writer.marks.field_manager, force)
                .with("fieldValidation", "Strict")
                .on_behalf_of(writer.user.as_deref());
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
    pub(crate) async fn kind_of(&self, object: &Object) -> Result<Arc<Kind>, Error> {
        let gvk = object.gvk();
        self.kind(&gvk).await?.ok_or(Error::UnknownKind(gvk))
    }

    /// The data of a Secret; the values must not reach logs or messages.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let kind = Kind::known("v1", "Secret", "secrets");
        let secret = self.call(Call::get(Target::object(&kind, Some(namespace), name))).await?;
        let data = secret["data"].as_object();
        let entries = data.into_iter().flatten().map(|(key, value)| {
            let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            decoded.map(|bytes| (key.clone(), bytes)).ok_or_else(|| Error::Malformed {
                what: format!("Secret {namespace}/{name}"),
                message: format!("the value of {key} is not base64"),
            })
        });
        entries.collect()
    }

    /// Reads an Environment, or nothing if it does not exist.
    ///
    /// # Errors
    /// When the API server cannot be asked, or the object cannot be read.
    pub async fn environment(&self, namespace: &str, name: &str) -> Result<Option<Arc<Environment>>, Error> {
        let kind = environment_kind();
        match self.call(Call::get(Target::object(&kind, Some(namespace), name))).await {
            Ok(value) => serde_json::from_value(value)
                .map(|environment| Some(Arc::new(environment)))
                .map_err(|error| Error::Malformed {
                    what: format!("Environment {namespace}/{name}"),
                    message: error.to_string(),
                }),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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
