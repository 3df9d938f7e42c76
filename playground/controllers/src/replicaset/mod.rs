//! The ReplicaSet controller: as many pods as wanted, no more and no less.

mod rank;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

pub(crate) use rank::in_order_of_deletion;

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Claim, Key};
use crate::queue::Outcome;

/// The most pods that one look creates or deletes, as in Kubernetes.
const BURST: usize = 500;

/// A decision about the pods of one ReplicaSet.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many pods to create.
    pub create: usize,
    /// Which pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The counts before those writes.
    pub status: ReplicaSetStatus,
    /// When a ready pod will have been ready for long enough.
    pub again: Option<Duration>,
}

/// Decides for a ReplicaSet with the pods that it owns.
pub(crate) fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| meta::is_active(pod)).cloned().collect();
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let (status, again) = status(set, pods, &active, now);
    let mut plan = Plan { create: 0, delete: Vec::new(), status, again };
    if meta::is_deleting(set) {
        return plan;
    }
    if active.len() < wanted {
        plan.create = (wanted - active.len()).min(BURST);
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        plan.delete = in_order_of_deletion(active, now).into_iter().take(surplus).collect();
    }
    plan
}

fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    active: &[Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let count = |number: usize| Some(i32::try_from(number).unwrap_or(i32::MAX)).filter(|number| *number > 0);
    let waits: Vec<i64> = active.iter().filter_map(|pod| meta::available_in(pod, min_ready, now)).collect();
    let fully_labeled = active
        .iter()
        .filter(|pod| {
            labels.is_none_or(|labels| {
                labels.iter().all(|(key, value)| {
                    pod.metadata.labels.as_ref().and_then(|all| all.get(key)) == Some(value)
                })
            })
        })
        .count();
    let terminating =
        pods.iter().filter(|pod| meta::is_deleting(pod.as_ref()) && !meta::is_terminal(pod)).count();
    let status = ReplicaSetStatus {
        replicas: count(active.len()).unwrap_or(0),
        fully_labeled_replicas: count(fully_labeled),
        ready_replicas: count(waits.len()),
        available_replicas: count(waits.iter().filter(|wait| **wait == 0).count()),
        terminating_replicas: Some(count(terminating).unwrap_or(0)),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let again = waits.iter().filter(|wait| **wait > 0).min().map(|wait| {
        // The API's times are whole seconds, so the wait is rounded up to one.
        Duration::from_secs(u64::try_from(*wait).unwrap_or(1))
    });
    (status, again)
}

/// Brings one ReplicaSet a step further.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(set) = cluster.replica_sets.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let Some(spec) = &set.spec else { return Ok(Outcome::Settled) };
    let selector = meta::selector_of(set.as_ref(), &spec.selector)?;
    let pods = claim_pods(cluster, set.as_ref(), selector.as_ref(), &key.namespace).await?;
    let plan = plan(&set, &pods, Timestamp::now());
    let failure = carry_out(cluster, &set, &plan).await.err();
    let mut status = plan.status;
    status.conditions = failure_condition(&set, failure.as_ref(), plan.create > 0);
    let latest = cluster.replica_sets.store.get(&key.namespace, &key.name).unwrap_or(set);
    if latest.status.as_ref() != Some(&status) {
        let mut next = latest.as_ref().clone();
        next.status = Some(status);
        match cluster.replica_sets.replace_status(&next).await {
            Err(error) if error.is_not_found() => return Ok(Outcome::Settled),
            result => result?,
        };
    }
    match failure {
        Some(error) if error.is_not_found() || is_namespace_terminating(&error) => Ok(Outcome::Settled),
        Some(error) => Err(error),
        None => Ok(Outcome::Settled.or_after(plan.again)),
    }
}

