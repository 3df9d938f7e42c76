//! The state of a rollout: everything that survives a restart of the agent.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Settings, Transition};
use crate::gate::GateRun;
use crate::object::{Digest, ObjectRef};

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was ever deployed.
    Idle,
    /// A release waits at the door; the cluster keeps what it has.
    Held,
    /// Objects are being written.
    Applying,
    /// Everything is written; objects (or the canary's pods) become ready.
    Converging,
    /// The canary holds: new pods take live traffic and the gates are judged.
    Canary,
    /// The whole release is out; readiness, and without a canary the gates, are awaited.
    Observing,
    /// The release is the new baseline.
    Settled,
    /// The release failed and is not undone.
    Failed,
    /// The last settled bundle is being applied again.
    RollingBack,
    /// The last settled bundle serves again.
    RolledBack,
    /// The last settled bundle did not become ready in time.
    RollbackFailed,
}

impl Phase {
    /// Whether a release is on its way.
    pub fn in_progress(self) -> bool {
        matches!(self, Self::Applying | Self::Converging | Self::Canary | Self::Observing | Self::RollingBack)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A commit that a bundle was rendered from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Revision {
    /// Full commit id; for a directory source `dir:` and a digest.
    pub commit: String,
    /// Branch, tag or directory that it was read from.
    pub reference: String,
    /// Id of the commit's tree.
    pub tree: String,
    /// `Name <mail>` of the commit's author.
    pub author: String,
    /// First line of the commit message.
    pub subject: String,
    /// Who signed it, where signatures are verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Whether the branch was force-pushed to reach it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

impl Revision {
    /// `main@1a2b3c4d5e6f`, as people write it.
    pub fn short(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        if self.reference.is_empty() { commit.to_owned() } else { format!("{}@{commit}", self.reference) }
    }
}

/// A rendered bundle and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Digest of the bundle: this, not the commit, says what is deployed.
    pub digest: Digest,
    /// The newest commit that renders to it.
    pub revision: Revision,
    /// Container images in it, sorted, without repetition.
    #[serde(default)]
    pub images: Vec<String>,
    /// How many objects it has.
    #[serde(default)]
    pub objects: u32,
}

/// Why a release waits at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReason {
    /// This very bundle failed before.
    DigestBlocked,
    /// A policy denies an object.
    PolicyDenied,
    /// The API server refuses an object; nothing was written.
    ApplyRejected,
    /// It would delete more than is allowed without approval.
    DeletionRefused,
    /// Another environment has to be ready, or to have settled the same, before.
    AwaitsEnvironment,
    /// A person has to approve it.
    ApprovalRequired,
    /// No release goes out at this time.
    WindowClosed,
    /// Reconciliation is suspended.
    Suspended,
}

/// A release that waits at the door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The release.
    pub release: Release,
    /// Why it waits.
    pub reason: HoldReason,
    /// In a sentence, with the objects or files named.
    pub message: String,
    /// When the door is tried again, where that can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// How often the door was tried.
    #[serde(default)]
    pub attempts: u32,
}

/// A bundle that failed and is not deployed again by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// The bundle.
    pub digest: Digest,
    /// The commit that it failed at.
    pub revision: Revision,
    /// Why it failed.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
}

/// Why a release failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The reason as a word in CamelCase, as conditions have it.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// What keeps the agent from having a bundle to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceProblem {
    /// `FetchFailed`, `RenderFailed`, `PathNotFound`…: a word in CamelCase.
    pub reason: String,
    /// In a sentence, naming the file and line, or the repository.
    pub message: String,
    /// Whether the newest commit itself is at fault (it does not render), rather than the way to it.
    pub commit_at_fault: bool,
}

/// A transition that has not reached everyone who must learn of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outgoing {
    /// What happened.
    pub transition: Transition,
    /// The evidence record is written and safe.
    #[serde(default)]
    pub recorded: bool,
    /// The messages are delivered, or replaced by newer ones.
    #[serde(default)]
    pub notified: bool,
}

/// The state of an environment's rollouts. Plain data: it is stored in the Environment's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `namespace/name` of the Environment.
    pub environment: String,
    /// Where the rollout is.
    pub phase: Phase,
    /// When the phase was entered.
    pub since: Timestamp,
    /// When the rollout of the target began.
    pub started: Timestamp,
    /// How many transitions there were: the number of the newest one.
    pub sequence: u64,
    /// The settings in force.
    pub settings: Settings,
    /// The baseline: the release that settled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Release>,
    /// Since when the baseline's bundle is the baseline; a commit that changes nothing of it changes nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// The baseline before that: where a person's rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Release>,
    /// The release on its way; after a failure, the one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Release>,
    /// The release whose checks at the door are under way. Not stored: the source gives it again.
    #[serde(skip)]
    pub checking: Option<Release>,
    /// The newest release of the source, if it waits at the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The digest that a person approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Digest>,
    /// Whether a person approved the target, deletions included.
    #[serde(default)]
    pub deletions_approved: bool,
    /// Bundles that failed, newest last, at most [`Rollout::BLOCKED_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
    /// Why the target failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What keeps the source from giving a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_problem: Option<SourceProblem>,
    /// Deployments held at canary size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<ObjectRef>,
    /// Whether the write that the phase began with is confirmed.
    #[serde(default)]
    pub written: bool,
    /// Whether the deletion of what is no longer wanted is under way. Not stored: it is asked for again.
    #[serde(skip)]
    pub pruning: bool,
    /// When drift was last told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_told: Option<Timestamp>,
    /// When the phase fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When a failed write is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Failed writes in this phase.
    #[serde(default)]
    pub attempts: u32,
    /// The newest word on health, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// The gates' samples, in the order of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateRun>,
    /// Whether the gates are being sampled.
    #[serde(default)]
    pub gating: bool,
    /// Whether people were told that the gates cannot decide.
    #[serde(default)]
    pub undecided: bool,
    /// Transitions on their way to evidence and messages, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<Outgoing>,
}

