//! The fold: one event in, the next state and its effects out.

use jiff::{SignedDuration, Timestamp};

use super::event::{ApplyMode, Command, Effect, Event, Sink};
use super::state::{Held, HoldReason, Outgoing, Phase, Rollout};
use super::transition::{Reason, Transition};
use super::{Drift, Settings, SourceProblem};
use crate::gate::{GateReport, GateRun};
use crate::object::ObjectRef;

/// Drift is told of at most this often; every correction still counts in the metrics.
const DRIFT_TOLD_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// Folds one event into a rollout. `now` is passed in; nothing here reads a clock.
///
/// An event that no longer fits (an answer to an effect of a rollout that was superseded since) changes
/// nothing: answers name the bundle that they are about.
pub fn step(rollout: &Rollout, event: &Event, now: Timestamp) -> (Rollout, Vec<Effect>) {
    let mut turn = Turn { rollout: rollout.clone(), effects: Vec::new(), now };
    turn.fold(event);
    let baseline = |rollout: &Rollout| rollout.settled.as_ref().map(|settled| settled.digest);
    if baseline(rollout) != baseline(&turn.rollout) {
        turn.rollout.settled_at = turn.rollout.settled.is_some().then_some(now);
    }
    (turn.rollout, turn.effects)
}

/// One call of [`step`] under way.
pub(super) struct Turn {
    pub(super) rollout: Rollout,
    pub(super) effects: Vec<Effect>,
    pub(super) now: Timestamp,
}

impl Turn {
    fn fold(&mut self, event: &Event) {
        match event {
            Event::Started => self.started(),
            Event::Configured(settings) => self.configured(settings),
            Event::Candidate(release) => self.candidate(release),
            Event::SourceFailed(problem) => self.source_failed(problem),
            Event::SourceRecovered => self.source_recovered(),
            Event::Admitted { digest } => self.admitted(digest),
            Event::Refused { digest, problem } => self.refused(digest, problem),
            Event::Applied { digest, mode, canaries, changed } => {
                self.applied(digest, mode, canaries, *changed);
            }
            Event::ApplyFailed { digest, mode, message } => self.apply_failed(digest, mode, message),
            Event::Pruned { digest, kept, .. } => self.pruned(digest, kept),
            Event::Health(summary) => self.health(summary),
            Event::Sampled { gate, sample } => self.sampled(gate, sample),
            Event::Tick => self.tick(),
            Event::Drifted { objects } => self.drifted(objects),
            Event::Delivered { sequence, sink } => self.delivered(*sequence, *sink),
            Event::OtherChanged => self.other_changed(),
            Event::Commanded { command, actor } => match command {
                Command::Approve(digest) => self.approve(digest, actor),
                Command::Retry => self.retry(actor),
                Command::Rollback => self.rollback_requested(actor),
            },
        }
    }

    /// The effects that the phase still needs, after whatever was in memory is gone.
    fn started(&mut self) {
        if self.rollout.phase.in_progress() && self.rollout.deadline.is_some() {
            // Time in which nobody could work on it does not count against it.
            self.rollout.deadline = self.ready_deadline();
        }
        let rollout = &self.rollout;
        match rollout.phase {
            Phase::Applying | Phase::Observing | Phase::RollingBack | Phase::RollbackFailed
                if !rollout.written =>
            {
                self.apply_again();
            }
            Phase::Idle => {}
            _ => self.effects.push(Effect::Observe),
        }
        let approved = self.rollout.held.as_ref().is_some_and(|held| {
            Some(held.release.digest) == self.rollout.approved && held.reason != HoldReason::DigestBlocked
        });
        if approved {
            self.check_held();
        }
        if !self.rollout.outbox.is_empty() {
            self.effects.push(Effect::Announce);
        }
    }

