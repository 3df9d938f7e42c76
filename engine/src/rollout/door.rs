//! The door: which releases may start, which wait, and what people may ask for.

use jiff::SignedDuration;

use super::event::{ApplyMode, DoorProblem, Effect};
use super::state::{Held, HoldReason, Phase, Release};
use super::step::{Turn, shorten};
use super::transition::Reason;
use super::window::closed;
use crate::object::Digest;

impl Turn {
    /// The source gives this release now. That it gives one again is news of its own only if nothing else
    /// follows from it.
    pub(super) fn candidate(&mut self, release: &Release) {
        let problem = self.rollout.source_problem.take();
        let told = self.rollout.sequence;
        self.weigh(release);
        if self.rollout.sequence == told
            && self.rollout.checking.is_none()
            && let Some(problem) = problem
        {
            self.recovered(&problem);
        }
    }

    fn weigh(&mut self, release: &Release) {
        let digest = release.digest;
        let is = |other: &Option<Release>| other.as_ref().is_some_and(|other| other.digest == digest);
        if is(&self.rollout.checking) {
            self.rollout.checking = Some(release.clone());
            return;
        }
        self.rollout.checking = None;
        let on_its_way = self.rollout.phase != Phase::RollingBack
            && (self.rollout.phase.in_progress() || self.rollout.phase == Phase::Failed);
        if on_its_way && is(&self.rollout.target) {
            self.rollout.held = None;
            return;
        }
        if !on_its_way && is(&self.rollout.settled) {
            self.serving_already(release);
            return;
        }
        if let Some(held) = &self.rollout.held
            && held.release.digest == digest
            && (held.reason != HoldReason::Suspended || self.rollout.settings.suspended)
            && (held.reason != HoldReason::DigestBlocked || self.rollout.block_on(&digest).is_some())
            // The commit may mean something else for the environment that is waited for.
            && (held.reason != HoldReason::AwaitsEnvironment || held.release.revision == release.revision)
        {
            // Known to wait: a newer commit with the same bundle has the same fate.
            return;
        }
        if self.rollout.settings.suspended {
            let message = "reconciliation is suspended".to_owned();
            self.hold(release, HoldReason::Suspended, message, None);
        } else if let Some(blocked) = self.rollout.block_on(&digest) {
            let message = format!(
                "this bundle failed at {}: {}. Push a change, or ask for a retry",
                blocked.revision.short(),
                blocked.message
            );
            self.hold(release, HoldReason::DigestBlocked, message, None);
        } else {
            self.check(release.clone());
        }
    }

    /// The bundle is the settled one. A commit that changes nothing here costs nothing here: the baseline
    /// keeps the commit that brought it, and only an environment that waited or went back has news.
    fn serving_already(&mut self, release: &Release) {
        let waited = self.rollout.held.take().is_some();
        match self.rollout.phase {
            Phase::RollingBack | Phase::RollbackFailed => {}
            Phase::Settled if !waited => {}
            _ => {
                let message = format!("{} asks for what serves already", release.revision.short());
                self.rollout.settled = Some(release.clone());
                self.rollout.failure = None;
                self.rollout.target = None;
                self.rollout.gates.clear();
                self.announce(Reason::RevisionAdvanced, Phase::Settled, message, "git");
            }
        }
    }

    fn check(&mut self, release: Release) {
        let digest = release.digest;
        self.rollout.checking = Some(release);
        let approved = self.rollout.approved == Some(digest);
        self.effects.push(Effect::Check { digest, approved });
    }

    /// Tries the door again for what waits there.
    pub(super) fn check_held(&mut self) {
        // The time to try again stays until there is an answer: a crash meanwhile must not lose it.
        if let Some(held) = &self.rollout.held {
            let release = held.release.clone();
            self.check(release);
        }
    }

    pub(super) fn admitted(&mut self, digest: &Digest) {
        let Some(release) = self.rollout.checking.take_if(|release| release.digest == *digest) else {
            return;
        };
        if self.rollout.settings.suspended {
            self.hold(&release, HoldReason::Suspended, "reconciliation is suspended".to_owned(), None);
            return;
        }
        if self.rollout.settings.approval_required && self.rollout.approved != Some(*digest) {
            let message =
                format!("waits for approval: holdfast approve {} {digest}", self.rollout.environment);
            self.hold(&release, HoldReason::ApprovalRequired, message, None);
            return;
        }
        if let Some(closed) = closed(&self.rollout.settings.windows, self.now) {
            let retry = closed.until.map(|until| until.duration_since(self.now));
            self.hold(&release, HoldReason::WindowClosed, closed.message, retry);
            return;
        }
        let actor = if self.rollout.approved.is_some() { "approver" } else { "git" };
        self.start(release, actor);
    }

    /// What waits for another environment may have waited long enough.
    pub(super) fn other_changed(&mut self) {
        let waits =
            self.rollout.held.as_ref().is_some_and(|held| held.reason == HoldReason::AwaitsEnvironment);
        if waits && self.rollout.checking.is_none() {
            self.check_held();
        }
    }

    pub(super) fn refused(&mut self, digest: &Digest, problem: &DoorProblem) {
        let Some(release) = self.rollout.checking.take_if(|release| release.digest == *digest) else {
            return;
        };
        let attempts = match &self.rollout.held {
            Some(held) if held.release.digest == *digest => held.attempts,
            _ => 0,
        };
        // What the API server refuses may pass later without a commit: a CRD or a namespace appears.
        let first = match (problem.transient, problem.reason) {
            (true, _) => Some(2),
            (false, HoldReason::ApplyRejected) => Some(15),
            _ => None,
        };
        let known = problem.again_at.map(|at| at.duration_since(self.now).max(SignedDuration::from_secs(1)));
        let retry = known.or_else(|| {
            first.map(|seconds: i64| SignedDuration::from_secs((seconds << attempts.min(8)).min(300)))
        });
        self.hold(&release, problem.reason, problem.message.clone(), retry);
    }

