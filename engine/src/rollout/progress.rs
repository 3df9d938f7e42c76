//! From the first write to the verdict: convergence, canary, gates, failure and return.

use jiff::SignedDuration;

use super::RollbackMode;
use super::event::{ApplyMode, Effect, HealthSummary};
use super::state::{Blocked, Failure, Held, HoldReason, Phase, Rollout};
use super::step::{Turn, list, shorten};
use super::transition::Reason;
use crate::gate::{OnUndecided, Sample, Verdict};
use crate::object::{Digest, ObjectRef};

/// When a release that could not be written is tried again, after what served before is back.
const UNWRITTEN_AGAIN: SignedDuration = SignedDuration::from_secs(60);

impl HealthSummary {
    /// Whether every member is ready.
    pub fn all_ready(&self) -> bool {
        self.progressing.is_empty() && self.failed.is_empty()
    }

    /// `3/5 ready: Deployment.apps shop/backend: 2 of 3 pods are available`; empty when all are.
    pub fn sentence(&self) -> String {
        let Some(first) = self.failed.first().or(self.progressing.first()) else {
            return String::new();
        };
        let others = self.failed.len() + self.progressing.len() - 1;
        let mut text = format!("{}/{} ready: {}: {}", self.ready, self.total, first.object, first.message);
        if others > 0 {
            text.push_str(&format!(" (and {others} more)"));
        }
        text
    }
}

impl Turn {
    fn is_target(&self, digest: &Digest) -> bool {
        self.rollout.target.as_ref().is_some_and(|target| target.digest == *digest)
    }

    fn is_settled(&self, digest: &Digest) -> bool {
        self.rollout.settled.as_ref().is_some_and(|settled| settled.digest == *digest)
    }

    pub(super) fn applied(
        &mut self,
        digest: &Digest,
        mode: &ApplyMode,
        canaries: &[ObjectRef],
        changed: u32,
    ) {
        match (self.rollout.phase, mode) {
            (_, ApplyMode::Correct(objects)) => {
                if changed > 0 {
                    self.drift_corrected(objects);
                }
                return;
            }
            (Phase::Applying, ApplyMode::Full | ApplyMode::Canary { .. }) if self.is_target(digest) => {
                self.rollout.canaries = canaries.to_vec();
                self.enter(Phase::Converging);
            }
            (Phase::Observing, ApplyMode::Promote) if self.is_target(digest) => {}
            (Phase::RollingBack | Phase::RollbackFailed, ApplyMode::Rollback) if self.is_settled(digest) => {}
            _ => return,
        }
        self.rollout.written = true;
        self.rollout.attempts = 0;
        self.rollout.retry_at = None;
        if self.rollout.phase != Phase::RollbackFailed {
            self.rollout.deadline = self.ready_deadline();
        }
        self.effects.push(Effect::Observe);
    }

    pub(super) fn apply_failed(&mut self, digest: &Digest, mode: &ApplyMode, message: &str) {
        let ours = match self.rollout.phase {
            Phase::Applying | Phase::Observing => self.is_target(digest),
            Phase::RollingBack | Phase::RollbackFailed => self.is_settled(digest),
            _ => false,
        };
        self.warn("ApplyFailed", message.to_owned());
        self.rollout.pruning = false;
        if !ours || matches!(mode, ApplyMode::Correct(_)) {
            return;
        }
        self.rollout.progress = shorten(message.to_owned());
        let seconds = 1_i64 << self.rollout.attempts.min(5);
        self.rollout.attempts = self.rollout.attempts.saturating_add(1);
        self.rollout.retry_at = Some(self.after(SignedDuration::from_secs(seconds.min(30))));
    }

    pub(super) fn deadline_passed(&mut self) {
        let waited = self.rollout.settings.ready_timeout_seconds;
        let what = if self.rollout.progress.is_empty() { "nothing is known" } else { &self.rollout.progress };
        let message = format!("not ready within {waited} s: {what}");
        match self.rollout.phase {
            Phase::RollingBack => {
                self.rollout.failure =
                    Some(Failure { reason: "RollbackFailed".to_owned(), message: message.clone() });
                self.announce(Reason::RollbackFailed, Phase::RollbackFailed, message, "holdfast");
            }
            Phase::Applying | Phase::Observing if !self.rollout.written => self.fail("ApplyFailed", message),
            Phase::Converging | Phase::Canary | Phase::Observing => self.fail("ReadyTimeout", message),
            _ => {}
        }
    }

