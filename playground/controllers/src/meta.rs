//! Small facts about objects that several controllers need.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{Selector, SelectorExt};

use crate::Error;

/// The key of a namespaced object in a work queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    pub fn of<K: Resource>(object: &K) -> Key {
        Key { namespace: namespace(object).to_owned(), name: name(object).to_owned() }
    }
}

pub(crate) fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

pub(crate) fn is_deleting<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// The present as the API writes it: whole seconds.
pub(crate) fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The owner that manages the object, if it has one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` manages the object.
pub(crate) fn is_controlled_by<K: Resource>(meta: &ObjectMeta, owner: &K) -> bool {
    controller_of(meta).is_some_and(|reference| reference.uid == uid(owner))
}

/// A reference that makes `owner` the manager of an object.
pub(crate) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A selector in a form that can be asked; an empty one selects nothing, as for workloads in Kubernetes.
pub(crate) fn selector_of<K: Resource<DynamicType = ()>>(
    owner: &K,
    selector: &LabelSelector,
) -> Result<Option<Selector>, Error> {
    let selector = Selector::try_from(selector.clone()).map_err(|error| Error::Selector {
        object: format!("{} {}/{}", K::kind(&()), namespace(owner), name(owner)),
        message: error.to_string(),
    })?;
    Ok(if selector.selects_all() { None } else { Some(selector) })
}

/// Whether the object's labels satisfy the selector.
pub(crate) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// What a controller does with an object that its selector or its owner references concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is managed by this owner.
    Own,
    /// It matches and nobody manages it: it becomes managed.
    Adopt,
    /// It is managed by this owner but does not match any more: it is let go.
    Release,
    /// It is none of this owner's business.
    Foreign,
}

/// Kubernetes' rules of adoption (pkg/controller/controller_ref_manager.go).
pub(crate) fn claim<K: Resource>(owner: &K, selector: Option<&Selector>, object: &ObjectMeta) -> Claim {
    let matches = selector.is_some_and(|selector| selects(selector, object));
    match controller_of(object) {
        Some(reference) if reference.uid == uid(owner) => {
            if matches || is_deleting(owner) {
                Claim::Own
            } else {
                Claim::Release
            }
        }
        Some(_) => Claim::Foreign,
        None if matches && !is_deleting(owner) && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// The patch that makes `owner` manage the object, if it is still the same object.
pub(crate) fn adoption<K: Resource<DynamicType = ()>>(owner: &K, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != uid(owner));
    owners.push(controlled_by(owner));
    serde_json::json!({"metadata": {
        "uid": object.uid, "resourceVersion": object.resource_version, "ownerReferences": owners,
    }})
}

/// The patch that ends `owner`'s management of the object.
pub(crate) fn release<K: Resource>(owner: &K, object: &ObjectMeta) -> serde_json::Value {
    let mut owners = object.owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != uid(owner));
    serde_json::json!({"metadata": {
        "uid": object.uid, "resourceVersion": object.resource_version, "ownerReferences": owners,
    }})
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor about to go.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

pub(crate) fn pod_condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// When the pod became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod_condition(pod, "Ready")
        .filter(|condition| condition.status == "True")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// Seconds until a ready pod counts as available: 0 if it does, none if it is not ready.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(0);
    }
    let since = ready_since(pod)?;
    let available_at = since.as_second().saturating_add(i64::from(min_ready_seconds));
    Some((available_at - now.as_second()).max(0))
}

/// How a controller's new pod looks: the template with an owner and a generated name.
pub(crate) fn pod_from_template<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: Option<&k8s_openapi::api::core::v1::PodTemplateSpec>,
) -> Pod {
    let meta = template.and_then(|template| template.metadata.clone()).unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(owner))),
            namespace: Some(namespace(owner).to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.and_then(|template| template.spec.clone()),
        status: None,
    }
}

/// A short hash of a template, in the alphabet of generated names (no vowels, so no words).
pub(crate) fn template_hash(
    template: &k8s_openapi::api::core::v1::PodTemplateSpec,
    collisions: Option<i32>,
) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a; the value differs from Kubernetes', which hashes a Go dump of the structure.
    let mut hash: u32 = 0x811c_9dc5;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash ^= u32::from(*byte);
            hash = hash.wrapping_mul(0x0100_0193);
        }
    };
    mix(serde_json::to_string(template).unwrap_or_default().as_bytes());
    if let Some(collisions) = collisions {
        mix(&collisions.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}
