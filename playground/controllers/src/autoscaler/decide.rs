//! The decision of one look, without any request.
//!
//! Rules: Kubernetes' `pkg/controller/podautoscaler/horizontal.go`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::behavior::{History, Rules, normalize};
use super::metrics::PodMetricsList;
use super::replicas::{Proposal, Subject, Youth, by_average, by_utilization, thousandths};
use crate::meta;

/// What is known at a look.
pub(crate) struct Input<'a> {
    pub spec: &'a HorizontalPodAutoscalerSpec,
    /// The size that the target is told to have.
    pub current: i32,
    /// The target's pods; `None` if its scale has no selector.
    pub pods: Option<&'a [Arc<Pod>]>,
    /// The measurements, or why there are none.
    pub metrics: &'a Result<PodMetricsList, String>,
    pub youth: Youth,
    pub now: Timestamp,
}

/// What to do and to tell.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// The size that the target should have.
    pub desired: i32,
    /// Why it differs from the present one.
    pub reason: String,
    pub metrics: Vec<MetricStatus>,
    pub conditions: Vec<Told>,
    /// Why no size could be computed.
    pub failure: Option<String>,
}

/// A condition's type, value, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub kind: &'static str,
    pub value: bool,
    pub reason: String,
    pub message: String,
}

impl Told {
    pub fn new(kind: &'static str, value: bool, reason: &str, message: impl Into<String>) -> Told {
        Told { kind, value, reason: reason.to_owned(), message: message.into() }
    }

    /// Puts the condition in its place; its time changes with its value.
    pub fn apply(&self, conditions: &mut Vec<HorizontalPodAutoscalerCondition>, now: Timestamp) {
        let status = if self.value { "True" } else { "False" };
        let index = conditions.iter().position(|known| known.type_ == self.kind).unwrap_or_else(|| {
            conditions.push(HorizontalPodAutoscalerCondition {
                type_: self.kind.to_owned(),
                ..HorizontalPodAutoscalerCondition::default()
            });
            conditions.len() - 1
        });
        if let Some(condition) = conditions.get_mut(index) {
            if condition.status != status {
                condition.last_transition_time = Some(meta::seconds(now));
            }
            condition.status = status.to_owned();
            condition.reason = Some(self.reason.clone());
            condition.message = Some(self.message.clone());
        }
    }
}

/// Decides for one autoscaler, and remembers in `history` what it wanted.
pub(crate) fn decide(input: &Input<'_>, history: &mut History) -> Decision {
    let (current, min, max) =
        (input.current, input.spec.min_replicas.unwrap_or(1).max(0), input.spec.max_replicas);
    history.begin(current, input.now);
    let mut decision = Decision { desired: current, ..Decision::default() };
    if current == 0 && min != 0 {
        decision.conditions.push(Told::new(
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        ));
        return decision;
    }
    if current > max {
        decision.desired = max;
        "Current number of replicas above Spec.MaxReplicas".clone_into(&mut decision.reason);
        return decision;
    }
    if current < min {
        decision.desired = min;
        "Current number of replicas below Spec.MinReplicas".clone_into(&mut decision.reason);
        return decision;
    }
    let Some((wanted, metric)) = by_metrics(input, &mut decision) else { return decision };
    if wanted > current {
        decision.reason = format!("{metric} above target");
    } else if wanted < current {
        "All metrics below target".clone_into(&mut decision.reason);
    }
    let bounded = normalize(input.spec.behavior.as_ref(), history, current, wanted, (min, max), input.now);
    decision.desired = bounded.desired;
    decision.conditions.push(Told::new("AbleToScale", true, bounded.able.0, bounded.able.1));
    let (limited, reason, message) = bounded.limited;
    decision.conditions.push(Told::new("ScalingLimited", limited, reason, message));
    decision
}