    pub(super) fn health(&mut self, summary: &HealthSummary) {
        if summary.digest != self.rollout.wanted().map(|wanted| wanted.digest) {
            return;
        }
        if !matches!(self.rollout.phase, Phase::Applying) {
            self.rollout.progress = summary.sentence();
        }
        let ready = summary.all_ready();
        let convicted = (!summary.failed.is_empty()).then(|| summary.sentence());
        match self.rollout.phase {
            Phase::Converging | Phase::Canary | Phase::Observing
                if convicted.is_some() && self.rollout.written =>
            {
                let reason = summary.failed.first().map_or("HealthFailed", |failed| failed.reason.as_str());
                self.fail(reason, convicted.unwrap_or_default());
            }
            Phase::Converging if ready => self.converged(),
            Phase::Canary => self.await_readiness(ready),
            Phase::Observing if self.rollout.written => {
                self.await_readiness(ready);
                if ready {
                    self.finish();
                }
            }
            Phase::RollingBack | Phase::RollbackFailed if ready => self.finish(),
            Phase::Failed if ready && self.rollout.written && !self.convicted_by_evidence() => {
                // Late, but nothing speaks against it: it goes on where it stood, gates included.
                self.rollout.failure = None;
                self.enter(Phase::Converging);
                self.converged();
            }
            _ => {}
        }
    }

    /// Pods that stop being ready while gates are judged have the ready timeout to come back.
    fn await_readiness(&mut self, ready: bool) {
        self.rollout.deadline = if ready { None } else { self.rollout.deadline.or(self.ready_deadline()) };
    }

    /// Whether the failure says something about the release rather than about how long it took.
    fn convicted_by_evidence(&self) -> bool {
        self.rollout.failure.as_ref().is_none_or(|failure| failure.reason != "ReadyTimeout")
    }

    fn converged(&mut self) {
        let judged = self.rollout.settled.is_some() && !self.rollout.returning();
        if self.rollout.canaries.is_empty() {
            self.enter(Phase::Observing);
            self.rollout.deadline = None;
            if judged {
                self.begin_gates();
            }
            self.finish();
        } else {
            self.begin_gates();
            self.rollout.deadline = None;
            let message = format!("canary holds, gates are judged: {}", list(&self.rollout.canaries));
            self.announce(Reason::CanaryStarted, Phase::Canary, message, "holdfast");
            self.judge_gates();
        }
    }

    pub(super) fn sampled(&mut self, gate: &str, sample: &Sample) {
        if !self.rollout.gating {
            return;
        }
        let Some(index) = self.rollout.settings.gates.iter().position(|g| g.name == gate) else {
            return;
        };
        if let (Some(gate), Some(run)) =
            (self.rollout.settings.gates.get(index), self.rollout.gates.get_mut(index))
        {
            run.record(gate, sample.clone());
        }
        self.judge_gates();
    }

    pub(super) fn sample_due_gates(&mut self) {
        for (gate, run) in self.rollout.settings.gates.iter().zip(&mut self.rollout.gates) {
            if run.due(gate, self.now) {
                self.effects.push(Effect::Sample { gate: gate.name.clone() });
            }
        }
    }

    /// Weighs all gates: one failure convicts, all must pass.
    pub(super) fn judge_gates(&mut self) {
        if !matches!(self.rollout.phase, Phase::Canary | Phase::Observing) {
            return;
        }
        let mut passed = true;
        let mut undecided = None;
        let mut convicted = None;
        for (gate, run) in self.rollout.settings.gates.iter().zip(&self.rollout.gates) {
            match run.judge(gate, self.now) {
                Verdict::Passed => {}
                Verdict::Running => passed = false,
                Verdict::Failed { message } => {
                    convicted.get_or_insert(format!("gate {}: {message}", gate.name));
                }
                Verdict::Incident { message } => {
                    passed = false;
                    undecided.get_or_insert(format!("gate {}: {message}", gate.name));
                }
                Verdict::Undecided { message } => match gate.on_undecided {
                    OnUndecided::Promote => {}
                    OnUndecided::Rollback => {
                        convicted.get_or_insert(format!("gate {} is undecided: {message}", gate.name));
                    }
                    OnUndecided::Hold => {
                        passed = false;
                        undecided.get_or_insert(format!("gate {} is undecided: {message}", gate.name));
                    }
                },
            }
        }
        if let Some(message) = convicted {
            self.fail("GateFailed", message);
        } else if passed {
            self.gates_passed();
        } else if let Some(message) = undecided
            && !self.rollout.undecided
        {
            self.rollout.undecided = true;
            self.announce(Reason::Undecided, self.rollout.phase, message, "holdfast");
        }
    }

