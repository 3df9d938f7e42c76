//! The PodDisruptionBudget controller: how many pods may be evicted now.
//!
//! Rules: Kubernetes' `pkg/controller/disruption/disruption.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use crate::Error;
use crate::cluster::Cluster;
use crate::deployment::math::share;
use crate::meta::{self, Key};
use crate::queue::Outcome;

const CONDITION: &str = "DisruptionAllowed";
/// How long an announced eviction is waited for before the pod counts as staying.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);

/// The sizes that the managers of pods want, by the managers' uids.
type Sizes = BTreeMap<String, i32>;

/// The status of a budget over the pods that it selects.
///
/// # Errors
/// A sentence if the number of wanted pods is not known.
fn judge(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    sizes: &Result<Sizes, String>,
    now: Timestamp,
) -> Result<PodDisruptionBudgetStatus, String> {
    let Some(spec) = &budget.spec else { return Err("the budget has no spec".to_owned()) };
    let total = || -> Result<i32, String> {
        let sizes = sizes.as_ref().map_err(Clone::clone)?;
        Ok(sizes.values().fold(0, |sum: i32, size| sum.saturating_add(*size)))
    };
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = total()?;
            (expected, expected.saturating_sub(share(most, expected, true)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (i32::try_from(pods.len()).unwrap_or(i32::MAX), *least),
        (None, Some(least)) => {
            let expected = total()?;
            (expected, share(least, expected, true))
        }
        (None, None) => (0, 0),
    };
    // Evictions that were admitted, and whose pods have not begun to go yet.
    let announced = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone());
    let mut disrupted = announced.unwrap_or_default();
    disrupted.retain(|name, since| {
        let waits = now.duration_since(since.0) < PATIENCE;
        waits && pods.iter().any(|pod| meta::name(pod.as_ref()) == name && !meta::is_deleting(pod.as_ref()))
    });
    let healthy = pods.iter().filter(|pod| {
        !meta::is_deleting(pod.as_ref())
            && !disrupted.contains_key(meta::name(pod.as_ref()))
            && meta::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { healthy.saturating_sub(desired).max(0) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    Ok(PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: conditions(budget, allowed > 0, reason, String::new(), now),
    })
}

fn conditions(
    budget: &PodDisruptionBudget,
    value: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let status = if value { "True" } else { "False" };
    let mut all = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let before = all.iter().position(|condition| condition.type_ == CONDITION).map(|index| all.remove(index));
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time);
    all.push(Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(|| meta::seconds(now)),
        observed_generation: budget.metadata.generation,
    });
    Some(all)
}

/// Whether the budget selects the pod: an empty selector selects all of the namespace, none selects nothing.
pub(crate) fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    selector(budget).is_some_and(|selector| {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        selector.matches(&labels)
    })
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::try_from(budget.spec.as_ref()?.selector.clone()?).ok()
}

/// Brings one budget's status up to date.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(budget) = cluster.budgets.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let mut pods = cluster.pods.store.in_namespace(&key.namespace);
    pods.retain(|pod| selects(&budget, pod));
    let now = Timestamp::now();
    if pods.is_empty() {
        cluster.events.normal(budget.as_ref(), "NoPods", "No matching pods found".to_owned());
    }
    let sizes = sizes(cluster, &key.namespace, &pods);
    let status = judge(&budget, &pods, &sizes, now).unwrap_or_else(|error| {
        let message = format!("Failed to calculate the number of expected pods: {error}");
        cluster.events.warning(budget.as_ref(), "CalculateExpectedPodCountFailed", message);
        // What is not known is not allowed.
        PodDisruptionBudgetStatus {
            disruptions_allowed: Some(0),
            observed_generation: budget.metadata.generation,
            conditions: conditions(&budget, false, "SyncFailed", error, now),
            ..budget.status.clone().unwrap_or_default()
        }
    });
    let waits = status.disrupted_pods.as_ref().is_some_and(|pods: &BTreeMap<String, Time>| !pods.is_empty());
    if budget.status.as_ref() != Some(&status) {
        let next = PodDisruptionBudget { status: Some(status), ..budget.as_ref().clone() };
        cluster.budgets.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(waits.then_some(Duration::from_secs(120))))
}

