//! The HorizontalPodAutoscaler controller: as many pods as their use of resources asks for.
//!
//! It reads `metrics.k8s.io` and writes the `scale` subresource, so it serves every kind that has one.

mod behavior;
mod decide;
mod metrics;
mod replicas;
mod selector;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::GroupVersion;
use kube::discovery::pinned_kind;

use crate::cluster::Cluster;
use crate::error::{Attempt, Error};
use crate::meta::{self, Key};
use crate::queue::Outcome;
use behavior::History;
use decide::{Decision, Input, Told, decide};
use replicas::Youth;

/// What all autoscalers have wanted and done, by uid.
#[derive(Clone, Default)]
pub(crate) struct Histories(Arc<Mutex<HashMap<String, History>>>);

impl Histories {
    fn with<T>(&self, uid: &str, run: impl FnOnce(&mut History) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        run(all.entry(uid.to_owned()).or_default())
    }

    /// Forgets an autoscaler that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Looks at one autoscaler, and again after the sync period.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(scaler) = cluster.autoscalers.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let again = Ok(Outcome::Again(cluster.settings.autoscaler_sync));
    let now = Timestamp::now();
    let spec = &scaler.spec;
    let (target, scale) = match scale_of(cluster, &scaler).await {
        Ok(found) => found,
        Err(error) => {
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            let mut decision = Decision::default();
            decision.conditions.push(Told::new("AbleToScale", false, "FailedGetScale", message));
            let before = scaler.status.clone().unwrap_or_default();
            let mut status = status(&scaler, before.current_replicas.unwrap_or(0), &decision, now);
            status.desired_replicas = before.desired_replicas;
            status.current_metrics = before.current_metrics;
            tell(cluster, &scaler, &status, "FailedGetScale");
            write(cluster, &scaler, status).await?;
            return again;
        }
    };
    let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
    let pods = pods(cluster, &key.namespace, &selector);
    let metrics = metrics::fetch(&cluster.client, &key.namespace, &selector).await;
    let youth = Youth {
        initialization: cluster.settings.cpu_initialization,
        readiness: cluster.settings.initial_readiness,
    };
    let input = Input { spec, current, pods: pods.as_deref(), metrics: &metrics, youth, now };
    let uid = meta::uid(scaler.as_ref());
    let mut decision = cluster.scaling.with(uid, |history| decide(&input, history));
    let able = "the HPA controller was able to get the target's current scale";
    decision.conditions.insert(0, Told::new("AbleToScale", true, "SucceededGetScale", able));

    let rescale = decision.failure.is_none() && decision.desired != current;
    let mut failed = None;
    if rescale {
        let mut next = scale;
        next.spec.get_or_insert_default().replicas = Some(decision.desired);
        let written = target.replace_scale(&spec.scale_target_ref.name, &crate::writer::post(), &next).await;
        let size = decision.desired;
        match written
            .attempt(|| format!("scale {} {}", spec.scale_target_ref.kind, spec.scale_target_ref.name))
        {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {size}");
                decision.conditions.push(Told::new("AbleToScale", true, "SucceededRescale", message));
                cluster.scaling.with(uid, |history| history.scaled(current, size, now));
                let message = format!("New size: {size}; reason: {}", decision.reason);
                cluster.events.normal(scaler.as_ref(), "SuccessfulRescale", message);
            }
            Err(error) => {
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                decision.conditions.push(Told::new("AbleToScale", false, "FailedUpdateScale", message));
                let message = format!("New size: {size}; reason: {}; error: {error}", decision.reason);
                cluster.events.warning(scaler.as_ref(), "FailedRescale", message);
                failed = Some(error);
            }
        }
    }
    let mut status = status(&scaler, current, &decision, now);
    if decision.failure.is_some() || failed.is_some() {
        status.desired_replicas = scaler.status.as_ref().map_or(0, |status| status.desired_replicas);
        tell(cluster, &scaler, &status, "FailedComputeMetricsReplicas");
    } else if rescale {
        status.last_scale_time = Some(meta::seconds(now));
    }
    write(cluster, &scaler, status).await?;
    match failed {
        Some(error) => Err(error),
        None => again,
    }
}

/// The target's scale, and where to write it.
async fn scale_of(
    cluster: &Cluster,
    scaler: &HorizontalPodAutoscaler,
) -> Result<(Api<DynamicObject>, Scale), kube::Error> {
    let reference = &scaler.spec.scale_target_ref;
    let group_version: GroupVersion = reference
        .api_version
        .as_deref()
        .unwrap_or("v1")
        .parse()
        .unwrap_or_else(|_| GroupVersion::gv("", "v1"));
    let kind = group_version.with_kind(&reference.kind);
    let (resource, _) = pinned_kind(&cluster.client, &kind).await?;
    let api = Api::namespaced_with(cluster.client.clone(), meta::namespace(scaler), &resource);
    let scale = api.get_scale(&reference.name).await?;
    Ok((api, scale))
}

/// The pods that the selector finds; `None` for no selector.
fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Option<Vec<Arc<Pod>>> {
    if selector.is_empty() {
        return None;
    }
    let selector = selector::parse(selector)?;
    let mut pods = cluster.pods.store.in_namespace(namespace);
    pods.retain(|pod| meta::selects(&selector, &pod.metadata));
    Some(pods)
}

fn status(
    scaler: &HorizontalPodAutoscaler,
    current: i32,
    decision: &Decision,
    now: Timestamp,
) -> HorizontalPodAutoscalerStatus {
    let before = scaler.status.as_ref();
    let mut conditions = before.and_then(|status| status.conditions.clone()).unwrap_or_default();
    for told in &decision.conditions {
        told.apply(&mut conditions, now);
    }
    HorizontalPodAutoscalerStatus {
        observed_generation: scaler.metadata.generation,
        last_scale_time: before.and_then(|status| status.last_scale_time.clone()),
        current_replicas: Some(current),
        desired_replicas: decision.desired,
        current_metrics: (!decision.metrics.is_empty()).then(|| decision.metrics.clone()),
        conditions: Some(conditions),
    }
}

/// Records a warning for what has gone wrong since the last look.
fn tell(
    cluster: &Cluster,
    scaler: &HorizontalPodAutoscaler,
    status: &HorizontalPodAutoscalerStatus,
    reason: &str,
) {
    let known = |kind: &str, message: &Option<String>| {
        let before = scaler.status.iter().flat_map(|status| status.conditions.iter().flatten());
        before.filter(|condition| condition.type_ == kind).any(|condition| condition.message == *message)
    };
    for condition in status.conditions.iter().flatten().filter(|condition| condition.status == "False") {
        if matches!(condition.type_.as_str(), "AbleToScale" | "ScalingActive")
            && !known(&condition.type_, &condition.message)
        {
            let message = condition.message.clone().unwrap_or_default();
            cluster.events.warning(scaler, reason, message);
        }
    }
}

async fn write(
    cluster: &Cluster,
    scaler: &HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
) -> Result<(), Error> {
    if scaler.status.as_ref() != Some(&status) {
        let next = HorizontalPodAutoscaler { status: Some(status), ..scaler.clone() };
        cluster.autoscalers.replace_status(&next).await?;
    }
    Ok(())
}
