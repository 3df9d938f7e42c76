//! What an environment's task does: the effects of its decisions, and what it sees of its members.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::object::{Digest, ObjectRef};
use engine::plan::Marks;
use engine::rollout::{ApplyMode, Effect, Event, HealthSummary, Phase};
use jiff::Timestamp;

use super::actor::{Actor, Input};
use super::desired::Desired;
use super::write::Order;
use crate::cluster::{ChangeKind, EnvironmentNotice};

impl Actor {
    pub(super) fn execute(&mut self, effect: Effect, queue: &mut VecDeque<Event>) {
        match effect {
            Effect::Check { digest, approved } => self.check(digest, approved),
            Effect::Apply { digest, mode } => self.apply(digest, mode),
            Effect::Prune { digest, approved } => {
                let rollback = matches!(self.rollout.phase, Phase::RollingBack | Phase::RollbackFailed);
                self.writer.prune(&self.environment, digest, self.desired.clone(), approved, rollback);
            }
            Effect::Sample { gate } => self.sample(&gate),
            Effect::Observe => self.observe(queue),
            Effect::Announce => self.announce(),
            Effect::Warn { reason, message } => self.warn(&reason, message),
        }
    }

    /// Tells whoever looks at the Environment: a log line and a Kubernetes event.
    pub(super) fn warn(&self, reason: &str, message: String) {
        tracing::warn!(environment = %self.environment.key(), reason, "{message}");
        self.tell(EnvironmentNotice {
            key: format!("{reason}-{}", Timestamp::now().as_millisecond()),
            warning: true,
            reason: reason.to_owned(),
            action: "Reconcile".to_owned(),
            note: message,
        });
    }

    /// Writes a Kubernetes event, in the background: nothing waits for it.
    pub(super) fn tell(&self, notice: EnvironmentNotice) {
        let (services, environment) = (self.services.clone(), self.environment.clone());
        tokio::spawn(async move {
            if let Err(error) = services.cluster.tell(&environment, &notice).await {
                tracing::debug!(environment = %environment.key(), %error, "an event was not written");
            }
        });
    }

    pub(super) fn announce(&mut self) {
        let key = self.environment.key();
        let mut notices = Vec::new();
        for outgoing in &self.rollout.outbox {
            let transition = &outgoing.transition;
            if transition.sequence > self.told {
                self.told = transition.sequence;
                let event = engine::message::kubernetes_event(transition);
                self.services.telemetry.transition(&key, &event.reason);
                tracing::info!(
                    environment = %self.environment.key(),
                    sequence = transition.sequence,
                    reason = ?transition.reason,
                    "{}", transition.message
                );
                notices.push(EnvironmentNotice {
                    key: transition.sequence.to_string(),
                    warning: event.type_ == "Warning",
                    action: transition.to.to_string(),
                    reason: event.reason,
                    note: event.note,
                });
            }
        }
        for notice in notices {
            self.tell(notice);
        }
        self.outbox.offer(&self.rollout.outbox);
    }

    pub(super) fn check(&mut self, digest: Digest, approved: bool) {
        let Some(candidate) = self.candidates.get(&digest).cloned() else {
            // After a restart: the check follows as soon as the source is rendered.
            self.awaited = Some((digest, approved));
            self.render();
            return;
        };
        let baseline = self.bundle_of_settled();
        let mode = self.next_mode(&digest);
        self.writer.check(&self.environment, candidate, baseline, mode, approved);
    }

    /// How a release would be applied if it passed the door now.
    pub(super) fn next_mode(&self, digest: &Digest) -> ApplyMode {
        let pods = self.rollout.settings.canary_pods;
        match &self.rollout.settled {
            Some(settled) if pods > 0 && settled.digest != *digest => ApplyMode::Canary { pods },
            _ => ApplyMode::Full,
        }
    }

    pub(super) fn bundle_of_settled(&self) -> Option<Digest> {
        self.rollout.settled.as_ref().map(|settled| settled.digest)
    }

    pub(super) fn apply(&mut self, digest: Digest, mode: ApplyMode) {
        let candidate = self.candidates.get(&digest).cloned();
        let baseline = self.bundle_of_settled().filter(|settled| *settled != digest);
        self.writer.apply(
            &self.environment,
            Order { digest, mode, candidate, baseline, desired: self.desired.clone() },
        );
    }

    pub(super) fn sample(&mut self, gate: &str) {
        if let Some(gate) = self.rollout.settings.gates.iter().find(|g| g.name == gate) {
            let workloads = match (&self.rollout.canaries, &self.desired) {
                (canaries, _) if !canaries.is_empty() => canaries.clone(),
                (_, Some(desired)) => desired.deployments(),
                _ => Vec::new(),
            };
            self.probes.sample(gate, workloads, self.rollout.since);
        }
    }

    /// Says anew how ready the members are, and whether they are what they should be.
    pub(super) fn observe(&mut self, queue: &mut VecDeque<Event>) {
        let Some(desired) = &self.desired else {
            return;
        };
        queue.push_back(Event::Health(self.health(desired)));
        if !self.writer.is_writing() && self.corrections.allowed(Instant::now()) {
            let key = self.environment.key();
            let mut objects = self.services.cluster.members(|index| desired.drifted(index));
            objects.retain(|object| self.services.claims.other(object, &key).is_none());
            if !objects.is_empty() {
                queue.push_back(Event::Drifted { objects });
            }
        }
    }

    pub(super) fn health(&self, desired: &Desired) -> HealthSummary {
        let pods = self.rollout.settings.canary_pods;
        self.services.cluster.health(&desired.digest, desired.refs(), &desired.canaries, pods)
    }

    pub(super) fn members_changed(
        &mut self,
        changes: Vec<(ObjectRef, ChangeKind)>,
        queue: &mut VecDeque<Event>,
    ) {
        let Some(desired) = &self.desired else {
            return;
        };
        let changed: Vec<ObjectRef> =
            changes.into_iter().map(|(object, _)| object).filter(|object| desired.wants(object)).collect();
        if changed.is_empty() {
            return;
        }
        let key = self.environment.key();
        if !self.writer.is_writing() && self.corrections.allowed(Instant::now()) {
            let claims = &self.services.claims;
            let objects: Vec<ObjectRef> = self.services.cluster.members(|index| {
                changed
                    .into_iter()
                    .filter(|object| {
                        desired.has_drifted(index, object) && claims.other(object, &key).is_none()
                    })
                    .collect()
            });
            if !objects.is_empty() {
                self.services.telemetry.drifted(&key, objects.len());
                queue.push_back(Event::Drifted { objects });
            }
        }
        queue.push_back(Event::Health(self.health(desired)));
    }

    /// While a rollout is under way the newest pods are watched: what keeps them from running is told at
    /// once, not at the deadline.
    pub(super) fn watch_pods(&mut self, desired: &Desired) {
        let marks = Marks::of_environment(self.environment.namespace(), self.environment.name());
        self.pods = Some(self.services.cluster.watch_pods(&marks, desired.refs()));
    }

    /// Looks for drift again after a pause.
    pub(super) fn look_again_in(&self, pause: Duration) {
        self.send_in(pause, Input::LookAgain);
    }

    pub(super) fn send_in(&self, pause: Duration, input: Input) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(input);
        });
    }
}
