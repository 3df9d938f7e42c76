//! What happens to a rollout, and what it asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HoldReason, Release, Settings, SourceProblem};
use crate::gate::Sample;
use crate::object::{Digest, ObjectRef};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The agent took the environment over, after a start or as the new leader.
    Started,
    /// The specification was read, or changed.
    Configured(Settings),
    /// The source gives this release now.
    Candidate(Release),
    /// The source gives nothing usable.
    SourceFailed(SourceProblem),
    /// The source answers again; a candidate follows when there is a new one.
    SourceRecovered,
    /// The release passed every check at the door.
    Admitted {
        /// Which.
        digest: Digest,
    },
    /// The release was refused before anything was written.
    Refused {
        /// Which.
        digest: Digest,
        /// Why.
        problem: DoorProblem,
    },
    /// Everything asked for by [`Effect::Apply`] is written.
    Applied {
        /// The bundle.
        digest: Digest,
        /// How it was applied.
        mode: ApplyMode,
        /// Deployments that now hold at canary size; empty unless the mode is [`ApplyMode::Canary`].
        canaries: Vec<ObjectRef>,
        /// Objects created or changed.
        changed: u32,
    },
    /// Some objects are written and some are not.
    ApplyFailed {
        /// The bundle.
        digest: Digest,
        /// How it was applied.
        mode: ApplyMode,
        /// In a sentence, with the objects named.
        message: String,
    },
    /// What the target no longer has is deleted, or was kept for the reasons given.
    Pruned {
        /// The bundle that remains.
        digest: Digest,
        /// Objects deleted.
        deleted: u32,
        /// Objects kept, each with its reason.
        kept: Vec<String>,
    },
    /// The readiness of the members changed.
    Health(HealthSummary),
    /// A gate was measured.
    Sampled {
        /// Name of the gate.
        gate: String,
        /// What was measured.
        sample: Sample,
    },
    /// A time that [`super::Rollout::next_wake`] named has come.
    Tick,
    /// Fields that the environment owns were changed, or objects deleted, by somebody else.
    Drifted {
        /// The objects.
        objects: Vec<ObjectRef>,
    },
    /// A transition has reached its readers.
    Delivered {
        /// Number of the transition; all older ones count as delivered too.
        sequence: u64,
        /// Which readers.
        sink: Sink,
    },
    /// Another environment, that this one may wait for, has changed.
    OtherChanged,
    /// A person asked for something through the Kubernetes API.
    Commanded {
        /// What.
        command: Command,
        /// Who, as far as it is known.
        actor: String,
    },
}

/// Why a release was refused at the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorProblem {
    /// Which check refused it.
    pub reason: HoldReason,
    /// In a sentence, with all objects named.
    pub message: String,
    /// Whether trying again can help without a new commit.
    pub transient: bool,
    /// When trying again helps, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Timestamp>,
}

/// A request of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Let this bundle pass the door.
    Approve(Digest),
    /// Deploy the newest release again, even if it is blocked.
    Retry,
    /// Go back to the last settled release now.
    Rollback,
}

/// Who must learn of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sink {
    /// The evidence branch.
    Evidence,
    /// Slack and the like.
    Messages,
}

/// How a bundle is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyMode {
    /// As it is.
    Full,
    /// With changed Deployments held at this many new pods.
    Canary {
        /// New pods; at least 1.
        pods: u32,
    },
    /// As it is, after the canary passed.
    Promote,
    /// As it is, because the release after it failed.
    Rollback,
    /// Only these objects, which drifted.
    Correct(Vec<ObjectRef>),
}

/// Something to do. Every effect can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Check the bundle at the door: policies, deletions, a dry run of every object. Nothing is written.
    /// Answered by [`Event::Admitted`] or [`Event::Refused`].
    Check {
        /// The bundle.
        digest: Digest,
        /// Whether a person approved it, deletions included.
        approved: bool,
    },
    /// Write what differs. Answered by [`Event::Applied`] or [`Event::ApplyFailed`].
    Apply {
        /// The bundle.
        digest: Digest,
        /// How.
        mode: ApplyMode,
    },
    /// Delete what this bundle no longer has. Answered by [`Event::Pruned`] or [`Event::ApplyFailed`].
    Prune {
        /// The bundle that remains.
        digest: Digest,
        /// Whether a person approved what this deletes.
        approved: bool,
    },
    /// Measure a gate. Answered by [`Event::Sampled`].
    Sample {
        /// Name of the gate.
        gate: String,
    },
    /// Say anew how ready the members are. Answered by [`Event::Health`].
    Observe,
    /// The outbox has news for its readers. Answered by [`Event::Delivered`], once for each sink.
    Announce,
    /// Tell whoever looks at the Environment now; not part of its history.
    Warn {
        /// A word in CamelCase.
        reason: String,
        /// In a sentence.
        message: String,
    },
}

/// How ready the members of an environment are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSummary {
    /// The bundle whose objects were looked at.
    pub digest: Option<Digest>,
    /// Members in all.
    pub total: u32,
    /// Members ready. A Deployment held at canary size is ready when its canary pods are.
    pub ready: u32,
    /// Members on their way.
    pub progressing: Vec<Unready>,
    /// Members that will not become ready by waiting.
    pub failed: Vec<Unready>,
}

/// A member that is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unready {
    /// Which.
    pub object: ObjectRef,
    /// The reason as a word in CamelCase: `ImagePullBackOff`, `ProgressDeadlineExceeded`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}
