//! The scheduler: gives each pending pod a node with room for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use crate::Error;
use crate::cache::Change;
use crate::cluster::Cluster;
use crate::error::Attempt;
use crate::meta::{self, Key};
use crate::queue::Outcome;

/// Whether the pod waits for a node.
pub(crate) fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref().is_none_or(str::is_empty)
        && meta::is_active(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler")
}

/// Whether a change of a node can change where pods fit; heartbeats cannot.
pub(crate) fn node_changed(change: &Change<Node>) -> bool {
    let facts = |node: &Arc<Node>| {
        (
            usable(node),
            node.metadata.labels.clone(),
            node.spec.as_ref().and_then(|spec| spec.taints.clone()),
            node.status.as_ref().and_then(|status| status.allocatable.clone()),
        )
    };
    change.old.as_ref().map(facts) != change.new.as_ref().map(facts)
}

/// Whether the node takes new pods at all.
pub(crate) fn usable(node: &Node) -> bool {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    is_ready(node) && !unschedulable && !meta::is_deleting(node)
}

fn is_ready(node: &Node) -> bool {
    node.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The node for a pod, or why there is none, in the words of Kubernetes' scheduler.
///
/// The least loaded node by number of pods is taken, of equals the first by name.
///
/// # Errors
/// The message for the pod's `PodScheduled` condition.
pub(crate) fn choose(pod: &Pod, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Result<String, String> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(usize, &str)> = None;
    for node in nodes {
        let name = meta::name(node.as_ref());
        let here: Vec<&Pod> = pods
            .iter()
            .map(Arc::as_ref)
            .filter(|other| other.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name))
            .filter(|other| !meta::is_terminal(other))
            .collect();
        match obstacle(pod, node, &here) {
            Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
            None if best.is_none_or(|(load, _)| here.len() < load) => best = Some((here.len(), name)),
            None => {}
        }
    }
    best.map(|(_, name)| name.to_owned()).ok_or_else(|| {
        let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let list =
            if list.is_empty() { "no nodes available to schedule pods".to_owned() } else { list.join(", ") };
        format!("0/{} nodes are available: {list}.", nodes.len())
    })
}

/// Whether the node takes the pod as far as labels and taints say, whatever room there is.
pub(crate) fn admits(pod: &Pod, node: &Node) -> bool {
    is_ready(node) && !meta::is_deleting(node) && refusal(pod, node).is_none()
}

fn obstacle(pod: &Pod, node: &Node, here: &[&Pod]) -> Option<String> {
    if !usable(node) {
        return Some("node(s) were unschedulable".to_owned());
    }
    refusal(pod, node).or_else(|| lack(pod, node, here))
}

fn refusal(pod: &Pod, node: &Node) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let labels = node.metadata.labels.as_ref();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    if !selected {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    for taint in taints.iter().filter(|taint| taint.effect != "PreferNoSchedule") {
        let tolerated = spec.tolerations.iter().flatten().any(|toleration| {
            toleration.key.as_ref().is_none_or(|key| key.is_empty() || *key == taint.key)
                && toleration
                    .effect
                    .as_ref()
                    .is_none_or(|effect| effect.is_empty() || *effect == taint.effect)
                && (toleration.operator.as_deref() == Some("Exists")
                    || toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
        });
        if !tolerated {
            return Some(format!("node(s) had untolerated taint {{{}}}", taint.key));
        }
    }
    None
}

/// What the node has too little of.
fn lack(pod: &Pod, node: &Node, here: &[&Pod]) -> Option<String> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref())?;
    if allocatable.get("pods").map(value).is_some_and(|limit| here.len() as f64 >= limit) {
        return Some("Too many pods".to_owned());
    }
    for (resource, wanted) in requests(pod) {
        let limit = allocatable.get(&resource).map_or(0.0, value);
        let used: f64 = here.iter().filter_map(|other| requests(other).get(&resource).copied()).sum();
        if wanted > 0.0 && used + wanted > limit {
            return Some(format!("Insufficient {resource}"));
        }
    }
    None
}

/// An amount; one that makes no sense is none.
fn value(quantity: &Quantity) -> f64 {
    engine::object::Quantity::parse(&quantity.0).map_or(0.0, |amount| amount.value())
}

/// What the pod asks for: the sum of its containers, or more if an init container alone asks for more.
fn requests(pod: &Pod) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    let Some(spec) = &pod.spec else { return sums };
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        container.resources.as_ref().and_then(|resources| resources.requests.clone()).unwrap_or_default()
    };
    for container in &spec.containers {
        for (resource, quantity) in of(container) {
            *sums.entry(resource).or_insert(0.0) += value(&quantity);
        }
    }
    for container in spec.init_containers.iter().flatten() {
        for (resource, quantity) in of(container) {
            let sum = sums.entry(resource).or_insert(0.0);
            *sum = sum.max(value(&quantity));
        }
    }
    sums
}

/// Binds one pod, or says why it cannot be bound.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(pod) = cluster.pods.store.get(&key.namespace, &key.name).filter(|pod| waits(pod)) else {
        return Ok(Outcome::Settled);
    };
    match choose(&pod, &cluster.nodes.all(), &cluster.pods.store.all()) {
        Ok(node) => bind(cluster, &pod, &node).await?,
        Err(message) => refuse(cluster, &pod, message).await?,
    }
    Ok(Outcome::Settled)
}

async fn bind(cluster: &Cluster, pod: &Pod, node: &str) -> Result<(), Error> {
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api = cluster.pods.api(namespace);
    let answer: Result<serde_json::Value, kube::Error> =
        api.create_subresource("binding", name, &crate::writer::post(), &binding).await;
    match answer.attempt(|| format!("bind Pod {namespace}/{name} to node {node}")) {
        Ok(_) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            cluster.events.normal(pod, "Scheduled", message);
            Ok(())
        }
        // Bound or deleted by someone else: the watch tells.
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn refuse(cluster: &Cluster, pod: &Pod, message: String) -> Result<(), Error> {
    let present = meta::pod_condition(pod, "PodScheduled");
    if present.is_some_and(|condition| condition.message.as_ref() == Some(&message)) {
        return Ok(());
    }
    let mut next = pod.clone();
    let status = next.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.clone()),
        last_transition_time: Some(meta::seconds(Timestamp::now())),
        ..PodCondition::default()
    });
    cluster.pods.replace_status(&next).await?;
    cluster.events.warning(pod, "FailedScheduling", message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, cpu: &str) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"zone": name}},
                "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"},
                           "conditions": [{"type": "Ready", "status": "True"}]}}))
            .unwrap(),
        )
    }

    fn pod(name: &str, node: Option<&str>, spec: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}});
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn pods_spread_and_find_room() {
        let nodes = [node("a", "2"), node("b", "1")];
        let first = pod("p", Some("a"), json!({}));
        assert_eq!(
            choose(&pod("q", None, json!({})), &nodes, std::slice::from_ref(&first)),
            Ok("b".to_owned())
        );
        let full = [first, pod("q", Some("b"), json!({}))];
        assert_eq!(choose(&pod("r", None, json!({})), &nodes, &full), Ok("a".to_owned()));
    }

    #[test]
    fn a_pod_without_a_place_is_told_why() {
        let nodes = [node("a", "500m"), node("b", "1")];
        let selector = json!({"nodeSelector": {"zone": "a"}});
        assert_eq!(
            choose(&pod("q", None, selector), &nodes, &[]),
            Err("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector."
                .to_owned())
        );
    }
}