/// The greatest size that a metric asks for, with that metric's name; `None` if it cannot be said.
fn by_metrics(input: &Input<'_>, decision: &mut Decision) -> Option<(i32, String)> {
    let Some(pods) = input.pods else {
        let why = "the HPA target's scale is missing a selector";
        decision.conditions.push(Told::new("ScalingActive", false, "InvalidSelector", why));
        decision.failure = Some("selector is required".to_owned());
        return None;
    };
    let specs = input.spec.metrics.as_deref().unwrap_or_default();
    let mut best: Option<(i32, String)> = None;
    let mut invalid = Vec::new();
    for spec in specs {
        match by_metric(input, pods, spec) {
            Ok((replicas, name, status)) => {
                decision.metrics.push(status);
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
                }
            }
            Err((reason, error)) => invalid.push((reason, error)),
        }
    }
    // A metric that is not known could ask for more, so the target does not shrink without it.
    let fails = match &best {
        None => true,
        Some((replicas, _)) => !invalid.is_empty() && *replicas < input.current,
    };
    if fails {
        let (reason, error) = invalid
            .first()
            .cloned()
            .unwrap_or(("InvalidMetricSourceType", "the autoscaler has no metrics".to_owned()));
        let message = format!("the HPA was unable to compute the replica count: {error}");
        decision.conditions.push(Told::new("ScalingActive", false, reason, message));
        let (bad, all) = (invalid.len(), specs.len());
        decision.failure =
            Some(format!("invalid metrics ({bad} invalid out of {all}), first error is: {error}"));
        return None;
    }
    if let Some((_, name)) = &best {
        let message = format!("the HPA was able to successfully calculate a replica count from {name}");
        decision.conditions.push(Told::new("ScalingActive", true, "ValidMetricFound", message));
    }
    best
}

