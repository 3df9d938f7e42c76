//! The status of a Deployment: counts and conditions, with Kubernetes' reasons and messages.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus};

use super::math::replicas;
use super::plan::{Member, Rollout, sum};
use crate::meta;

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The conditions while a decision is made.
pub(crate) struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    pub fn of(deployment: &Deployment, now: Timestamp) -> Self {
        let list =
            deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        Conditions { list, now }
    }

    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition unless status and reason are as they were (SetDeploymentCondition).
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = meta::seconds(self.now);
        let mut transition = now.clone();
        if let Some(present) = self.get(kind) {
            if present.status == status && present.reason.as_deref() == Some(reason) {
                return;
            }
            if present.status == status {
                transition = present.last_transition_time.clone().unwrap_or(transition);
            }
        }
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(now),
            last_transition_time: Some(transition),
        });
    }

    /// A pause stops the clock of the progress deadline; its end starts it anew.
    pub fn note_pause(&mut self, spec: &DeploymentSpec) {
        if deadline(spec).is_none() {
            return;
        }
        let reason = self.get("Progressing").and_then(|condition| condition.reason.as_deref());
        if reason == Some(TIMED_OUT) {
            return;
        }
        let paused = reason == Some(PAUSED);
        if spec.paused == Some(true) && !paused {
            self.set("Progressing", "Unknown", PAUSED, "Deployment is paused".to_owned());
        } else if spec.paused != Some(true) && paused {
            self.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
    }

    /// An existing ReplicaSet serves the template.
    pub fn note_found(&mut self, spec: &DeploymentSpec, name: &str) {
        if deadline(spec).is_some() && self.get("Progressing").is_none() {
            let message = format!("Found new replica set \"{name}\"");
            self.set("Progressing", "True", "FoundNewReplicaSet", message);
        }
    }

    /// A ReplicaSet is created for the template.
    pub fn note_created(&mut self, spec: &DeploymentSpec, name: &str) {
        if deadline(spec).is_some() {
            let message = format!("Created new replica set \"{name}\"");
            self.set("Progressing", "True", "NewReplicaSetCreated", message);
        }
    }
}

/// The progress deadline in seconds; none if it is switched off.
fn deadline(spec: &DeploymentSpec) -> Option<i64> {
    spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX).map(i64::from)
}

/// Whether the whole Deployment is at the present template and available.
pub(crate) fn is_complete(deployment: &Deployment, status: Option<&DeploymentStatus>) -> bool {
    let Some(spec) = &deployment.spec else { return false };
    let wanted = replicas(spec);
    status.is_some_and(|status| {
        status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && status.observed_generation >= deployment.metadata.generation
    })
}

/// The status after the rollout's step, and when the progress deadline needs another look.
pub(crate) fn of(rollout: &Rollout, mut conditions: Conditions) -> (DeploymentStatus, Option<Duration>) {
    let deployment = rollout.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout, &before);
    let available = status.available_replicas.unwrap_or(0);
    if available >= rollout.wanted - rollout.strategy.unavailable() {
        let message = "Deployment has minimum availability.".to_owned();
        conditions.set("Available", "True", "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message);
    }
    let paused = rollout.spec.paused == Some(true);
    match deadline(rollout.spec) {
        None => conditions.remove("Progressing"),
        // A paused or deleted Deployment makes no progress and misses no deadline.
        Some(_) if paused || meta::is_deleting(deployment) => {}
        Some(seconds) => progress(rollout, &before, &status, &mut conditions, seconds),
    }
    note_failure(rollout, &mut conditions);
    let again = if paused { None } else { look_again(deployment, rollout.spec, &status, &conditions) };
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    (status, again)
}

fn counts(rollout: &Rollout, before: &DeploymentStatus) -> DeploymentStatus {
    let total = sum(rollout.members().map(Member::size));
    let available = sum(rollout.members().map(Member::available));
    let ready = sum(rollout.members().filter_map(|member| member.set.status.as_ref()?.ready_replicas));
    let terminating =
        sum(rollout.members().filter_map(|member| member.set.status.as_ref()?.terminating_replicas));
    let count = |value: i32| Some(value).filter(|value| *value != 0);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: count(sum(rollout.members().map(Member::pods))),
        updated_replicas: count(rollout.new.as_ref().map_or(0, Member::pods)),
        ready_replicas: count(ready),
        available_replicas: count(available),
        unavailable_replicas: count((total - available).max(0)),
        terminating_replicas: Some(terminating),
        collision_count: before.collision_count,
        conditions: None,
    }
}

fn progress(
    rollout: &Rollout,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
    deadline: i64,
) {
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet \"{}\"", meta::name(&new.set)),
        None => format!("Deployment \"{}\"", meta::name(rollout.deployment)),
    };
    let reason = conditions.get("Progressing").and_then(|condition| condition.reason.clone());
    if status.replicas == status.updated_replicas && reason.as_deref() == Some(COMPLETE) {
        return;
    }
    if is_complete(rollout.deployment, Some(status)) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set("Progressing", "True", COMPLETE, message);
    } else if progressed(before, status) {
        let message = format!("{subject} is progressing.");
        let transition = conditions
            .get("Progressing")
            .filter(|condition| condition.status == "True")
            .and_then(|condition| condition.last_transition_time.clone());
        // Removed first, so that the update time moves and the deadline starts anew.
        conditions.remove("Progressing");
        conditions.set("Progressing", "True", "ReplicaSetUpdated", message);
        if let (Some(transition), Some(condition)) = (transition, conditions.list.last_mut()) {
            condition.last_transition_time = Some(transition);
        }
    } else if timed_out(conditions, deadline) {
        let message = format!("{subject} has timed out progressing.");
        conditions.set("Progressing", "False", TIMED_OUT, message);
    }
}

/// Whether any count moved towards the goal since the last status (DeploymentProgressing).
fn progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let n = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(after.updated_replicas) > n(before.updated_replicas)
        || old(after) < old(before)
        || n(after.ready_replicas) > n(before.ready_replicas)
        || n(after.available_replicas) > n(before.available_replicas)
}

fn timed_out(conditions: &Conditions, deadline: i64) -> bool {
    let Some(condition) = conditions.get("Progressing") else { return false };
    match condition.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => condition
            .last_update_time
            .as_ref()
            .is_some_and(|time| time.0.as_second().saturating_add(deadline) < conditions.now.as_second()),
    }
}

fn look_again(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    status: &DeploymentStatus,
    conditions: &Conditions,
) -> Option<Duration> {
    let deadline = deadline(spec)?;
    let condition = conditions.get("Progressing")?;
    if is_complete(deployment, Some(status)) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let due = condition.last_update_time.as_ref()?.0.as_second().saturating_add(deadline);
    let wait = due.saturating_sub(conditions.now.as_second()).max(0).saturating_add(1);
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(1)))
}

/// A ReplicaSet that cannot create pods makes the Deployment say so.
fn note_failure(rollout: &Rollout, conditions: &mut Conditions) {
    let failure = rollout.new.iter().chain(&rollout.old).find_map(|member| {
        let list = member.set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            conditions.set("ReplicaFailure", "True", &reason, message);
        }
        None => conditions.remove("ReplicaFailure"),
    }
}