/// The pods that `owner` manages, after adopting matching ones and letting go of those that match no more.
pub(crate) async fn claim_pods<K>(
    cluster: &Cluster,
    owner: &K,
    selector: Option<&kube::core::Selector>,
    namespace: &str,
) -> Result<Vec<Arc<Pod>>, Error>
where
    K: kube::Resource<DynamicType = ()>,
{
    let mut pods = Vec::new();
    for pod in cluster.pods.store.in_namespace(namespace) {
        match meta::claim(owner, selector, &pod.metadata) {
            Claim::Own => pods.push(pod),
            Claim::Adopt if meta::is_terminal(&pod) => {}
            Claim::Adopt => {
                let patch = meta::adoption(owner, &pod.metadata);
                pods.push(Arc::new(cluster.pods.merge(&pod, &patch).await?));
            }
            Claim::Release => {
                cluster.pods.merge(&pod, &meta::release(owner, &pod.metadata)).await?;
            }
            Claim::Foreign => {}
        }
    }
    Ok(pods)
}

/// Creates and deletes. Batches of doubling size, so that a quota or a broken template costs few requests.
async fn carry_out(cluster: &Cluster, set: &ReplicaSet, plan: &Plan) -> Result<(), Error> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let pod = meta::pod_from_template(set, template);
    let namespace = meta::namespace(set);
    let mut left = plan.create;
    let mut batch = 1;
    while left > 0 {
        let size = batch.min(left);
        let results = join_all((0..size).map(|_| cluster.pods.create(namespace, &pod))).await;
        for result in results {
            match result {
                Ok(created) => {
                    let message = format!("Created pod: {}", meta::name(&created));
                    cluster.events.normal(set, "SuccessfulCreate", message);
                }
                Err(error) => {
                    if !error.is_not_found() && !is_namespace_terminating(&error) {
                        cluster.events.warning(set, "FailedCreate", format!("Error creating: {error}"));
                    }
                    return Err(error);
                }
            }
        }
        left -= size;
        batch *= 2;
    }
    for result in join_all(plan.delete.iter().map(|pod| cluster.pods.delete(pod))).await {
        result?;
    }
    for pod in &plan.delete {
        let message = format!("Deleted pod: {}", meta::name(pod.as_ref()));
        cluster.events.normal(set, "SuccessfulDelete", message);
    }
    Ok(())
}

pub(crate) fn is_namespace_terminating(error: &Error) -> bool {
    error.code() == Some(403) && error.to_string().contains("being terminated")
}

fn failure_condition(
    set: &ReplicaSet,
    failure: Option<&Error>,
    creating: bool,
) -> Option<Vec<ReplicaSetCondition>> {
    const KIND: &str = "ReplicaFailure";
    let mut list = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    match failure {
        Some(error) if !error.is_conflict() => {
            if !list.iter().any(|condition| condition.type_ == KIND) {
                list.push(ReplicaSetCondition {
                    type_: KIND.to_owned(),
                    status: "True".to_owned(),
                    reason: Some(if creating { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                    message: Some(error.to_string()),
                    last_transition_time: Some(meta::seconds(Timestamp::now())),
                });
            }
        }
        _ => list.retain(|condition| condition.type_ != KIND),
    }
    Some(list).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, ready_since: Option<&str>, deleting: bool) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": []},
        });
        if let Some(since) = ready_since {
            value["status"]["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        }
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": "s", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready, "selector": {}}}))
        .unwrap()
    }

    #[test]
    fn pods_that_terminate_are_replaced_at_once() {
        let pods = [pod("a", Some("2026-01-01T00:00:00Z"), false), pod("b", None, true)];
        let plan = plan(&set(3, 0), &pods, now());
        assert_eq!(plan.create, 2);
        assert_eq!((plan.status.replicas, plan.status.terminating_replicas), (1, Some(1)));
    }

    #[test]
    fn a_pod_is_available_only_after_min_ready_seconds() {
        let pods =
            [pod("a", Some("2026-01-01T00:59:50Z"), false), pod("b", Some("2026-01-01T00:59:20Z"), false)];
        let plan = plan(&set(2, 30), &pods, now());
        assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(2), Some(1)));
        assert_eq!(plan.again, Some(Duration::from_secs(20)));
    }

    #[test]
    fn the_pod_that_serves_nobody_goes_first() {
        let pods = [pod("a", Some("2026-01-01T00:00:00Z"), false), pod("b", None, false)];
        let plan = plan(&set(1, 0), &pods, now());
        assert_eq!(plan.delete.iter().map(|pod| meta::name(pod.as_ref())).collect::<Vec<_>>(), ["b"]);
    }
}
