//! Who decides how many pods there are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Live;
use crate::object::{GroupVersionKind, Object, ObjectRef};

/// Drops `spec.replicas` from every workload that a HorizontalPodAutoscaler of the same bundle scales, so
/// that the two do not fight. Returns the workloads that were changed.
pub fn leave_to_autoscaler(objects: &mut [Object]) -> Vec<ObjectRef> {
    let scaled: BTreeSet<ObjectRef> = objects.iter().filter_map(scale_target).collect();
    let mut changed = Vec::new();
    for object in objects.iter_mut().filter(|object| scaled.contains(&object.object_ref())) {
        let mut value = object.value().clone();
        let dropped = value
            .get_mut("spec")
            .and_then(Value::as_object_mut)
            .and_then(|spec| spec.shift_remove("replicas"));
        if dropped.is_some()
            && let Ok(without) = Object::new(value)
        {
            changed.push(without.object_ref());
            *object = without;
        }
    }
    changed
}

/// The object as it is sent while the number of its pods passes from Git to an autoscaler.
///
/// Server-side apply gives a field that its only owner leaves out its default, which is one pod. So as
/// long as the environment still owns the number, it is sent as it is; once the autoscaler has changed it,
/// it is the autoscaler's alone, and is left out.
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>)
pub fn keep_scale(object: Object, live: Option<&Live>) -> Object {
    let Some(replicas) = live.and_then(|live| live.replicas) else { return object };
    let scaled = object.gvk().group == "apps" && object.value()["spec"].is_object();
    if !scaled || !object.value()["spec"]["replicas"].is_null() {
        return object;
    }
    let mut value = object.value().clone();
    value["spec"]["replicas"] = replicas.into();
    Object::new(value).unwrap_or(object)
}

fn scale_target(object: &Object) -> Option<ObjectRef> {
    if !object.gvk().group_kind().is("autoscaling", "HorizontalPodAutoscaler") {
        return None;
    }
    let target = &object.value()["spec"]["scaleTargetRef"];
    let kind = GroupVersionKind::from_api_version(target["apiVersion"].as_str()?, target["kind"].as_str()?);
    Some(ObjectRef {
        group: kind.group,
        kind: kind.kind,
        namespace: object.namespace().map(str::to_owned),
        name: target["name"].as_str()?.to_owned(),
    })
}
