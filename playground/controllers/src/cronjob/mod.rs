//! The CronJob controller: a Job at each time of a schedule.
//!
//! Rules: Kubernetes' `pkg/controller/cronjob`.

mod schedule;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Key};
use crate::queue::Outcome;
use schedule::Schedule;

/// The annotation with the time that a Job stands for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are reported.
const MANY: i64 = 100;

/// A decision about a CronJob.
#[derive(Debug, Default)]
struct Plan {
    /// The time to start a Job for.
    start: Option<Timestamp>,
    /// Jobs to delete.
    delete: Vec<Arc<Job>>,
    status: CronJobStatus,
    /// What to record: whether it is a warning, its reason and message.
    events: Vec<(bool, &'static str, String)>,
    again: Option<Duration>,
}

/// Decides for a CronJob with the Jobs that it owns.
fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let spec = &cron.spec;
    account(&mut plan, jobs);
    clean(&mut plan, spec, jobs);
    if meta::is_deleting(cron) || spec.suspend == Some(true) {
        return plan;
    }
    let name = spec.time_zone.as_deref().unwrap_or("UTC");
    let Ok(zone) = TimeZone::get(name) else {
        let message = format!("invalid timeZone: {name}: unknown time zone");
        plan.events.push((true, "UnknownTimeZone", message));
        return plan;
    };
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("unparseable schedule: {}: {error}", spec.schedule);
            plan.events.push((true, "UnparseableSchedule", message));
            return plan;
        }
    };
    plan.again = schedule.next(now, &zone).and_then(|next| {
        // A little late is sure to be after it.
        let wait = Duration::try_from(next.duration_since(now)).ok()?;
        Some(wait + Duration::from_millis(100))
    });
    let deadline = spec.starting_deadline_seconds.map(|seconds| SignedDuration::from_secs(seconds.max(0)));
    let Some(due) = due(cron, &schedule, &zone, deadline, now, &mut plan.events) else { return plan };
    if deadline.is_some_and(|deadline| now.duration_since(due) > deadline) {
        let message = format!("Missed scheduled time to start a job: {due}");
        plan.events.push((true, "MissSchedule", message));
        return plan;
    }
    let job = job_name(meta::name(cron), due);
    let active = plan.status.active.clone().unwrap_or_default();
    if active.iter().any(|reference| reference.name.as_ref() == Some(&job))
        || plan.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due)
    {
        return plan;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((false, "JobAlreadyActive", message.to_owned()));
            return plan;
        }
        Some("Replace") => {
            let uids: HashSet<_> = active.iter().filter_map(|reference| reference.uid.as_deref()).collect();
            plan.delete.extend(jobs.iter().filter(|job| uids.contains(meta::uid(job.as_ref()))).cloned());
            plan.status.active = None;
        }
        _ => {}
    }
    plan.start = Some(due);
    plan
}

/// Brings the list of active Jobs up to date.
fn account(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let known = active.iter().any(|reference| reference.uid.as_deref() == Some(meta::uid(job.as_ref())));
        match (known, finished(job)) {
            (true, Some((kind, at))) => {
                active.retain(|reference| reference.uid.as_deref() != Some(meta::uid(job.as_ref())));
                let message = format!("Saw completed job: {}, condition: {kind}", meta::name(job.as_ref()));
                plan.events.push((false, "SawCompletedJob", message));
                let last = plan.status.last_successful_time.as_ref().map(|time| time.0);
                if kind == "Complete" && at > last {
                    plan.status.last_successful_time = at.map(Time);
                }
            }
            // Made by this controller, but not in the list: the write of the status failed then.
            (false, None) if is_own(job) => active.push(reference(job)),
            (false, None) => {
                let name = meta::name(job.as_ref());
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.events.push((true, "UnexpectedJob", message));
            }
            _ => {}
        }
    }
    let exists: HashSet<&str> = jobs.iter().map(|job| meta::uid(job.as_ref())).collect();
    active.retain(|reference| {
        let there = reference.uid.as_deref().is_some_and(|uid| exists.contains(uid));
        if !there {
            let name = reference.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            plan.events.push((false, "MissingJob", message));
        }
        there
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Whether a Job was made for a time of the schedule, and not by somebody from the CronJob's template.
fn is_own(job: &Job) -> bool {
    job.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(SCHEDULED))
}

/// Finds the oldest finished Jobs beyond the limits.
fn clean(plan: &mut Plan, spec: &CronJobSpec, jobs: &[Arc<Job>]) {
    for (wanted, limit) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let of_kind = |job: &&Arc<Job>| finished(job).is_some_and(|(kind, _)| kind == wanted);
        let mut done: Vec<&Arc<Job>> = jobs.iter().filter(of_kind).collect();
        done.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (start, meta::name(job.as_ref()).to_owned())
        });
        let keep = usize::try_from(limit).unwrap_or(0);
        let surplus = done.len().saturating_sub(keep);
        let gone = done.into_iter().take(surplus).filter(|job| !meta::is_deleting(job.as_ref()));
        plan.delete.extend(gone.cloned());
    }
}

