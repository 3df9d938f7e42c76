//! Holding a native Deployment at canary size.
//!
//! Kubernetes goes on with a rolling update as soon as new pods are available, and a pod is available
//! once it has been ready for `minReadySeconds`. With that raised beyond any observation, with room for
//! as many more pods as the canary has, and with none of the old ones allowed to go, the rollout stands
//! at that many new, ready pods that take traffic.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::{Object, ObjectRef};

/// How long new pods count as not available while a canary holds, in seconds: a week.
pub const HOLD_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The Deployments that a release rolls out anew and that can be held: in both bundles, with another pod
/// template, and not of the strategy that takes all old pods away first.
pub fn affected(baseline: &[Object], target: &[Object]) -> Vec<ObjectRef> {
    let before: BTreeMap<ObjectRef, &Object> = baseline
        .iter()
        .filter(|object| is_deployment(object))
        .map(|object| (object.object_ref(), object))
        .collect();
    target
        .iter()
        .filter(|object| is_deployment(object) && can_be_held(&object.value()["spec"]))
        .filter(|object| {
            before
                .get(&object.object_ref())
                .is_some_and(|old| old.value()["spec"]["template"] != object.value()["spec"]["template"])
        })
        .map(Object::object_ref)
        .collect()
}

fn is_deployment(object: &Object) -> bool {
    object.gvk().group_kind().is("apps", "Deployment")
}

fn can_be_held(spec: &Value) -> bool {
    spec["strategy"]["type"] != "Recreate" && spec["paused"] != true && spec["replicas"] != 0
}

/// The Deployment as it is written while the canary holds at `pods` new pods.
pub fn overlay(deployment: &Object, pods: u32) -> Object {
    let mut value = deployment.value().clone();
    let spec = &mut value["spec"];
    if !spec.is_object() {
        *spec = Value::Object(Map::new());
    }
    let written = |field: &str| spec[field].as_i64();
    let hold = written("minReadySeconds").unwrap_or(0).max(HOLD_SECONDS);
    // The API server wants it above minReadySeconds; ten minutes is its default.
    let deadline = hold.saturating_add(written("progressDeadlineSeconds").unwrap_or(600).max(1));
    spec["minReadySeconds"] = json!(hold.min(i32::MAX.into()));
    spec["progressDeadlineSeconds"] = json!(deadline.min(i32::MAX.into()));
    let surge = json!({"maxSurge": pods.max(1), "maxUnavailable": 0});
    spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": surge});
    Object::new(value).unwrap_or_else(|_| deployment.clone())
}
