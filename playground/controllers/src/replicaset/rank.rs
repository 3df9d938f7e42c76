//! Which pods go first when there are too many (ActivePodsWithRanks in Kubernetes' pkg/controller).

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::meta;

/// The pods sorted so that those whose loss costs least come first: not assigned, pending, not ready, cheap by
/// annotation, ready for a shorter time, restarted more often, newer.
pub(crate) fn in_order_of_deletion(mut pods: Vec<Arc<Pod>>, now: Timestamp) -> Vec<Arc<Pod>> {
    pods.sort_by(|a, b| compare(a, b, now));
    pods
}

fn compare(a: &Pod, b: &Pod, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty())
    };
    let phase = |pod: &Pod| match meta::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| meta::is_ready(a).cmp(&meta::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| by_age(meta::ready_since(a), meta::ready_since(b), now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| by_age(created(a), created(b), now))
        .then_with(|| meta::uid(a).cmp(meta::uid(b)))
}

/// The younger first. Ages are compared by order of magnitude (base 2), so that of pods of a similar age any
/// may go: that spreads what a scale-down takes over the nodes.
fn by_age(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Timestamp| {
        let age = now.as_second().saturating_sub(time.as_second());
        if age > 0 { i64::from(age.ilog2()) } else { -1 }
    };
    match (a, b) {
        (Some(a), Some(b)) => magnitude(a).cmp(&magnitude(b)),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn cost(pod: &Pod) -> i32 {
    pod.metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, extra: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        json_merge(&mut value, extra);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn json_merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    json_merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    #[test]
    fn the_order_is_that_of_kubernetes() {
        let ready = |since: &str| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        let pods = vec![
            pod("h-oldest", json!({})),
            pod(
                "g-restarted",
                json!({"status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
            ),
            pod("f-young", json!({"status": {"conditions": ready("2026-01-01T00:59:58Z")}})),
            pod(
                "e-cheap",
                json!({"metadata": {"annotations":
                {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}),
            ),
            pod("c-unready", json!({"status": {"conditions": []}})),
            pod("b-pending", json!({"status": {"phase": "Pending"}})),
            pod("a-unassigned", json!({"spec": {"nodeName": null}})),
        ];
        let sorted = in_order_of_deletion(pods, "2026-01-01T01:00:00Z".parse().unwrap());
        assert_eq!(
            sorted.iter().map(|pod| meta::name(pod.as_ref())).collect::<Vec<_>>(),
            ["a-unassigned", "b-pending", "c-unready", "e-cheap", "f-young", "g-restarted", "h-oldest"]
        );
    }
}