/// The last time of the schedule that is past and has no Job yet.
fn due(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    deadline: Option<SignedDuration>,
    now: Timestamp,
    events: &mut Vec<(bool, &'static str, String)>,
) -> Option<Timestamp> {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let since = match deadline.and_then(|deadline| now.checked_sub(deadline).ok()) {
        Some(earliest) => since.max(earliest),
        None => since,
    };
    let first = schedule.next(since, zone).filter(|first| *first <= now)?;
    let Some(second) = schedule.next(first, zone).filter(|second| *second <= now) else { return Some(first) };
    let pause = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / pause + 1;
    if missed > MANY {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        events.push((true, "TooManyMissedTimes", message));
    }
    // Most schedules are regular, so the last time is near.
    let near = SignedDuration::from_secs(pause.saturating_mul((missed - 2).max(0)));
    let mut found = first;
    let mut from = first.checked_add(near).unwrap_or(first);
    for _ in 0..10_000 {
        match schedule.next(from, zone).filter(|next| *next <= now) {
            Some(next) => (found, from) = (next, next),
            None => break,
        }
    }
    Some(found.max(second))
}

/// How and when the Job ended, if it has.
fn finished(job: &Job) -> Option<(&str, Option<Timestamp>)> {
    let status = job.status.as_ref()?;
    let ends = |kind: &str| matches!(kind, "Complete" | "Failed");
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| ends(&condition.type_) && condition.status == "True")?;
    let at = status.completion_time.as_ref().or(condition.last_transition_time.as_ref());
    Some((condition.type_.as_str(), at.map(|time| time.0)))
}