    fn gates_passed(&mut self) {
        self.rollout.gating = false;
        if self.rollout.phase == Phase::Canary {
            let message = match self.rollout.gates.len() {
                0 => "the canary is ready; the rest follows".to_owned(),
                gates => format!("{gates} of {gates} gates passed; the rest follows"),
            };
            self.begin_write();
            self.announce(Reason::CanaryPassed, Phase::Observing, message, "holdfast");
            self.apply_again();
        } else {
            self.effects.push(Effect::Observe);
        }
    }

    /// Everything is ready: what is no longer wanted goes, then the phase ends.
    fn finish(&mut self) {
        if !self.rollout.written || self.rollout.gating || self.rollout.pruning {
            return;
        }
        if let Some(wanted) = self.rollout.wanted() {
            let digest = wanted.digest;
            let approved = self.rollout.phase == Phase::Observing && self.rollout.deletions_approved;
            self.rollout.pruning = true;
            self.effects.push(Effect::Prune { digest, approved });
        }
    }

    pub(super) fn pruned(&mut self, digest: &Digest, kept: &[String]) {
        self.rollout.pruning = false;
        if !self.rollout.written || self.rollout.gating {
            return;
        }
        if !kept.is_empty() {
            self.warn("DeletionRefused", format!("not deleted: {}", kept.join("; ")));
        }
        match self.rollout.phase {
            Phase::Observing if self.is_target(digest) => self.settle(),
            Phase::RollingBack | Phase::RollbackFailed if self.is_settled(digest) => {
                self.rollout.deadline = None;
                self.rollout.progress.clear();
                let serving = self.rollout.settled.as_ref().map(|s| s.revision.short()).unwrap_or_default();
                let message = format!("{serving} serves again");
                self.announce(Reason::RolledBack, Phase::RolledBack, message, "holdfast");
            }
            _ => {}
        }
    }

    fn settle(&mut self) {
        let Some(target) = self.rollout.target.take() else {
            return;
        };
        let message = format!("{} settled: {}", target.revision.short(), target.revision.subject);
        let rollout = &mut self.rollout;
        rollout.blocked.retain(|blocked| blocked.digest != target.digest);
        let before = rollout.settled.replace(target);
        if let Some(before) = before
            && rollout.settled.as_ref().is_some_and(|settled| settled.digest != before.digest)
        {
            rollout.previous = Some(before);
        }
        rollout.failure = None;
        rollout.deadline = None;
        rollout.retry_at = None;
        rollout.progress.clear();
        self.announce(Reason::Settled, Phase::Settled, message, "holdfast");
        self.rollout.gates.clear();
    }

    fn fail(&mut self, reason: &str, message: String) {
        let undo = self.rollout.settings.rollback == RollbackMode::Auto
            && self.rollout.settled.is_some()
            && !self.rollout.returning();
        if undo {
            self.roll_back(reason, message, "holdfast");
        } else {
            self.rest_failed(reason, message, "holdfast");
        }
    }

    fn rest_failed(&mut self, reason: &str, message: String, actor: &str) {
        let rollout = &mut self.rollout;
        rollout.failure = Some(Failure { reason: reason.to_owned(), message: message.clone() });
        rollout.deadline = None;
        rollout.retry_at = None;
        rollout.gating = false;
        self.announce(Reason::RolloutFailed, Phase::Failed, message, actor);
    }

    /// The target failed: it is blocked and the last settled bundle returns.
    pub(super) fn roll_back(&mut self, reason: &str, message: String, actor: &str) {
        let Some(target) = self.rollout.target.clone() else {
            return;
        };
        self.rest_failed(reason, message.clone(), actor);
        let again = self.after(UNWRITTEN_AGAIN);
        let rollout = &mut self.rollout;
        rollout.blocked.retain(|blocked| blocked.digest != target.digest);
        if reason == "ApplyFailed" {
            // That it could not be written says nothing against it: it waits, and is tried again.
            let (reason, retry_at) = (HoldReason::ApplyRejected, Some(again));
            rollout.held = Some(Held { release: target, reason, message, retry_at, attempts: 1 });
        } else {
            if rollout.blocked.len() >= Rollout::BLOCKED_KEPT {
                rollout.blocked.remove(0);
            }
            let (digest, revision) = (target.digest, target.revision);
            rollout.blocked.push(Blocked { digest, revision, message, at: self.now });
        }
        let serving = rollout.settled.as_ref().map(|s| s.revision.short()).unwrap_or_default();
        self.begin_write();
        self.announce(Reason::RollbackStarted, Phase::RollingBack, format!("going back to {serving}"), actor);
        self.apply_again();
    }
}
