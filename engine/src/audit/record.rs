//! What is recorded of a transition.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Anchor;
use crate::gate::GateReport;
use crate::object::{Digest, canonical_json};
use crate::policy::Violation;
use crate::rollout::{Phase, Reason, Release, Transition};

/// The largest record that is read, in bytes.
pub const MAX_RECORD: usize = 4 << 20;

/// The name of the form that records have.
pub const FORMAT: &str = "holdfast.dev/audit/v1";

/// One transition of an environment, with everything that it was decided by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: String,
    /// `namespace/name` of the Environment.
    pub environment: String,
    /// Number of the record, from 1, without gaps.
    pub sequence: u64,
    /// Digest of the record before; none for the first.
    pub previous: Option<Digest>,
    /// Number of the transition. It begins anew when the Environment is made anew.
    pub transition: u64,
    /// When it happened.
    pub at: Timestamp,
    /// When the rollout that it belongs to began.
    pub started: Timestamp,
    /// What it is about.
    pub reason: Reason,
    /// Phase before.
    pub from: Phase,
    /// Phase after.
    pub to: Phase,
    /// In a sentence.
    pub message: String,
    /// Who or what caused it: `git`, `holdfast`, or a person.
    pub actor: String,
    /// The release that it is about, with its commit, tree, author, signer, digest and images.
    pub release: Option<Release>,
    /// What served afterwards.
    pub serving: Option<Release>,
    /// What the policies said about the release.
    pub policies: PolicyEvidence,
    /// The gates, with their queries, samples and verdicts.
    pub gates: Vec<GateReport>,
    /// Version of the agent that decided.
    pub agent_version: String,
}

/// What the policies said about a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEvidence {
    /// How many policies were enforced.
    pub enforced: u32,
    /// The rules that were broken.
    pub violations: Vec<Violation>,
}

/// What a transition does not know itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Version of the agent.
    pub agent_version: String,
    /// What the policies said about the release.
    pub policies: PolicyEvidence,
}

/// The newest record of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Its number.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
    /// The transition that it records.
    pub transition: u64,
    /// When that happened.
    pub at: Timestamp,
}

impl Tip {
    /// The tip that a stored record is.
    ///
    /// # Errors
    /// A sentence, when it is not a record.
    pub fn of_stored(bytes: &[u8]) -> Result<Self, String> {
        let record = Record::from_stored(bytes)?;
        // What is stored counts, not what writing it again would give.
        Ok(Self { digest: Digest::of_bytes(bytes), ..record.tip() })
    }

    /// Number and digest, to check the chain with later.
    pub fn anchor(&self) -> Anchor {
        (self.sequence, self.digest)
    }

    /// Whether a transition is in the chain already.
    ///
    /// Numbers alone do not tell: they begin anew when the Environment was deleted and made again.
    pub fn covers(&self, transition: &Transition) -> bool {
        transition.sequence <= self.transition && transition.at <= self.at
    }
}

impl Record {
    /// The record that follows the tip of a chain. None if the transition is recorded already: to record
    /// one twice does no harm.
    pub fn following(
        tip: Option<&Tip>,
        environment: &str,
        transition: &Transition,
        context: &Context,
    ) -> Option<Self> {
        if tip.is_some_and(|tip| tip.covers(transition)) {
            return None;
        }
        Some(Self {
            format: FORMAT.to_owned(),
            environment: environment.to_owned(),
            sequence: tip.map_or(1, |tip| tip.sequence.saturating_add(1)),
            previous: tip.map(|tip| tip.digest),
            transition: transition.sequence,
            at: transition.at,
            started: transition.started,
            reason: transition.reason,
            from: transition.from,
            to: transition.to,
            message: transition.message.clone(),
            actor: transition.actor.clone(),
            release: transition.release.clone(),
            serving: transition.serving.clone(),
            policies: context.policies.clone(),
            gates: transition.gates.clone(),
            agent_version: context.agent_version.clone(),
        })
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// A sentence, when it is not a record.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_RECORD {
            return Err(format!("it has {} bytes, at most {MAX_RECORD} are read", bytes.len()));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT:?}", record.format));
        }
        Ok(record)
    }

    /// The record as it is stored: canonical JSON and a line break.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only maps with other keys than texts cannot be written as JSON: there are none.
        let value = serde_json::to_value(self).unwrap_or(Value::Null);
        let mut text = canonical_json(&value);
        text.push('\n');
        text.into_bytes()
    }

    /// The digest of the record as it is stored.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(&self.to_bytes())
    }

    /// The record as the tip of its chain.
    pub fn tip(&self) -> Tip {
        Tip { sequence: self.sequence, digest: self.digest(), transition: self.transition, at: self.at }
    }
}
