//! The state of an environment as it is stored: for the next agent, and for people.

use std::collections::BTreeMap;

use engine::rollout::{Rollout, Sink};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{AuditTip, EnvironmentStatus, MessageState};

/// The requests by annotation that were acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// `reconcile-requested-at`.
    pub reconcile: Option<String>,
    /// `retry-requested-at`.
    pub retry: Option<String>,
    /// `rollback-requested-at`.
    pub rollback: Option<String>,
    /// `approve`.
    pub approve: Option<String>,
}

impl From<&EnvironmentStatus> for Handled {
    fn from(status: &EnvironmentStatus) -> Self {
        Self {
            reconcile: status.last_handled_reconcile_at.clone(),
            retry: status.last_handled_retry_at.clone(),
            rollback: status.last_handled_rollback_at.clone(),
            approve: status.last_handled_approval.clone(),
        }
    }
}

/// Everything that a restart needs to know.
#[derive(Debug, Clone)]
pub struct Persisted {
    /// The state of the rollout, with its outbox.
    pub rollout: Rollout,
    /// The newest evidence record.
    pub audit: Option<AuditTip>,
    /// The messages that are updated in place.
    pub messages: BTreeMap<String, MessageState>,
    /// The requests that were acted on.
    pub handled: Handled,
    /// The generation of the specification in force.
    pub generation: Option<i64>,
    /// What cannot be delivered now, and why.
    pub undelivered: BTreeMap<Sink, String>,
}

impl Persisted {
    /// Whether both are stored as the same text, but for the samples of gates.
    pub fn same_but_for_samples(&self, other: &Self) -> bool {
        self.same_around(other) && self.rollout.same_but_for_samples(&other.rollout)
    }

    /// Whether both are stored as the same text.
    pub fn same(&self, other: &Self) -> bool {
        self.same_around(other) && self.rollout.same_when_stored(&other.rollout)
    }

    fn same_around(&self, other: &Self) -> bool {
        self.audit == other.audit
            && self.messages == other.messages
            && self.handled == other.handled
            && self.generation == other.generation
            && self.undelivered == other.undelivered
    }

    /// The status, over the conditions that were there.
    ///
    /// # Errors
    /// When the state cannot be written as JSON.
    pub fn status(&self, before: &EnvironmentStatus) -> Result<EnvironmentStatus, serde_json::Error> {
        let serving = self.rollout.serving();
        let mut status = EnvironmentStatus {
            observed_generation: self.generation,
            conditions: before.conditions.clone(),
            phase: Some(self.rollout.phase.to_string()),
            revision: serving.map(|release| release.revision.short()),
            digest: serving.map(|release| release.digest.to_string()),
            message: Some(engine::message::summary(&self.rollout)),
            rollout: Some(serde_json::to_value(&self.rollout)?),
            audit: self.audit.clone(),
            messages: self.messages.clone(),
            last_handled_reconcile_at: self.handled.reconcile.clone(),
            last_handled_retry_at: self.handled.retry.clone(),
            last_handled_rollback_at: self.handled.rollback.clone(),
            last_handled_approval: self.handled.approve.clone(),
        };
        let mut conditions = engine::message::conditions(&self.rollout);
        conditions.push(engine::message::delivered(&self.undelivered));
        for condition in conditions {
            status.set_condition(Condition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                observed_generation: self.generation,
                last_transition_time: Time(Timestamp::now()),
            });
        }
        Ok(status)
    }
}
