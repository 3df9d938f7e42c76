//! The DaemonSet controller: one pod on every node that takes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Key};
use crate::queue::Outcome;
use crate::scheduler;
use crate::statefulset::REVISION;

/// A decision about a DaemonSet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Names of nodes that need a pod.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The counts before those writes.
    pub status: DaemonSetStatus,
    /// When a ready pod will have been ready for long enough.
    pub again: Option<Duration>,
}

/// Decides for a DaemonSet with the pods that it owns.
pub(crate) fn plan(set: &DaemonSet, pods: &[Arc<Pod>], nodes: &[Arc<Node>], now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let update = meta::template_hash(&spec.template, None);
    let probe = meta::pod_from_template(set, Some(&spec.template));
    let eligible: Vec<&str> = nodes
        .iter()
        .filter(|node| scheduler::admits(&probe, node))
        .map(|node| meta::name(node.as_ref()))
        .collect();
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        by_node.entry(node).or_default().push(pod);
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let mut plan = Plan::default();
    let (mut scheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0);
    let mut outdated = Vec::new();
    for node in &eligible {
        let here = by_node.remove(*node).unwrap_or_default();
        let mut live: Vec<&Arc<Pod>> = here.iter().copied().filter(|pod| meta::is_active(pod)).collect();
        live.sort_by_key(|pod| {
            (pod.metadata.creation_timestamp.clone(), meta::name(pod.as_ref()).to_owned())
        });
        // Ended ones make room; of several the oldest stays.
        let ended = here.iter().filter(|pod| meta::is_terminal(pod) && !meta::is_deleting(pod.as_ref()));
        plan.delete.extend(ended.copied().cloned());
        plan.delete.extend(live.iter().skip(1).copied().cloned());
        match live.first() {
            // A pod that still terminates holds the node's ports and folders.
            None if here.is_empty() => plan.create.push((*node).to_owned()),
            None => {}
            Some(pod) => {
                scheduled += 1;
                let wait = meta::available_in(pod, min_ready, now);
                ready += i32::from(wait.is_some());
                available += i32::from(wait == Some(0));
                if let Some(wait) = wait.filter(|wait| *wait > 0).and_then(|wait| u64::try_from(wait).ok()) {
                    let wait = Duration::from_secs(wait);
                    plan.again = Some(plan.again.map_or(wait, |again| again.min(wait)));
                }
                if pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)) == Some(&update) {
                    updated += 1;
                } else {
                    outdated.push((wait == Some(0), Arc::clone(pod)));
                }
            }
        }
    }
    let misplaced: Vec<Arc<Pod>> =
        by_node.into_values().flatten().filter(|pod| meta::is_active(pod)).cloned().collect();
    let desired = i32::try_from(eligible.len()).unwrap_or(i32::MAX);
    plan.status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        desired_number_scheduled: desired,
        current_number_scheduled: scheduled,
        number_misscheduled: i32::try_from(misplaced.len()).unwrap_or(i32::MAX),
        number_ready: ready,
        number_available: Some(available).filter(|count| *count > 0),
        number_unavailable: Some(desired - available).filter(|count| *count > 0),
        updated_number_scheduled: Some(updated).filter(|count| *count > 0),
        collision_count: None,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    if meta::is_deleting(set) {
        return Plan { status: plan.status, ..Plan::default() };
    }
    plan.delete.extend(misplaced);
    plan.delete.extend(to_update(spec, outdated, desired - available, desired));
    plan
}

/// Old pods that may go now: unavailable ones at once, available ones as far as maxUnavailable allows.
fn to_update(
    spec: &DaemonSetSpec,
    outdated: Vec<(bool, Arc<Pod>)>,
    unavailable: i32,
    desired: i32,
) -> Vec<Arc<Pod>> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Vec::new();
    }
    let limit = strategy
        .and_then(|strategy| strategy.rolling_update.as_ref())
        .and_then(|rolling| rolling.max_unavailable.as_ref())
        .map_or(1, |limit| crate::deployment::share(limit, desired, true).max(1));
    let mut room = limit - unavailable;
    outdated
        .into_iter()
        .filter(|(available, _)| {
            if !available {
                return true;
            }
            room -= 1;
            room >= 0
        })
        .map(|(_, pod)| pod)
        .collect()
}

/// Brings one DaemonSet a step further.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(set) = cluster.daemon_sets.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let Some(spec) = &set.spec else { return Ok(Outcome::Settled) };
    let selector = meta::selector_of(set.as_ref(), &spec.selector)?;
    let pods =
        crate::replicaset::claim_pods(cluster, set.as_ref(), selector.as_ref(), &key.namespace).await?;
    let plan = plan(&set, &pods, &cluster.nodes.all(), Timestamp::now());
    for node in &plan.create {
        let mut pod = meta::pod_from_template(set.as_ref(), Some(&spec.template));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(REVISION.to_owned(), meta::template_hash(&spec.template, None));
        pod.spec.get_or_insert_default().node_name = Some(node.clone());
        match cluster.pods.create(&key.namespace, &pod).await {
            Err(error) if error.is_not_found() || crate::replicaset::is_namespace_terminating(&error) => {}
            result => drop(result?),
        }
    }
    for pod in &plan.delete {
        cluster.pods.delete(pod).await?;
    }
    if set.status.as_ref() != Some(&plan.status) {
        let mut next = set.as_ref().clone();
        next.status = Some(plan.status);
        cluster.daemon_sets.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(plan.again))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
            .unwrap(),
        )
    }

    fn set() -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "agent"}, "spec": {"selector": {},
            "template": {"spec": {"containers": [], "nodeSelector": {"zone": "a"}}}}}))
        .unwrap()
    }

    fn pod(name: &str, node: &str, revision: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {REVISION: revision}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}))
            .unwrap(),
        )
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.delete.iter().map(|pod| meta::name(pod.as_ref())).collect()
    }

    #[test]
    fn every_fitting_node_gets_one_pod_and_others_none() {
        let nodes = [node("n1", "a"), node("n2", "a"), node("n3", "b")];
        let revision = meta::template_hash(&set().spec.unwrap().template, None);
        let pods = [pod("p1", "n1", &revision), pod("p2", "n1", &revision), pod("p3", "n3", &revision)];
        let plan = plan(&set(), &pods, &nodes, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(plan.create, ["n2"]);
        assert_eq!(names(&plan), ["p2", "p3"]);
        assert_eq!((plan.status.desired_number_scheduled, plan.status.number_ready), (2, 1));
    }

    #[test]
    fn an_update_takes_one_available_pod_at_a_time() {
        let nodes = [node("n1", "a"), node("n2", "a")];
        let pods = [pod("p1", "n1", "old"), pod("p2", "n2", "old")];
        let plan = plan(&set(), &pods, &nodes, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(names(&plan), ["p1"]);
    }
}
