//! How many replicas a resource metric asks for.
//!
//! Rules: Kubernetes' `pkg/controller/podautoscaler/replica_calculator.go`. Amounts are thousandths: of a CPU, of a
//! byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::meta;

/// What a pod uses of one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub at: Timestamp,
    pub window: Duration,
    pub value: i64,
}

/// How long a young pod's CPU is not trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Youth {
    /// After its start, unless it is ready and was measured since.
    pub initialization: Duration,
    /// After its start, a pod that never was ready is not counted.
    pub readiness: Duration,
}

/// What is measured, and of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// `cpu` or `memory`.
    pub resource: &'a str,
    /// One container of each pod, or all.
    pub container: Option<&'a str>,
    pub pods: &'a [Arc<Pod>],
    pub samples: &'a BTreeMap<String, Sample>,
    pub current: i32,
    /// How far the ratio may be below 1, and above 1.
    pub tolerance: (f64, f64),
    pub youth: Youth,
    pub now: Timestamp,
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Proposal {
    pub replicas: i32,
    /// Percent of the requests, where that is the target.
    pub utilization: Option<i32>,
    /// The average over the pods that count.
    pub average: i64,
}

struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// The samples that count.
    counted: BTreeMap<String, i64>,
}

fn group(subject: &Subject<'_>) -> Groups {
    let mut groups = Groups {
        ready: 0,
        unready: BTreeSet::new(),
        missing: BTreeSet::new(),
        counted: subject.samples.iter().map(|(name, sample)| (name.clone(), sample.value)).collect(),
    };
    for pod in subject.pods {
        let name = meta::name(pod.as_ref());
        let phase = meta::phase(pod);
        if meta::is_deleting(pod.as_ref()) || phase == "Failed" {
            groups.counted.remove(name);
            continue;
        }
        let sample = subject.samples.get(name);
        let unready = phase == "Pending"
            || (subject.resource == "cpu" && sample.is_some_and(|sample| is_young(pod, sample, subject)));
        if unready {
            groups.counted.remove(name);
            groups.unready.insert(name.to_owned());
        } else if sample.is_none() {
            groups.missing.insert(name.to_owned());
        } else {
            groups.ready += 1;
        }
    }
    groups
}

/// Whether the CPU that was measured is that of a start rather than of work.
fn is_young(pod: &Pod, sample: &Sample, subject: &Subject<'_>) -> bool {
    let condition = meta::pod_condition(pod, "Ready");
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(condition), Some(start)) = (condition, start) else { return true };
    let not_ready = condition.status == "False";
    let changed = condition.last_transition_time.as_ref().map_or(start.0, |time| time.0);
    let plus = |at: Timestamp, pause: Duration| at.checked_add(pause).unwrap_or(Timestamp::MAX);
    if plus(start.0, subject.youth.initialization) > subject.now {
        not_ready || sample.at < plus(changed, sample.window)
    } else {
        not_ready && plus(start.0, subject.youth.readiness) > changed
    }
}

fn within(ratio: f64, (below, above): (f64, f64)) -> bool {
    (1.0 - below) <= ratio && ratio <= (1.0 + above)
}

fn ceil(value: f64) -> i32 {
    // Saturating, as casts from floating point are.
    value.ceil() as i32
}

const NOTHING: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// The replicas that bring the average use to `target` percent of what the pods request.
///
/// # Errors
/// A sentence on why it cannot be said.
pub(crate) fn by_utilization(subject: &Subject<'_>, target: i32) -> Result<Proposal, String> {
    let requests = requests(subject)?;
    let ratio = |values: &BTreeMap<String, i64>| -> Result<(f64, i32, i64), String> {
        let known = values.iter().filter_map(|(name, value)| Some((*value, *requests.get(name)?)));
        let (mut used, mut requested, mut count) = (0i64, 0i64, 0i64);
        for (value, request) in known {
            used = used.saturating_add(value);
            requested = requested.saturating_add(request);
            count += 1;
        }
        if requested == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        let percent = i128::from(used) * 100 / i128::from(requested);
        let percent = i32::try_from(percent).unwrap_or(i32::MAX);
        Ok((f64::from(percent) / f64::from(target.max(1)), percent, used / count))
    };
    // A missing pod is taken to use all that it requests when the others use little.
    let fallback = i128::from(target.max(100));
    let full = |name: &str| {
        let request = requests.get(name).copied().unwrap_or(0);
        i64::try_from(i128::from(request) * fallback / 100).unwrap_or(i64::MAX)
    };
    let (replicas, percent, average) = propose(subject, &ratio, &full)?;
    Ok(Proposal { replicas, utilization: Some(percent), average })
}