    fn configured(&mut self, settings: &Settings) {
        if self.rollout.settings == *settings {
            return;
        }
        let gates_changed = self.rollout.settings.gates != settings.gates;
        let windows_changed = self.rollout.settings.windows != settings.windows;
        self.rollout.settings = settings.clone();
        let in_window = |held: &Held| held.reason == HoldReason::WindowClosed;
        if windows_changed
            && self.rollout.checking.is_none()
            && self.rollout.held.as_ref().is_some_and(in_window)
        {
            self.check_held();
        }
        if self.rollout.gating && gates_changed {
            self.begin_gates();
        }
        for outgoing in &mut self.rollout.outbox {
            outgoing.recorded |= !settings.evidence;
            outgoing.notified |= !settings.messages;
        }
        self.sweep_outbox();
    }

    fn source_failed(&mut self, problem: &SourceProblem) {
        if self.rollout.source_problem.as_ref() == Some(problem) {
            return;
        }
        self.rollout.source_problem = Some(problem.clone());
        if problem.commit_at_fault {
            self.announce(Reason::SourceFailed, self.rollout.phase, problem.message.clone(), "git");
        } else {
            // An outage of Git is no part of the environment's history: nothing changed.
            self.warn(&problem.reason, problem.message.clone());
        }
    }

    fn source_recovered(&mut self) {
        if let Some(problem) = self.rollout.source_problem.take() {
            self.recovered(&problem);
        }
    }

    pub(super) fn recovered(&mut self, problem: &SourceProblem) {
        let message = format!("the source gives a bundle again, after {}", problem.reason);
        if problem.commit_at_fault {
            self.announce(Reason::SourceRecovered, self.rollout.phase, message, "git");
        } else {
            self.warn("SourceRecovered", message);
        }
    }

