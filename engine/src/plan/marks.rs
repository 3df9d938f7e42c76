//! The marks that tell an environment's objects, and whether they are as they were written.
//!
//! Every object carries the label of its ApplySet (KEP-3659) and an annotation with two short digests:
//! of the object that was wanted, and of the set of fields that the environment owned after the write,
//! as `managedFields` has it. Whoever changes a value that the environment owns takes the ownership of
//! that field, so the second digest no longer agrees: drift is seen whatever the field, without the
//! object being remembered.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::object::{Digest, Object, ObjectRef};

/// Label of a member: the id of the ApplySet that it is part of.
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// Label of an ApplySet's parent: its id.
pub const APPLYSET_ID: &str = "applyset.kubernetes.io/id";
/// Annotation of an ApplySet's parent: the tool that manages it, with its version.
pub const APPLYSET_TOOLING: &str = "applyset.kubernetes.io/tooling";
/// Annotation of an ApplySet's parent: the kinds of its members, sorted and separated by commas.
pub const APPLYSET_GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Annotation of a member: its [`Stamp`].
pub const APPLIED: &str = "holdfast.dev/applied";
/// Annotation with which a team keeps an object that Git no longer has: `disabled`.
pub const PRUNE: &str = "holdfast.dev/prune";
/// Annotation with which a team approves in advance that an object may be deleted: `true`.
pub const ALLOW_DELETION: &str = "holdfast.dev/allow-deletion";
/// Annotation that stops automatic rollbacks of the whole environment: `forbidden`.
pub const FORBID_ROLLBACK: &str = "holdfast.dev/rollback";

/// The id of the ApplySet whose parent is this object:
/// `applyset-<base64url(sha256(<name>.<namespace>.<kind>.<group>))>-v1` (KEP-3659).
pub fn applyset_id(parent: &ObjectRef) -> String {
    let namespace = parent.namespace.as_deref().unwrap_or_default();
    let identity = format!("{}.{}.{}.{}", parent.name, namespace, parent.kind, parent.group);
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(Sha256::digest(identity.as_bytes())))
}

/// How an environment marks what it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// Id of the environment's ApplySet.
    pub part_of: String,
    /// Field manager of the environment: `holdfast/<namespace>/<name>`.
    pub field_manager: String,
}

impl Marks {
    /// The longest name of a field manager that the API server takes, in bytes.
    const MANAGER_LENGTH: usize = 128;

    /// The marks of an Environment.
    pub fn of_environment(namespace: &str, name: &str) -> Self {
        let parent = ObjectRef {
            group: "holdfast.dev".to_owned(),
            kind: "Environment".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        let mut field_manager = format!("holdfast/{namespace}/{name}");
        if field_manager.len() > Self::MANAGER_LENGTH {
            // Two long names may begin alike: a digest keeps them apart.
            let digest = Digest::of_bytes(field_manager.as_bytes()).short();
            field_manager
                .truncate(field_manager.floor_char_boundary(Self::MANAGER_LENGTH - digest.len() - 1));
            field_manager = format!("{field_manager}-{digest}");
        }
        Self { part_of: applyset_id(&parent), field_manager }
    }
}

/// The first 64 bits of a digest: enough to tell two states of one object apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortDigest(u64);

impl ShortDigest {
    /// The digest of a value's canonical JSON, shortened.
    pub fn of(value: &Value) -> Self {
        Digest::of(value).into()
    }
}

impl From<Digest> for ShortDigest {
    fn from(digest: Digest) -> Self {
        // Sixteen hexadecimal digits always fit.
        Self(u64::from_str_radix(&digest.hex()[..16], 16).unwrap_or_default())
    }
}

impl fmt::Display for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The value of [`APPLIED`]: what was wanted, and what was owned once it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Of the wanted object, before it was marked.
    pub desired: ShortDigest,
    /// Of the fields that the environment owned after the write.
    pub owned: ShortDigest,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.desired, self.owned)
    }
}

/// The text is not two short digests with a dot between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stamp is two times 16 hexadecimal digits with a dot between them")]
pub struct ParseStampError;

impl FromStr for Stamp {
    type Err = ParseStampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |text: &str| {
            let valid =
                text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            valid
                .then(|| u64::from_str_radix(text, 16).ok())
                .flatten()
                .map(ShortDigest)
                .ok_or(ParseStampError)
        };
        let (desired, owned) = text.split_once('.').ok_or(ParseStampError)?;
        Ok(Self { desired: half(desired)?, owned: half(owned)? })
    }
}

/// The set of fields that a manager owns by server-side apply, as a digest of its `managedFields` entry.
pub fn owned_fields(live: &Value, manager: &str) -> Option<Digest> {
    applied_fields(live, manager).map(Digest::of)
}

/// The set of fields that a manager owns by server-side apply, as `managedFields` has it.
pub(super) fn applied_fields<'a>(live: &'a Value, manager: &str) -> Option<&'a Value> {
    let entry = live["metadata"]["managedFields"].as_array()?.iter().find(|entry| {
        entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    })?;
    entry.get("fieldsV1")
}

/// The object as it is sent: with the environment's label and its stamp.
///
/// A dry run is sent without `owned`, which nobody knows yet; its answer has the same set of owned fields
/// as the real write will have, because the value of an annotation does not change that set.
pub fn stamp(object: &Object, marks: &Marks, desired: ShortDigest, owned: Option<ShortDigest>) -> Object {
    let mut marked = object.clone();
    marked.set_label(PART_OF, &marks.part_of);
    let value = match owned {
        Some(owned) => Stamp { desired, owned }.to_string(),
        None => format!("{desired}.unknown"),
    };
    marked.set_annotation(APPLIED, &value);
    marked
}