/// The sizes that the pods' managers want. Pods without a manager have none.
fn sizes(cluster: &Cluster, namespace: &str, pods: &[Arc<Pod>]) -> Result<Sizes, String> {
    let mut sizes = Sizes::new();
    for pod in pods {
        let Some(owner) = meta::controller_of(&pod.metadata) else { continue };
        if sizes.contains_key(&owner.uid) {
            continue;
        }
        let (uid, size) = size_of(cluster, namespace, owner).ok_or_else(|| {
            format!("found no controllers with a scale for pod {:?}", meta::name(pod.as_ref()))
        })?;
        sizes.insert(uid, size);
    }
    Ok(sizes)
}

fn size_of(cluster: &Cluster, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    match owner.kind.as_str() {
        "StatefulSet" => {
            let set = cluster.stateful_sets.store.get(namespace, &owner.name)?;
            Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
        }
        "ReplicaSet" => {
            let set = cluster.replica_sets.store.get(namespace, &owner.name)?;
            match meta::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
                // Pods of several revisions are pods of one Deployment.
                Some(above) => {
                    let deployment = cluster.deployments.store.get(namespace, &above.name)?;
                    Some((above.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
                }
                None => Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1))),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let budget = json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status});
        serde_json::from_value(budget).unwrap()
    }

    /// `r` is ready, `n` is not, `d` is ready and goes.
    fn pods(states: &str) -> Vec<Arc<Pod>> {
        let pod = |(number, state): (usize, char)| {
            let ready = if state == 'n' { "False" } else { "True" };
            let mut pod = json!({"metadata": {"name": format!("p{number}")},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            if state == 'd' {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:09:59Z");
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        states.chars().enumerate().map(pod).collect()
    }

    #[test]
    fn budgets_count() {
        // spec, pods, wanted size; expected, desired, healthy, allowed
        for (spec, states, size, counts) in [
            (json!({"minAvailable": 2}), "rrr", 3, (3, 2, 3, 1)),
            (json!({"minAvailable": 2}), "rrn", 3, (3, 2, 2, 0)),
            (json!({"minAvailable": 2}), "rrrd", 3, (4, 2, 3, 1)),
            (json!({"minAvailable": "50%"}), "rrr", 3, (3, 2, 3, 1)),
            (json!({"maxUnavailable": 1}), "rrr", 3, (3, 2, 3, 1)),
            (json!({"maxUnavailable": 1}), "rr", 3, (3, 2, 2, 0)),
            (json!({"maxUnavailable": "30%"}), "rrr", 3, (3, 2, 3, 1)),
            (json!({"maxUnavailable": "100%"}), "rrr", 3, (3, 0, 3, 3)),
            (json!({"maxUnavailable": 1}), "", 0, (0, 0, 0, 0)),
            (json!({"minAvailable": 9}), "rrr", 3, (3, 9, 3, 0)),
        ] {
            let sizes = Ok(Sizes::from([("owner".to_owned(), size)]));
            let status = judge(&budget(spec.clone(), json!({})), &pods(states), &sizes, now()).unwrap();
            let found = [
                status.expected_pods,
                status.desired_healthy,
                status.current_healthy,
                status.disruptions_allowed,
            ];
            let (expected, desired, healthy, allowed) = counts;
            assert_eq!(found, [expected, desired, healthy, allowed].map(Some), "{spec} {states}");
            assert_eq!(status.observed_generation, Some(3));
            let condition = &status.conditions.unwrap()[0];
            let told = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), told);
        }
    }

    #[test]
    fn an_announced_eviction_counts_until_it_is_late() {
        for (since, allowed) in [("2026-01-01T00:09:30Z", 0), ("2026-01-01T00:07:30Z", 1)] {
            let status = json!({"disruptedPods": {"p0": since}});
            let budget = budget(json!({"minAvailable": 2}), status);
            let status = judge(&budget, &pods("rrr"), &Ok(Sizes::new()), now()).unwrap();
            assert_eq!(status.disruptions_allowed, Some(allowed), "{since}");
        }
    }

    #[test]
    fn an_unknown_size_is_an_error_only_where_it_matters() {
        let unknown = Err("who knows".to_owned());
        let by_number = judge(&budget(json!({"minAvailable": 1}), json!({})), &pods("rr"), &unknown, now());
        assert_eq!(by_number.unwrap().disruptions_allowed, Some(1));
        let by_share = judge(&budget(json!({"maxUnavailable": 1}), json!({})), &pods("rr"), &unknown, now());
        assert_eq!(by_share.unwrap_err(), "who knows");
    }
}