type Failure = (&'static str, String);

fn by_metric(
    input: &Input<'_>,
    pods: &[Arc<Pod>],
    spec: &MetricSpec,
) -> Result<(i32, String, MetricStatus), Failure> {
    let none = |reason, kind: &str| {
        let why = format!("unable to get {kind} metric: no {kind} metrics API is asked by this controller");
        Err((reason, why))
    };
    let (name, container, target) = match (&spec.resource, &spec.container_resource, spec.type_.as_str()) {
        (Some(source), _, "Resource") => (&source.name, None, &source.target),
        (_, Some(source), "ContainerResource") => {
            (&source.name, Some(source.container.as_str()), &source.target)
        }
        (_, _, "Pods") => return none("FailedGetPodsMetric", "pods"),
        (_, _, "Object") => return none("FailedGetObjectMetric", "object"),
        (_, _, "External") => return none("FailedGetExternalMetric", "external"),
        (_, _, other) => {
            return Err(("InvalidMetricSourceType", format!("unknown metric source type {other:?}")));
        }
    };
    let reason = match container {
        None => "FailedGetResourceMetric",
        Some(_) => "FailedGetContainerResourceMetric",
    };
    let (proposal, by_percent) =
        propose(input, pods, name, container, target).map_err(|error| (reason, error))?;
    let what = match container {
        None => format!("{name} resource"),
        Some(_) => format!("{name} container resource"),
    };
    let what = if by_percent { format!("{what} utilization (percentage of request)") } else { what };
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(Quantity(amount(proposal.average))),
        value: None,
    };
    let status = match container {
        None => MetricStatus {
            type_: spec.type_.clone(),
            resource: Some(ResourceMetricStatus { name: name.clone(), current }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: spec.type_.clone(),
            container_resource: Some(ContainerResourceMetricStatus {
                name: name.clone(),
                container: container.to_owned(),
                current,
            }),
            ..MetricStatus::default()
        },
    };
    Ok((proposal.replicas, what, status))
}

fn propose(
    input: &Input<'_>,
    pods: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
) -> Result<(Proposal, bool), String> {
    let behavior = input.spec.behavior.as_ref();
    let samples = match input.metrics {
        Ok(list) => list.samples(resource, container),
        Err(error) => Err(format!("unable to get metrics for resource {resource}: {error}")),
    };
    let samples = &samples.map_err(|error| match target.average_utilization {
        Some(_) => format!("failed to get {resource} utilization: {error}"),
        None => format!("failed to get {resource} usage: {error}"),
    })?;
    let subject = Subject {
        resource,
        container,
        pods,
        samples,
        current: input.current,
        tolerance: (Rules::down(behavior).tolerance, Rules::up(behavior).tolerance),
        youth: input.youth,
        now: input.now,
    };
    let average = target.average_value.as_ref().and_then(thousandths);
    match (average, target.average_utilization) {
        (Some(average), _) => by_average(&subject, average)
            .map(|proposal| (proposal, false))
            .map_err(|error| format!("failed to get {resource} usage: {error}")),
        (None, Some(percent)) => by_utilization(&subject, percent)
            .map(|proposal| (proposal, true))
            .map_err(|error| format!("failed to get {resource} utilization: {error}")),
        (None, None) => {
            Err("invalid resource metric source: neither an average utilization nor an average value target was set"
                .to_owned())
        }
    }
}

/// Thousandths as a quantity.
fn amount(thousandths: i64) -> String {
    if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn metrics(cpu: &[&str]) -> Result<PodMetricsList, String> {
        let items: Vec<Value> = cpu
            .iter()
            .enumerate()
            .map(|(number, cpu)| {
                json!({"metadata": {"name": format!("p{number}")}, "timestamp": "2026-01-01T01:00:00Z",
                    "window": "10s", "containers": [{"name": "c", "usage": {"cpu": cpu}}]})
            })
            .collect();
        Ok(serde_json::from_value(json!({"items": items})).unwrap())
    }

    fn decision(spec: Value, current: i32, metrics: &Result<PodMetricsList, String>) -> Decision {
        let mut all = json!({"scaleTargetRef": {"kind": "Deployment", "name": "shop"}, "minReplicas": 1,
            "maxReplicas": 10, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        let pods: Vec<Arc<Pod>> = (0..current)
            .map(|number| {
                Arc::new(
                    serde_json::from_value(json!({"metadata": {"name": format!("p{number}")},
                        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
                        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
                            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]}}))
                    .unwrap(),
                )
            })
            .collect();
        let input = Input {
            spec: &serde_json::from_value(all).unwrap(),
            current,
            pods: Some(&pods),
            metrics,
            youth: Youth { initialization: Duration::from_secs(300), readiness: Duration::from_secs(30) },
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        decide(&input, &mut History::default())
    }

    fn reasons(decision: &Decision) -> Vec<&str> {
        decision.conditions.iter().map(|condition| condition.reason.as_str()).collect()
    }

    #[test]
    fn the_greatest_wish_within_bounds_counts() {
        let memory_too = json!({"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "50m"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "AverageValue", "averageValue": "25m"}}}]});
        for (spec, current, cpu, desired, reason) in [
            (json!({}), 2, &["50m", "50m"][..], 2, ""),
            (
                json!({}),
                2,
                &["100m", "100m"],
                4,
                "cpu resource utilization (percentage of request) above target",
            ),
            (
                json!({"maxReplicas": 3}),
                2,
                &["100m", "100m"],
                3,
                "cpu resource utilization (percentage of request) above target",
            ),
            (json!({}), 0, &[], 0, ""),
            (json!({"maxReplicas": 3}), 5, &[], 3, "Current number of replicas above Spec.MaxReplicas"),
            (json!({"minReplicas": 3}), 1, &[], 3, "Current number of replicas below Spec.MinReplicas"),
            (memory_too, 1, &["100m"], 4, "cpu container resource above target"),
        ] {
            let decision = decision(spec.clone(), current, &metrics(cpu));
            assert_eq!((decision.desired, decision.reason.as_str()), (desired, reason), "{spec} {cpu:?}");
        }
    }

    #[test]
    fn conditions_and_metrics_are_told() {
        let grows = decision(json!({}), 2, &metrics(&["100m", "100m"]));
        assert_eq!(reasons(&grows), ["ValidMetricFound", "ReadyForNewScale", "DesiredWithinRange"]);
        let told = grows.metrics[0].resource.as_ref().unwrap();
        assert_eq!(told.current.average_utilization, Some(100));
        assert_eq!(told.current.average_value, Some(Quantity("100m".to_owned())));
        assert_eq!(reasons(&decision(json!({}), 0, &metrics(&[]))), ["ScalingDisabled"]);
    }

    #[test]
    fn without_a_metric_nothing_shrinks() {
        let failed = decision(json!({}), 2, &Err("not there".to_owned()));
        assert_eq!((failed.desired, reasons(&failed)), (2, vec!["FailedGetResourceMetric"]));
        assert!(failed.failure.unwrap().contains("1 invalid out of 1"));
        let one_of_two = |target: &str| {
            json!({"metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": target}}}]})
        };
        let shrinks = decision(one_of_two("900m"), 2, &metrics(&["100m", "100m"]));
        assert_eq!((shrinks.desired, reasons(&shrinks)), (2, vec!["FailedGetResourceMetric"]));
        let grows = decision(one_of_two("50m"), 2, &metrics(&["100m", "100m"]));
        assert_eq!(grows.desired, 4);
        assert_eq!(reasons(&grows)[0], "ValidMetricFound");
    }
}