/// The same time gives the same name, so no time gets two Jobs.
fn job_name(cron: &str, due: Timestamp) -> String {
    format!("{cron}-{}", due.as_second() / 60)
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let zone = spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC);
    let shown = match zone == TimeZone::UTC {
        true => due.to_string(),
        false => due.display_with_offset(zone.to_offset(due)).to_string(),
    };
    annotations.insert(SCHEDULED.to_owned(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(meta::name(cron), due)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controlled_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

/// Brings one CronJob up to the present.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(cron) = cluster.cron_jobs.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let spec = &cron.spec;
    let mut jobs = cluster.jobs.store.in_namespace(&key.namespace);
    jobs.retain(|job| meta::is_controlled_by(&job.metadata, cron.as_ref()));
    let mut plan = plan(&cron, &jobs, Timestamp::now());
    for (warning, reason, message) in plan.events {
        match warning {
            true => cluster.events.warning(cron.as_ref(), reason, message),
            false => cluster.events.normal(cron.as_ref(), reason, message),
        }
    }
    for job in &plan.delete {
        cluster.jobs.delete(job).await?;
        let message = format!("Deleted job {}", meta::name(job.as_ref()));
        cluster.events.normal(cron.as_ref(), "SuccessfulDelete", message);
    }
    if let Some(due) = plan.start {
        match cluster.jobs.create(&key.namespace, &job(&cron, spec, due)).await {
            Ok(created) => {
                let message = format!("Created job {}", meta::name(&created));
                cluster.events.normal(cron.as_ref(), "SuccessfulCreate", message);
                plan.status.active.get_or_insert_default().push(reference(&created));
                plan.status.last_schedule_time = Some(Time(due));
            }
            Err(error) if crate::replicaset::is_namespace_terminating(&error) => {}
            // An earlier look has created it, and could not tell.
            Err(error) if error.is_already_exists() => plan.status.last_schedule_time = Some(Time(due)),
            Err(error) => {
                cluster.events.warning(cron.as_ref(), "FailedCreate", format!("Error creating job: {error}"));
                return Err(error);
            }
        }
    }
    if cron.status.as_ref() != Some(&plan.status) {
        let next = CronJob { status: Some(plan.status), ..cron.as_ref().clone() };
        cluster.cron_jobs.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(plan.again))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Every minute, created at midnight, looked at 2 minutes and 30 seconds later.
    fn cron(spec: Value, status: Value) -> CronJob {
        let mut value = json!({
            "metadata": {"name": "c", "uid": "u", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {}}}}, "status": status});
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:02:30Z".parse().unwrap()
    }

    fn job_in(number: usize, state: &str) -> Arc<Job> {
        let mut value = json!({"metadata": {"name": format!("j{number}"), "uid": format!("j{number}"),
            "annotations": {SCHEDULED: "2026-01-01T00:00:00Z"}},
            "status": {"startTime": format!("2026-01-01T00:00:{number:02}Z")}});
        if state != "active" {
            value["status"]["conditions"] =
                json!([{"type": state, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]);
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn start(plan: &Plan) -> Option<String> {
        plan.start.map(|at| at.to_string())
    }

    fn reasons(plan: &Plan) -> Vec<&str> {
        plan.events.iter().map(|(_, reason, _)| *reason).collect()
    }

    #[test]
    fn the_last_missed_time_is_made_up_for() {
        let due = Some("2026-01-01T00:02:00Z");
        for (spec, status, expected, told) in [
            (json!({}), json!({}), due, &[][..]),
            (json!({}), json!({"lastScheduleTime": "2026-01-01T00:01:00Z"}), due, &[]),
            (json!({}), json!({"lastScheduleTime": "2026-01-01T00:02:00Z"}), None, &[]),
            (json!({}), json!({"lastScheduleTime": "2025-12-31T00:02:00Z"}), due, &["TooManyMissedTimes"]),
            (
                json!({"startingDeadlineSeconds": 60}),
                json!({"lastScheduleTime": "2025-12-31T00:02:00Z"}),
                due,
                &[],
            ),
            (json!({"startingDeadlineSeconds": 10}), json!({}), None, &[]),
            (json!({"suspend": true}), json!({}), None, &[]),
            (json!({"schedule": "x"}), json!({}), None, &["UnparseableSchedule"]),
            (json!({"timeZone": "No/Where"}), json!({}), None, &["UnknownTimeZone"]),
        ] {
            let plan = plan(&cron(spec.clone(), status.clone()), &[], now());
            assert_eq!(start(&plan).as_deref(), expected, "{spec} {status}");
            assert_eq!(reasons(&plan), told, "{spec} {status}");
        }
        let waits = plan(&cron(json!({}), json!({})), &[], now()).again.unwrap();
        assert_eq!(waits, Duration::from_millis(30_100));
    }

    #[test]
    fn what_runs_already_counts_as_the_policy_says() {
        let active = [job_in(1, "active")];
        for (policy, starts, deletes) in [("Allow", true, 0), ("Forbid", false, 0), ("Replace", true, 1)] {
            let plan = plan(&cron(json!({"concurrencyPolicy": policy}), json!({})), &active, now());
            assert_eq!((plan.start.is_some(), plan.delete.len()), (starts, deletes), "{policy}");
        }
    }

    #[test]
    fn finished_jobs_leave_the_list_and_then_the_cluster() {
        let jobs: Vec<_> = (0..5)
            .map(|number| job_in(number, "Complete"))
            .chain((5..8).map(|number| job_in(number, "Failed")))
            .chain([job_in(8, "active")])
            .collect();
        let status = json!({"active": [{"name": "j4", "uid": "j4"}, {"name": "lost", "uid": "lost"}],
            "lastScheduleTime": "2026-01-01T00:02:00Z"});
        let plan = plan(&cron(json!({}), status), &jobs, now());
        let deleted: Vec<_> = plan.delete.iter().map(|job| meta::name(job.as_ref())).collect();
        assert_eq!(deleted, ["j0", "j1", "j5", "j6"]);
        let active: Vec<_> =
            plan.status.active.iter().flatten().filter_map(|one| one.name.as_deref()).collect();
        assert_eq!(active, ["j8"]);
        assert_eq!(reasons(&plan), ["SawCompletedJob", "MissingJob"]);
        assert!(plan.status.last_successful_time.is_some());
    }

    #[test]
    fn a_job_of_somebody_else_is_told_of_and_not_counted() {
        let mut job = job_in(1, "active").as_ref().clone();
        job.metadata.annotations = None;
        let plan = plan(&cron(json!({"concurrencyPolicy": "Forbid"}), json!({})), &[Arc::new(job)], now());
        assert_eq!(reasons(&plan), ["UnexpectedJob"]);
        assert_eq!((plan.status.active, plan.start.is_some()), (None, true));
    }

    #[test]
    fn a_job_is_named_and_marked_by_its_time() {
        let cron = cron(json!({"timeZone": "UTC"}), json!({}));
        let job = job(&cron, &cron.spec, "2026-01-01T00:02:00Z".parse().unwrap());
        assert_eq!(job.metadata.name.as_deref(), Some("c-29453762"));
        assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T00:02:00Z");
    }
}
