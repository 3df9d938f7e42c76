//! What is remembered of an object in the cluster.

use serde_json::Value;

use super::marks::{ALLOW_DELETION, APPLIED, PART_OF, PRUNE, ShortDigest, Stamp, applied_fields};
use crate::object::{Object, ObjectRef};

/// What is remembered of an object in the cluster: enough to plan, and not the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Which object.
    pub object: ObjectRef,
    /// Its unique identifier: a deleted object that is made again has another one.
    pub uid: String,
    /// The version that was seen.
    pub resource_version: String,
    /// Id of the ApplySet that it is part of.
    pub part_of: Option<String>,
    /// Its stamp, where it has a readable one.
    pub stamp: Option<Stamp>,
    /// The fields that the environment owns now; none if it owns none.
    pub owned: Option<ShortDigest>,
    /// How many pods it is scaled to, where the environment owns that number.
    pub replicas: Option<i64>,
    /// Whether its team wants it to be kept when Git no longer has it.
    pub prune_disabled: bool,
    /// Whether its team approved in advance that it may be deleted.
    pub deletion_allowed: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether a controller owns it: such an object is never a member, whatever labels it was given.
    pub controlled: bool,
}

impl Live {
    /// Reads what matters from an object as the API server has it. None if it is not an object at all.
    pub fn from_value(value: &Value, field_manager: &str) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &value["metadata"];
        let annotation = |key: &str| metadata["annotations"][key].as_str();
        let owners = metadata["ownerReferences"].as_array();
        let api_version = value["apiVersion"].as_str().filter(|text| !text.is_empty())?;
        let owned = applied_fields(value, field_manager);
        let object = ObjectRef {
            group: api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: value["kind"].as_str().filter(|text| !text.is_empty())?.to_owned(),
            namespace: metadata["namespace"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
            name: metadata["name"].as_str().filter(|text| !text.is_empty())?.to_owned(),
        };
        Some(Self {
            object,
            uid: text(&metadata["uid"]),
            resource_version: text(&metadata["resourceVersion"]),
            part_of: metadata["labels"][PART_OF].as_str().map(str::to_owned),
            stamp: annotation(APPLIED).and_then(|stamp| stamp.parse().ok()),
            owned: owned.map(ShortDigest::of),
            replicas: owned.and_then(|fields| {
                fields["f:spec"].get("f:replicas")?;
                value["spec"]["replicas"].as_i64()
            }),
            prune_disabled: annotation(PRUNE) == Some("disabled"),
            deletion_allowed: annotation(ALLOW_DELETION) == Some("true"),
            terminating: !metadata["deletionTimestamp"].is_null(),
            controlled: owners.into_iter().flatten().any(|owner| owner["controller"] == true),
        })
    }

    /// Whether the object is what was wanted, and nobody changed a field that the environment owns.
    pub fn is_intact(&self, desired: ShortDigest) -> bool {
        self.stamp.is_some_and(|stamp| stamp.desired == desired && Some(stamp.owned) == self.owned)
    }
}

impl From<&Object> for ShortDigest {
    /// The digest of a wanted object, before it is marked.
    fn from(object: &Object) -> Self {
        Self::of(object.value())
    }
}