    fn tick(&mut self) {
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= self.now);
        let (retry, deadline) = (due(self.rollout.retry_at), due(self.rollout.deadline));
        let door = due(self.rollout.held.as_ref().and_then(|held| held.retry_at));
        if deadline {
            self.rollout.deadline = None;
            self.deadline_passed();
        } else if retry {
            self.rollout.retry_at = None;
            self.apply_again();
        }
        if door && self.rollout.checking.is_none() {
            self.check_held();
        }
        if self.rollout.gating {
            self.sample_due_gates();
            self.judge_gates();
        }
    }

    fn drifted(&mut self, objects: &[ObjectRef]) {
        if self.rollout.settings.suspended || objects.is_empty() {
            return;
        }
        let unwritten = !self.rollout.written
            && matches!(
                self.rollout.phase,
                Phase::Applying
                    | Phase::Observing
                    | Phase::Failed
                    | Phase::RollingBack
                    | Phase::RollbackFailed
            );
        let Some(wanted) = self.rollout.wanted().filter(|_| !unwritten) else {
            return;
        };
        let digest = wanted.digest;
        match self.rollout.settings.drift {
            Drift::Correct => {
                self.effects.push(Effect::Apply { digest, mode: ApplyMode::Correct(objects.to_vec()) })
            }
            Drift::Report => {
                let message = format!("left alone, as the Environment asks: {}", list(objects));
                self.warn("Drifted", message);
            }
        }
    }

    pub(super) fn drift_corrected(&mut self, objects: &[ObjectRef]) {
        let quiet =
            self.rollout.drift_told.is_some_and(|told| self.now.duration_since(told) < DRIFT_TOLD_EVERY);
        let message = format!("set back what was changed by somebody else: {}", list(objects));
        if quiet {
            self.warn("DriftCorrected", message);
        } else {
            self.rollout.drift_told = Some(self.now);
            self.announce(Reason::DriftCorrected, self.rollout.phase, message, "holdfast");
        }
    }

    fn delivered(&mut self, sequence: u64, sink: Sink) {
        for outgoing in self.rollout.outbox.iter_mut().filter(|o| o.transition.sequence <= sequence) {
            match sink {
                Sink::Evidence => outgoing.recorded = true,
                Sink::Messages => outgoing.notified = true,
            }
        }
        self.sweep_outbox();
    }

    fn sweep_outbox(&mut self) {
        self.rollout.outbox.retain(|outgoing| !(outgoing.recorded && outgoing.notified));
    }

    /// Moves to a phase and puts the transition into the outbox.
    pub(super) fn announce(&mut self, reason: Reason, to: Phase, message: String, actor: &str) {
        let from = self.rollout.phase;
        self.enter(to);
        let rollout = &mut self.rollout;
        rollout.sequence += 1;
        let release = match reason {
            Reason::Held => rollout.held.as_ref().map(|held| held.release.clone()),
            // About no release: the commit at fault made none.
            Reason::SourceFailed | Reason::SourceRecovered => None,
            Reason::DriftCorrected => rollout.wanted().cloned(),
            Reason::Settled | Reason::RevisionAdvanced => rollout.settled.clone(),
            _ => rollout.target.clone(),
        };
        let about_gates = !matches!(
            reason,
            Reason::Held
                | Reason::SourceFailed
                | Reason::SourceRecovered
                | Reason::DriftCorrected
                | Reason::RevisionAdvanced
        );
        let runs = rollout.gates.iter().zip(&rollout.settings.gates).filter(|_| about_gates);
        // The samples are what an outcome was decided by; on the way to it the counts are enough.
        let samples = reason.is_outcome() || reason == Reason::CanaryPassed;
        let gates = runs.map(|(run, gate)| run.report(gate));
        let gates = gates
            .map(|report| if samples { report } else { GateReport { samples: Vec::new(), ..report } })
            .collect();
        let transition = Transition {
            sequence: rollout.sequence,
            at: self.now,
            reason,
            from,
            to,
            message: shorten(message),
            release,
            serving: rollout.serving().cloned(),
            actor: actor.to_owned(),
            gates,
            started: rollout.started,
        };
        rollout.outbox.push(Outgoing {
            transition,
            recorded: !rollout.settings.evidence,
            notified: !rollout.settings.messages,
        });
        self.bound_outbox();
        if !self.effects.contains(&Effect::Announce) {
            self.effects.push(Effect::Announce);
        }
    }

    /// Keeps the outbox small enough to be stored: when readers are out of reach for long, details give way
    /// to outcomes. The numbers of the transitions show what was left out.
    fn bound_outbox(&mut self) {
        let outbox = &mut self.rollout.outbox;
        let detail = |outgoing: &Outgoing| {
            !outgoing.transition.reason.is_outcome() && outgoing.transition.reason != Reason::RolloutStarted
        };
        let over = outbox.len().saturating_sub(Rollout::OUTBOX_KEPT);
        for outgoing in outbox.iter_mut().take(over) {
            outgoing.transition.gates.iter_mut().for_each(|gate| gate.samples.clear());
            outgoing.notified |= detail(outgoing);
            outgoing.transition.message = cut(std::mem::take(&mut outgoing.transition.message), 256);
        }
        while outbox.len() > 4 * Rollout::OUTBOX_KEPT {
            let oldest = outbox.iter().position(detail).unwrap_or(0);
            outbox.remove(oldest);
        }
        self.sweep_outbox();
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if self.rollout.phase != phase {
            self.rollout.phase = phase;
            self.rollout.since = self.now;
        }
    }

    pub(super) fn warn(&mut self, reason: &str, message: String) {
        self.effects.push(Effect::Warn { reason: reason.to_owned(), message });
    }

    pub(super) fn ready_deadline(&self) -> Option<Timestamp> {
        Some(self.after(SignedDuration::from_secs(self.rollout.settings.ready_timeout_seconds.max(1).into())))
    }

    /// `now` and a duration; the end of time where that is beyond it.
    pub(super) fn after(&self, duration: SignedDuration) -> Timestamp {
        self.now.checked_add(duration).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn begin_gates(&mut self) {
        self.rollout.gates =
            self.rollout.settings.gates.iter().map(|gate| GateRun::new(gate, self.now)).collect();
        self.rollout.gating = !self.rollout.gates.is_empty();
        self.rollout.undecided = false;
    }
}

/// A sentence of a size that can be stored many times: an API server that refuses a thousand objects must
/// not make the state too large.
pub(super) fn shorten(text: String) -> String {
    cut(text, 4096)
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// A few objects by name, and how many more there are.
pub(super) fn list(objects: &[ObjectRef]) -> String {
    const NAMED: usize = 5;
    let mut text = objects.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if objects.len() > NAMED {
        text.push_str(&format!(" and {} more", objects.len() - NAMED));
    }
    text
}
