//! The StatefulSet controller: pods with stable names and claims, created, replaced and removed in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Key};
use crate::queue::Outcome;

/// The label with a pod's template revision.
pub(crate) const REVISION: &str = "controller-revision-hash";

/// A decision about a StatefulSet.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Ordinals to create.
    pub create: Vec<i32>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The counts before those writes.
    pub status: StatefulSetStatus,
    /// When a ready pod will have been ready for long enough.
    pub again: Option<Duration>,
}

/// Decides for a StatefulSet with the pods that it owns (Kubernetes' stateful_set_control.go, without the history of
/// templates: a pod below the partition that is lost comes back with the present template).
pub(crate) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let update = revision(set, spec);
    let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).max(0);
    let wanted = spec.replicas.unwrap_or(1).max(0);
    let range = first..first.saturating_add(wanted);
    let mut members: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(ordinal) = ordinal(meta::name(set), meta::name(pod.as_ref())) {
            members.insert(ordinal, pod);
        }
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available_in = |pod: &Pod| meta::available_in(pod, min_ready, now).filter(|_| meta::is_active(pod));
    let mut plan = Plan { status: status(set, &update, pods, wanted, &available_in), ..Plan::default() };
    plan.again = pods
        .iter()
        .filter_map(|pod| available_in(pod).filter(|wait| *wait > 0))
        .min()
        .and_then(|wait| u64::try_from(wait).ok())
        .map(Duration::from_secs);
    if meta::is_deleting(set) {
        return plan;
    }
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    for ordinal in range.clone() {
        match members.get(&ordinal) {
            None => plan.create.push(ordinal),
            // A pod that has ended makes room for its successor.
            Some(pod) if meta::is_terminal(pod) && !meta::is_deleting(pod.as_ref()) => {
                plan.delete.push(Arc::clone(pod));
            }
            Some(pod) if available_in(pod) == Some(0) => continue,
            Some(_) => {}
        }
        if ordered {
            return plan;
        }
    }
    for (_, pod) in members.iter().rev().filter(|(ordinal, _)| !range.contains(ordinal)) {
        if !meta::is_deleting(pod.as_ref()) {
            plan.delete.push(Arc::clone(pod));
        }
        if ordered {
            return plan;
        }
    }
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return plan;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
    for ordinal in range.rev().take_while(|ordinal| *ordinal >= partition) {
        let Some(pod) = members.get(&ordinal) else { continue };
        if meta::is_deleting(pod.as_ref()) {
            return plan;
        }
        if label(pod) != Some(&update) {
            plan.delete.push(Arc::clone(pod));
            return plan;
        }
        if available_in(pod) != Some(0) {
            return plan;
        }
    }
    plan
}

fn label(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get(REVISION)
}

fn revision(set: &StatefulSet, spec: &StatefulSetSpec) -> String {
    format!("{}-{}", meta::name(set), meta::template_hash(&spec.template, None))
}

/// The number at the end of a pod's name, if the rest is the set's.
fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn status(
    set: &StatefulSet,
    update: &str,
    pods: &[Arc<Pod>],
    wanted: i32,
    available_in: &dyn Fn(&Pod) -> Option<i64>,
) -> StatefulSetStatus {
    let before = set.status.as_ref();
    let current = before
        .and_then(|status| status.current_revision.clone())
        .filter(|revision| !revision.is_empty())
        .unwrap_or_else(|| update.to_owned());
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let live = |pod: &Pod| !meta::is_deleting(pod);
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(&|_| true),
        ready_replicas: Some(count(&meta::is_ready)),
        available_replicas: Some(count(&|pod| available_in(pod) == Some(0))),
        current_replicas: Some(count(&|pod| live(pod) && label(pod) == Some(&current))),
        updated_replicas: Some(count(&|pod| live(pod) && label(pod).is_some_and(|label| label == update))),
        current_revision: Some(current),
        update_revision: Some(update.to_owned()),
        collision_count: Some(0),
        conditions: before.and_then(|status| status.conditions.clone()),
    };
    if status.updated_replicas == Some(wanted)
        && status.ready_replicas == Some(wanted)
        && status.replicas == wanted
    {
        status.current_revision.clone_from(&status.update_revision);
        status.current_replicas = status.updated_replicas;
    }
    status
}

fn claim_name(template: &str, set: &str, ordinal: i32) -> String {
    format!("{template}-{set}-{ordinal}")
}