/// The replicas that bring the average use to `target`.
///
/// # Errors
/// A sentence on why it cannot be said.
pub(crate) fn by_average(subject: &Subject<'_>, target: i64) -> Result<Proposal, String> {
    let ratio = |values: &BTreeMap<String, i64>| -> Result<(f64, i32, i64), String> {
        let sum = values.values().fold(0i64, |sum, value| sum.saturating_add(*value));
        let average = sum / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1);
        Ok((average as f64 / target.max(1) as f64, 0, average))
    };
    let (replicas, _, average) = propose(subject, &ratio, &|_| target)?;
    Ok(Proposal { replicas, utilization: None, average })
}

/// From values to a ratio to the target, percent and average.
type Ratio<'a> = dyn Fn(&BTreeMap<String, i64>) -> Result<(f64, i32, i64), String> + 'a;

/// `full` is what a missing pod is taken to use when the others use little.
fn propose(
    subject: &Subject<'_>,
    measure: &Ratio<'_>,
    full: &dyn Fn(&str) -> i64,
) -> Result<(i32, i32, i64), String> {
    if subject.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let mut groups = group(subject);
    if groups.counted.is_empty() {
        return Err(NOTHING.to_owned());
    }
    let (ratio, percent, average) = measure(&groups.counted)?;
    let answer = |replicas| Ok((replicas, percent, average));
    let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        return answer(if within(ratio, subject.tolerance) {
            subject.current
        } else {
            ceil(ratio * groups.ready as f64)
        });
    }
    // What is not known is taken to speak against a change.
    if ratio < 1.0 {
        let assumed = groups.missing.iter().map(|name| (name.clone(), full(name)));
        groups.counted.extend(assumed);
    } else if ratio > 1.0 {
        groups.counted.extend(groups.missing.iter().map(|name| (name.clone(), 0)));
    }
    if grows_with_unready {
        groups.counted.extend(groups.unready.iter().map(|name| (name.clone(), 0)));
    }
    let (assumed, _, _) = measure(&groups.counted)?;
    let turned = (ratio < 1.0 && assumed > 1.0) || (ratio > 1.0 && assumed < 1.0);
    if within(assumed, subject.tolerance) || turned {
        return answer(subject.current);
    }
    let replicas = ceil(assumed * groups.counted.len() as f64);
    let against =
        (assumed < 1.0 && replicas > subject.current) || (assumed > 1.0 && replicas < subject.current);
    answer(if against { subject.current } else { replicas })
}

/// An amount in thousandths, rounded up.
pub(crate) fn thousandths(amount: &Quantity) -> Option<i64> {
    // Saturating, as casts from floating point are.
    engine::object::Quantity::parse(&amount.0).map(|amount| (amount.value() * 1000.0).ceil() as i64)
}

