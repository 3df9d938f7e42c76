//! One change of an environment's state: the only origin of evidence, messages and Kubernetes events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Phase, Release};
use crate::gate::GateReport;

/// What a transition is about, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A release passed the door.
    RolloutStarted,
    /// The canary's pods are ready and take traffic.
    CanaryStarted,
    /// The canary's gates passed; the rest follows.
    CanaryPassed,
    /// The release is the new baseline.
    Settled,
    /// The bundle is the settled one already; only the commit is newer.
    RevisionAdvanced,
    /// A newer release took its place.
    Superseded,
    /// A gate, readiness or a write convicted the release.
    RolloutFailed,
    /// The last settled bundle is applied again.
    RollbackStarted,
    /// The last settled bundle serves again.
    RolledBack,
    /// The last settled bundle did not become ready in time.
    RollbackFailed,
    /// The release waits at the door.
    Held,
    /// The gates cannot decide; the rollout waits where it is.
    Undecided,
    /// The newest commit does not render, or the source cannot be read.
    SourceFailed,
    /// The source gives a bundle again.
    SourceRecovered,
    /// Drift was set back.
    DriftCorrected,
}

impl Reason {
    /// Whether this ends a rollout: such a message is never dropped or merged into another.
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::Settled | Self::RolloutFailed | Self::RolledBack | Self::RollbackFailed)
    }
}

/// One change of an environment's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Number in the environment's history, from 1, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What it is about.
    pub reason: Reason,
    /// Phase before.
    pub from: Phase,
    /// Phase after.
    pub to: Phase,
    /// In a sentence, for people.
    pub message: String,
    /// The release that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// What serves afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Release>,
    /// Who or what caused it: `git`, `holdfast`, or a person.
    pub actor: String,
    /// The gates so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateReport>,
    /// When the rollout that it belongs to began.
    pub started: Timestamp,
}