fn pod(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Pod {
    let mut pod = meta::pod_from_template(set, Some(&spec.template));
    let name = format!("{}-{ordinal}", meta::name(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), revision(set, spec));
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain.clone_from(&spec.service_name);
    let volumes = pod_spec.volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        let volume = meta::name(template);
        volumes.retain(|present| present.name != volume);
        volumes.push(Volume {
            name: volume.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(volume, meta::name(set), ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    pod
}

/// Brings one StatefulSet a step further.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(set) = cluster.stateful_sets.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let Some(spec) = &set.spec else { return Ok(Outcome::Settled) };
    let selector = meta::selector_of(set.as_ref(), &spec.selector)?;
    let pods =
        crate::replicaset::claim_pods(cluster, set.as_ref(), selector.as_ref(), &key.namespace).await?;
    let plan = plan(&set, &pods, Timestamp::now());
    for ordinal in &plan.create {
        create_claims(cluster, &set, spec, *ordinal).await?;
        match cluster.pods.create(&key.namespace, &pod(&set, spec, *ordinal)).await {
            Ok(created) => {
                let message =
                    format!("create Pod {} in StatefulSet {} successful", meta::name(&created), key.name);
                cluster.events.normal(set.as_ref(), "SuccessfulCreate", message);
            }
            // Its predecessor is not quite gone, or the copy is behind: the watch tells.
            Err(error) if error.is_already_exists() || error.is_not_found() => {}
            Err(error) if crate::replicaset::is_namespace_terminating(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for pod in &plan.delete {
        cluster.pods.delete(pod).await?;
        let message =
            format!("delete Pod {} in StatefulSet {} successful", meta::name(pod.as_ref()), key.name);
        cluster.events.normal(set.as_ref(), "SuccessfulDelete", message);
    }
    if set.status.as_ref() != Some(&plan.status) {
        let mut next = set.as_ref().clone();
        next.status = Some(plan.status);
        cluster.stateful_sets.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(plan.again))
}

async fn create_claims(
    cluster: &Cluster,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
) -> Result<(), Error> {
    let namespace = meta::namespace(set);
    for template in spec.volume_claim_templates.iter().flatten() {
        let name = claim_name(meta::name(template), meta::name(set), ordinal);
        if cluster.claims.store.get(namespace, &name).is_some() {
            continue;
        }
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: kube::api::ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..Default::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        match cluster.claims.create(namespace, &claim).await {
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32, extra: Value) -> StatefulSet {
        let mut value = json!({"metadata": {"name": "db", "generation": 1}, "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {}, "template": {}}});
        for (key, field) in extra.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn member(set: &StatefulSet, ordinal: i32, ready: bool, old: bool) -> Arc<Pod> {
        let mut pod = pod(set, set.spec.as_ref().unwrap(), ordinal);
        if old {
            pod.metadata.labels.as_mut().unwrap().insert(REVISION.to_owned(), "db-old".to_owned());
        }
        let status = if ready { "True" } else { "False" };
        pod.status = Some(
            serde_json::from_value(
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}),
            )
            .unwrap(),
        );
        Arc::new(pod)
    }

    fn decide(set: &StatefulSet, pods: &[Arc<Pod>]) -> (Vec<i32>, Vec<String>) {
        let plan = plan(set, pods, "2026-01-01T00:00:00Z".parse().unwrap());
        let deleted = plan.delete.iter().map(|pod| meta::name(pod.as_ref()).to_owned()).collect();
        (plan.create, deleted)
    }

    #[test]
    fn pods_come_one_after_the_other() {
        let set = set(3, json!({}));
        assert_eq!(decide(&set, &[]), (vec![0], vec![]));
        assert_eq!(decide(&set, &[member(&set, 0, false, false)]), (vec![], vec![]));
        assert_eq!(decide(&set, &[member(&set, 0, true, false)]), (vec![1], vec![]));
        let parallel = self::set(3, json!({"podManagementPolicy": "Parallel"}));
        assert_eq!(decide(&parallel, &[]), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn pods_go_and_are_replaced_from_the_last() {
        let large = set(1, json!({}));
        let pods: Vec<_> = (0..3).map(|ordinal| member(&large, ordinal, true, false)).collect();
        assert_eq!(decide(&large, &pods), (vec![], vec!["db-2".to_owned()]));
        let set = set(3, json!({}));
        let old: Vec<_> = (0..3).map(|ordinal| member(&set, ordinal, true, true)).collect();
        assert_eq!(decide(&set, &old), (vec![], vec!["db-2".to_owned()]));
        let mixed = [old[0].clone(), old[1].clone(), member(&set, 2, true, false)];
        assert_eq!(decide(&set, &mixed), (vec![], vec!["db-1".to_owned()]));
    }

    #[test]
    fn a_partition_keeps_the_lower_ones() {
        let set = set(3, json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
        let pods = [member(&set, 0, true, true), member(&set, 1, true, true), member(&set, 2, true, false)];
        assert_eq!(decide(&set, &pods), (vec![], vec![]));
    }

    #[test]
    fn names_have_plain_ordinals() {
        for (name, expected) in [
            ("db-0", Some(0)),
            ("db-12", Some(12)),
            ("db-01", None),
            ("db-x", None),
            ("dbs-0", None),
            ("db", None),
        ] {
            assert_eq!(ordinal("db", name), expected, "{name}");
        }
    }
}