/// What each pod requests of the resource.
fn requests(subject: &Subject<'_>) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in subject.pods {
        let name = meta::name(pod.as_ref());
        let Some(spec) = &pod.spec else { continue };
        let of = |requests: Option<&BTreeMap<String, Quantity>>| {
            requests.and_then(|requests| thousandths(requests.get(subject.resource)?))
        };
        let whole = of(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        if let (Some(whole), None) = (whole, subject.container) {
            all.insert(name.to_owned(), whole);
            continue;
        }
        let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
        let mut sum = 0i64;
        for container in spec.containers.iter().chain(sidecars) {
            if subject.container.is_some_and(|wanted| wanted != container.name) {
                continue;
            }
            let own = of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
            let request = own.ok_or_else(|| {
                format!(
                    "missing request for {} in container {} of Pod {name}",
                    subject.resource, container.name
                )
            })?;
            sum = sum.saturating_add(request);
        }
        all.insert(name.to_owned(), sum);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    /// A pod that requests half a CPU. `state` is `ready`, `unready`, `young`, `Pending`, `Failed` or `gone`.
    fn pod(number: usize, state: &str) -> Arc<Pod> {
        let start = if state == "young" { "2026-01-01T00:59:00Z" } else { "2026-01-01T00:00:00Z" };
        let changed = if state == "young" { "2026-01-01T00:59:58Z" } else { "2026-01-01T00:00:05Z" };
        let phase = if matches!(state, "Pending" | "Failed") { state } else { "Running" };
        let ready = if state == "unready" { "False" } else { "True" };
        let mut pod = json!({
            "metadata": {"name": format!("p{number}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]},
            "status": {"phase": phase, "startTime": start,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": changed}]},
        });
        if state == "gone" {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:59Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn ask<T>(states: &[&str], values: &[i64], run: impl Fn(&Subject<'_>) -> T) -> T {
        let pods: Vec<_> = states.iter().enumerate().map(|(number, state)| pod(number, state)).collect();
        // A negative value is a pod without a measurement.
        let samples = values.iter().enumerate().filter(|(_, value)| **value >= 0).map(|(number, value)| {
            (format!("p{number}"), Sample { at: now(), window: Duration::from_secs(10), value: *value })
        });
        let samples = samples.collect();
        run(&Subject {
            resource: "cpu",
            container: None,
            pods: &pods,
            samples: &samples,
            current: i32::try_from(states.len()).unwrap(),
            tolerance: (0.1, 0.1),
            youth: Youth { initialization: Duration::from_secs(300), readiness: Duration::from_secs(30) },
            now: now(),
        })
    }

    #[test]
    fn replicas_by_utilization() {
        // states, values, target, replicas, utilization
        for (states, values, target, replicas, utilization) in [
            (&["ready", "ready"][..], &[250, 250][..], 50, 2, 50),
            (&["ready", "ready"], &[270, 270], 50, 2, 54),
            (&["ready", "ready"], &[300, 300], 50, 3, 60),
            (&["ready", "ready"], &[500, 500], 50, 4, 100),
            (&["ready"; 4], &[50, 50, 50, 50], 50, 1, 10),
            // A young pod's CPU does not count, and its share keeps growth small.
            (&["ready", "young"], &[500, 500], 50, 2, 100),
            (&["ready", "ready", "young"], &[500, 500, 500], 50, 4, 100),
            (&["ready", "Pending"], &[500, -1], 50, 2, 100),
            // An unready pod that was ready long ago counts only if it ever was ready.
            (&["ready", "unready"], &[500, 500], 50, 2, 100),
            // A missing pod uses nothing when more are wanted, all of its request when fewer are.
            (&["ready", "ready", "ready"], &[500, 500, -1], 50, 4, 100),
            (&["ready", "ready", "ready"], &[50, 50, -1], 50, 3, 10),
            (&["ready"; 4], &[50, 50, 50, -1], 80, 2, 10),
            // One that goes or has failed is out of the count.
            (&["ready", "gone"], &[500, 500], 50, 2, 100),
            (&["ready", "Failed"], &[500, 500], 50, 2, 100),
        ] {
            let proposal = ask(states, values, |subject| by_utilization(subject, target)).unwrap();
            assert_eq!(
                (proposal.replicas, proposal.utilization),
                (replicas, Some(utilization)),
                "{states:?} {values:?}"
            );
        }
    }

    #[test]
    fn replicas_by_average() {
        for (states, values, target, replicas, average) in [
            (&["ready", "ready"][..], &[300, 500][..], 400, 2, 400),
            (&["ready", "ready"], &[300, 500], 200, 4, 400),
            (&["ready", "ready"], &[100, 100], 200, 1, 100),
            (&["ready", "ready"], &[100, -1], 200, 2, 100),
            (&["ready", "young"], &[500, 0], 100, 5, 500),
        ] {
            let proposal = ask(states, values, |subject| by_average(subject, target)).unwrap();
            assert_eq!((proposal.replicas, proposal.average), (replicas, average), "{states:?} {values:?}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_told() {
        let utilization = |states: &[&str], values: &[i64]| {
            ask(states, values, |subject| by_utilization(subject, 50)).unwrap_err()
        };
        assert!(utilization(&[], &[]).contains("no pods returned by selector"));
        assert!(utilization(&["young"], &[500]).contains("pods might be unready"));
        assert!(utilization(&["ready"], &[]).contains("pods might be unready"));
        let memory = ask(&["ready"], &[1], |subject| {
            by_utilization(&Subject { resource: "memory", ..*subject }, 50).unwrap_err()
        });
        assert_eq!(memory, "missing request for memory in container c of Pod p0");
    }
}
