//! The annotations by which ReplicaSets remember their revision and the sizes of their Deployment.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

/// The label that tells the pods of one template from another's.
pub(crate) const HASH: &str = "pod-template-hash";
/// The number of a template in the Deployment's history, counted from 1.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that say nothing about its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// The revision of a ReplicaSet; 0 if it has none.
pub(crate) fn of(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// The number of pods that the Deployment wanted when the ReplicaSet was last sized.
pub(crate) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED).and_then(|value| i32::try_from(value).ok())
}

/// The number of pods that the Deployment allowed when the ReplicaSet was last sized.
pub(crate) fn maximum(set: &ReplicaSet) -> Option<i32> {
    number(set, MAXIMUM).and_then(|value| i32::try_from(value).ok())
}

fn number(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Gives the ReplicaSet of the present template its revision and the Deployment's annotations; true if that
/// changed anything. A ReplicaSet that is used again rises to the newest revision and keeps its former ones as
/// history.
pub(crate) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let present = of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            changed |= put(annotations, key, value.clone());
        }
    }
    if present < revision {
        if present > 0 {
            let mut history = annotations.get(HISTORY).cloned().unwrap_or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&present.to_string());
            annotations.insert(HISTORY.to_owned(), history);
        }
        annotations.insert(REVISION.to_owned(), revision.to_string());
        changed = true;
    }
    changed
}

/// Sets the ReplicaSet's size and notes the Deployment's; true if an annotation changed.
pub(crate) fn set_size(set: &mut ReplicaSet, size: i32, wanted: i32, surge: i32) -> bool {
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(size);
    }
    let annotations = set.metadata.annotations.get_or_insert_default();
    let desired = put(annotations, DESIRED, wanted.to_string());
    let maximum = put(annotations, MAXIMUM, wanted.saturating_add(surge).to_string());
    desired || maximum
}

fn put(annotations: &mut BTreeMap<String, String>, key: &str, value: String) -> bool {
    annotations.insert(key.to_owned(), value.clone()) != Some(value)
}
