//! The Job controller: pods until enough have succeeded or too many have failed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Key};
use crate::queue::Outcome;

/// A decision about a Job.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many pods to create.
    pub create: i32,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The status before those writes.
    pub status: JobStatus,
    /// Whether the Job's time after its end is over.
    pub expired: bool,
    /// When time alone changes the decision.
    pub again: Option<Duration>,
}

/// Decides for a Job with the pods that it owns. Completions are not indexed, and failed pods are replaced without
/// a pause.
pub(crate) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let before = job.status.clone().unwrap_or_default();
    let mut plan = Plan { create: 0, delete: Vec::new(), status: before, expired: false, again: None };
    let Some(spec) = &job.spec else { return plan };
    if let Some(end) = finished(&plan.status) {
        if let Some(ttl) = spec.ttl_seconds_after_finished {
            let left = seconds_until(end, i64::from(ttl), now);
            plan.expired = left == 0;
            plan.again = Some(left).filter(|left| *left > 0).map(Duration::from_secs);
        }
        return plan;
    }
    if meta::is_deleting(job) {
        return plan;
    }
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| meta::is_active(pod)).collect();
    let count = |phase: &str| {
        i32::try_from(pods.iter().filter(|pod| meta::phase(pod) == phase).count()).unwrap_or(i32::MAX)
    };
    let (succeeded, failed) = (count("Succeeded"), count("Failed"));
    let status = &mut plan.status;
    let some = |count: i32| Some(count).filter(|count| *count > 0);
    let length = |list: usize| i32::try_from(list).unwrap_or(i32::MAX);
    status.active = some(length(active.len()));
    status.ready = Some(length(active.iter().filter(|pod| meta::is_ready(pod)).count()));
    status.terminating = Some(length(
        pods.iter().filter(|pod| meta::is_deleting(pod.as_ref()) && !meta::is_terminal(pod)).count(),
    ));
    status.succeeded = some(succeeded);
    status.failed = some(failed);
    if spec.suspend == Some(true) {
        status.start_time = None;
        set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        plan.delete = active.into_iter().cloned().collect();
        return plan;
    }
    if status.conditions.iter().flatten().any(|condition| condition.type_ == "Suspended") {
        set_condition(status, "Suspended", "False", "JobResumed", "Job resumed", now);
    }
    let start = status.start_time.get_or_insert_with(|| meta::seconds(now)).0;
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let enough = match spec.completions {
        Some(completions) => succeeded >= completions,
        // A work queue: the first success ends it when nobody works any more.
        None => succeeded > 0 && active.is_empty(),
    };
    let overdue = spec.active_deadline_seconds.map(|deadline| seconds_until(start, deadline, now));
    if enough {
        end(
            status,
            "Complete",
            "SuccessCriteriaMet",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            now,
        );
        status.completion_time = Some(meta::seconds(now));
        plan.delete = active.into_iter().cloned().collect();
    } else if failed > spec.backoff_limit.unwrap_or(6) {
        let message = "Job has reached the specified backoff limit";
        end(status, "Failed", "FailureTarget", "BackoffLimitExceeded", message, now);
        plan.delete = active.into_iter().cloned().collect();
    } else if overdue == Some(0) {
        let message = "Job was active longer than specified deadline";
        end(status, "Failed", "FailureTarget", "DeadlineExceeded", message, now);
        plan.delete = active.into_iter().cloned().collect();
    } else {
        plan.again = overdue.map(Duration::from_secs);
        let running = length(active.len());
        let wanted = match spec.completions {
            Some(completions) => parallelism.min(completions - succeeded),
            None if succeeded > 0 => running,
            None => parallelism,
        };
        plan.create = (wanted - running).max(0);
        let surplus = usize::try_from(running - wanted).unwrap_or(0);
        plan.delete = active.into_iter().take(surplus).cloned().collect();
    }
    plan
}

fn finished(status: &JobStatus) -> Option<Timestamp> {
    let conditions = status.conditions.iter().flatten();
    let ended = conditions.filter(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    ended.filter_map(|condition| condition.last_transition_time.as_ref()).map(|time| time.0).next()
}

fn seconds_until(start: Timestamp, duration: i64, now: Timestamp) -> u64 {
    u64::try_from(start.as_second().saturating_add(duration).saturating_sub(now.as_second())).unwrap_or(0)
}

fn end(status: &mut JobStatus, kind: &str, before: &str, reason: &str, message: &str, now: Timestamp) {
    status.active = None;
    status.ready = Some(0);
    set_condition(status, before, "True", reason, message, now);
    set_condition(status, kind, "True", reason, message, now);
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|condition| condition.type_ == kind && condition.status == value) {
        return;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(meta::seconds(now)),
        last_transition_time: Some(meta::seconds(now)),
    });
}