    /// Lets a release wait. People are told once for each cause.
    fn hold(
        &mut self,
        release: &Release,
        reason: HoldReason,
        message: String,
        retry: Option<SignedDuration>,
    ) {
        let message = shorten(message);
        let before = self.rollout.held.take();
        let known = before.as_ref().is_some_and(|held| {
            held.release.digest == release.digest && held.reason == reason && held.message == message
        });
        let attempts = match &before {
            Some(held) if held.release.digest == release.digest => held.attempts.saturating_add(1),
            _ => 1,
        };
        self.rollout.held = Some(Held {
            release: release.clone(),
            reason,
            message: message.clone(),
            retry_at: retry.map(|retry| self.after(retry)),
            attempts,
        });
        if known {
            return;
        }
        // A phase that says more than "waits" stays: it tells what serves.
        let to = match self.rollout.phase {
            Phase::Idle | Phase::Settled => Phase::Held,
            Phase::RolledBack if reason != HoldReason::DigestBlocked => Phase::Held,
            phase => phase,
        };
        let of_this_rollout = reason == HoldReason::DigestBlocked
            && self.rollout.target.as_ref().is_some_and(|target| target.digest == release.digest);
        if of_this_rollout {
            // Its failure was told; that Git still asks for it is no news.
            self.enter(to);
        } else {
            self.announce(Reason::Held, to, message, "holdfast");
        }
    }

    /// A release passed the door.
    fn start(&mut self, release: Release, actor: &str) {
        if self.rollout.phase.in_progress() && self.rollout.phase != Phase::RollingBack {
            let message = format!("{} takes its place", release.revision.short());
            self.announce(Reason::Superseded, self.rollout.phase, message, "git");
        }
        let message = format!("rolling out {}: {}", release.revision.short(), release.revision.subject);
        self.rollout.deletions_approved = self.rollout.approved.take() == Some(release.digest);
        self.rollout.target = Some(release);
        self.rollout.held = None;
        self.rollout.failure = None;
        self.rollout.started = self.now;
        self.rollout.gates.clear();
        self.rollout.progress.clear();
        self.begin_write();
        self.announce(Reason::RolloutStarted, Phase::Applying, message, actor);
        self.apply_again();
    }

    /// Forgets what belonged to the phase before, at the begin of one that writes.
    pub(super) fn begin_write(&mut self) {
        self.rollout.written = false;
        self.rollout.pruning = false;
        self.rollout.canaries.clear();
        self.rollout.gating = false;
        self.rollout.undecided = false;
        self.rollout.attempts = 0;
        self.rollout.retry_at = None;
        self.rollout.deadline = self.ready_deadline();
    }

    /// Asks for the write that the phase is about.
    pub(super) fn apply_again(&mut self) {
        let rollout = &self.rollout;
        let (release, mode) = match rollout.phase {
            Phase::Applying => {
                let pods = rollout.settings.canary_pods;
                let canary = pods > 0 && rollout.settled.is_some() && !rollout.returning();
                (&rollout.target, if canary { ApplyMode::Canary { pods } } else { ApplyMode::Full })
            }
            Phase::Observing => (&rollout.target, ApplyMode::Promote),
            Phase::RollingBack | Phase::RollbackFailed => (&rollout.settled, ApplyMode::Rollback),
            _ => return,
        };
        if let Some(release) = release {
            self.effects.push(Effect::Apply { digest: release.digest, mode });
        }
    }

    pub(super) fn approve(&mut self, digest: &Digest, actor: &str) {
        // An approval opens the door; that a bundle failed is another matter, for a retry to lift.
        let waits =
            self.rollout.held.as_ref().is_some_and(|held| {
                held.release.digest == *digest && held.reason != HoldReason::DigestBlocked
            });
        if !waits {
            return;
        }
        self.rollout.approved = Some(*digest);
        if self.rollout.checking.is_none() {
            self.warn("Approved", format!("{actor} approved {digest}"));
            self.check_held();
        }
    }

    pub(super) fn retry(&mut self, actor: &str) {
        self.warn("RetryRequested", format!("{actor} asked for a retry"));
        if let Some(held) = &self.rollout.held {
            let digest = held.release.digest;
            self.rollout.blocked.retain(|blocked| blocked.digest != digest);
            if self.rollout.checking.is_none() {
                self.check_held();
            }
        } else if self.rollout.phase == Phase::Failed
            && let Some(target) = self.rollout.target.clone()
        {
            self.rollout.blocked.retain(|blocked| blocked.digest != target.digest);
            self.check(target);
        }
    }

    pub(super) fn rollback_requested(&mut self, actor: &str) {
        let message = format!("{actor} asked for a rollback");
        match self.rollout.phase {
            Phase::Applying | Phase::Converging | Phase::Canary | Phase::Observing | Phase::Failed
                if self.rollout.settled.is_some() && !self.rollout.returning() =>
            {
                self.roll_back("RollbackRequested", message, actor);
            }
            Phase::Settled | Phase::Held if self.rollout.previous.is_some() => {
                self.rollout.target = self.rollout.settled.take();
                self.rollout.settled = self.rollout.previous.take();
                self.roll_back("RollbackRequested", message, actor);
            }
            _ => self
                .warn("RollbackRefused", format!("{message}, but there is no settled release to go back to")),
        }
    }
}