impl Rollout {
    /// How many blocked digests are remembered.
    pub const BLOCKED_KEPT: usize = 16;
    /// How many transitions may wait for their readers. Beyond it only begins and ends of rollouts are kept
    /// for people, beyond four times as many for the evidence: the state has to fit into one object.
    pub const OUTBOX_KEPT: usize = 64;

    /// An environment that nothing was ever deployed to.
    pub fn new(environment: impl Into<String>, now: Timestamp) -> Self {
        Self {
            environment: environment.into(),
            phase: Phase::Idle,
            since: now,
            started: now,
            sequence: 0,
            settings: Settings::default(),
            settled: None,
            settled_at: None,
            previous: None,
            target: None,
            checking: None,
            held: None,
            approved: None,
            deletions_approved: false,
            blocked: Vec::new(),
            failure: None,
            source_problem: None,
            canaries: Vec::new(),
            written: false,
            pruning: false,
            drift_told: None,
            deadline: None,
            retry_at: None,
            attempts: 0,
            progress: String::new(),
            gates: Vec::new(),
            gating: false,
            undecided: false,
            outbox: Vec::new(),
        }
    }

    /// The bundle that the cluster should hold now: what drift is measured against.
    pub fn wanted(&self) -> Option<&Release> {
        match self.phase {
            Phase::Applying | Phase::Converging | Phase::Canary | Phase::Observing | Phase::Failed => {
                self.target.as_ref()
            }
            _ => self.settled.as_ref(),
        }
    }

    /// What most customers get: the baseline until a newer release settled. While nothing settled yet, and
    /// after a failure that is not undone, it is the target.
    pub fn serving(&self) -> Option<&Release> {
        match self.phase {
            Phase::Failed => self.target.as_ref(),
            _ => self.settled.as_ref().or(self.target.as_ref()),
        }
    }

    /// Whether the target is the baseline itself: a return to it in the middle of another rollout.
    pub fn returning(&self) -> bool {
        matches!((&self.target, &self.settled), (Some(target), Some(settled)) if target.digest == settled.digest)
    }

    /// The bundles that must be kept: what serves, what is on its way and what can be returned to.
    pub fn bundles_needed(&self) -> Vec<Digest> {
        let held = self.held.as_ref().map(|held| &held.release);
        let mut needed: Vec<Digest> = [
            self.settled.as_ref(),
            self.previous.as_ref(),
            self.target.as_ref(),
            held,
            self.checking.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|release| release.digest)
        .collect();
        needed.sort();
        needed.dedup();
        needed
    }

    /// When [`super::Event::Tick`] is due next, if at all.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let gates = self.gates.iter().filter(|_| self.gating).filter_map(GateRun::next_sample).min();
        let held = self.held.as_ref().filter(|_| self.checking.is_none()).and_then(|held| held.retry_at);
        [self.deadline, self.retry_at, gates, held].into_iter().flatten().min()
    }

    /// Whether they differ in the gates' samples only. Losing the newest samples in a crash costs time and
    /// never a decision: a gate promotes on evidence that is there, and asks again for what is not.
    pub fn same_but_for_samples(&self, other: &Self) -> bool {
        let without = |rollout: &Self| Self { gates: Vec::new(), ..rollout.clone() };
        without(self).same_when_stored(&without(other))
    }

    /// Whether both are stored as the same text.
    pub fn same_when_stored(&self, other: &Self) -> bool {
        let stored = |rollout: &Self| Self { checking: None, pruning: false, ..rollout.clone() };
        stored(self) == stored(other)
    }

    /// Whether samples of gates are part of the state.
    pub fn has_samples(&self) -> bool {
        let told = self.outbox.iter().flat_map(|outgoing| &outgoing.transition.gates);
        self.gates.iter().any(GateRun::has_samples) || told.into_iter().any(|gate| !gate.samples.is_empty())
    }

    /// Takes the samples of gates out: the gates that are being judged begin anew.
    pub fn drop_samples(&mut self) {
        let since = self.since;
        self.gates = match self.gating {
            true => self.settings.gates.iter().map(|gate| GateRun::new(gate, since)).collect(),
            false => Vec::new(),
        };
        for outgoing in &mut self.outbox {
            outgoing.transition.gates.iter_mut().for_each(|gate| gate.samples.clear());
        }
    }

    /// The block on a digest.
    pub fn block_on(&self, digest: &Digest) -> Option<&Blocked> {
        self.blocked.iter().find(|blocked| blocked.digest == *digest)
    }
}