/// Brings one Job a step further.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(job) = cluster.jobs.store.get(&key.namespace, &key.name) else { return Ok(Outcome::Settled) };
    let Some(spec) = &job.spec else { return Ok(Outcome::Settled) };
    let selector = match &spec.selector {
        Some(selector) => meta::selector_of(job.as_ref(), selector)?,
        None => None,
    };
    let pods: Vec<Arc<Pod>> = match &selector {
        Some(selector) => {
            crate::replicaset::claim_pods(cluster, job.as_ref(), Some(selector), &key.namespace).await?
        }
        None => {
            let mut pods = cluster.pods.store.in_namespace(&key.namespace);
            pods.retain(|pod| meta::is_controlled_by(&pod.metadata, job.as_ref()));
            pods
        }
    };
    let plan = plan(&job, &pods, Timestamp::now());
    if plan.expired {
        cluster.jobs.delete(&job).await?;
        return Ok(Outcome::Settled);
    }
    let mut pod = meta::pod_from_template(job.as_ref(), Some(&spec.template));
    let labels = pod.metadata.labels.get_or_insert_default();
    for (label, value) in [("controller-uid", meta::uid(job.as_ref())), ("job-name", key.name.as_str())] {
        labels.insert(label.to_owned(), value.to_owned());
        labels.insert(format!("batch.kubernetes.io/{label}"), value.to_owned());
    }
    for _ in 0..plan.create {
        match cluster.pods.create(&key.namespace, &pod).await {
            Err(error) if error.is_not_found() || crate::replicaset::is_namespace_terminating(&error) => {}
            Err(error) => return Err(error),
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name(&created));
                cluster.events.normal(job.as_ref(), "SuccessfulCreate", message);
            }
        }
    }
    for pod in &plan.delete {
        cluster.pods.delete(pod).await?;
    }
    if job.status.as_ref() != Some(&plan.status) {
        let mut next = job.as_ref().clone();
        next.status = Some(plan.status);
        cluster.jobs.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(plan.again))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn job(spec: Value, status: Value) -> Job {
        let mut value = json!({"metadata": {"name": "j"}, "spec": {"template": {}}, "status": status});
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn pods(phases: &[&str]) -> Vec<Arc<Pod>> {
        let pod = |phase: &&str| serde_json::from_value(json!({"status": {"phase": phase}})).unwrap();
        phases.iter().map(|phase| Arc::new(pod(phase))).collect()
    }

    fn condition(plan: &Plan) -> Option<String> {
        plan.status.conditions.as_ref()?.last().map(|condition| condition.type_.clone())
    }

    #[test]
    fn pods_are_created_until_enough_succeeded() {
        let spec = json!({"completions": 3, "parallelism": 2});
        for (phases, create) in
            [(vec![], 2), (vec!["Running"], 1), (vec!["Succeeded", "Succeeded"], 1), (vec!["Failed"], 2)]
        {
            let plan = plan(&job(spec.clone(), json!({})), &pods(&phases), now());
            assert_eq!((plan.create, condition(&plan)), (create, None), "{phases:?}");
        }
        let done = plan(&job(spec, json!({})), &pods(&["Succeeded"; 3]), now());
        assert_eq!((done.create, condition(&done).as_deref()), (0, Some("Complete")));
        assert!(done.status.completion_time.is_some());
    }

    #[test]
    fn too_many_failures_or_too_much_time_end_it() {
        let spec = json!({"completions": 1, "backoffLimit": 1});
        let failed = plan(&job(spec, json!({})), &pods(&["Failed", "Failed"]), now());
        assert_eq!((failed.create, condition(&failed).as_deref()), (0, Some("Failed")));
        let spec = json!({"completions": 1, "activeDeadlineSeconds": 30});
        let late = job(spec, json!({"startTime": "2026-01-01T00:00:00Z"}));
        let late = plan(&late, &pods(&["Running"]), now());
        assert_eq!((late.delete.len(), condition(&late).as_deref()), (1, Some("Failed")));
    }

    #[test]
    fn a_finished_job_goes_after_its_time() {
        let status = json!({"conditions": [{"type": "Complete", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let fresh = plan(&job(json!({"ttlSecondsAfterFinished": 100}), status.clone()), &[], now());
        assert_eq!((fresh.expired, fresh.again), (false, Some(Duration::from_secs(40))));
        assert!(plan(&job(json!({"ttlSecondsAfterFinished": 60}), status), &[], now()).expired);
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let plan = plan(&job(json!({"suspend": true}), json!({})), &pods(&["Running"]), now());
        assert_eq!((plan.create, plan.delete.len(), condition(&plan).as_deref()), (0, 1, Some("Suspended")));
    }
}
