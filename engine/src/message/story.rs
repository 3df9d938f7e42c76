//! One rollout as a person follows it: a message that is updated in place, with details in its thread.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gate::GateReport;
use crate::rollout::{Outgoing, Phase, Reason, Release, Transition};

/// How a story stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tone {
    /// Under way.
    Moving,
    /// It went well.
    Good,
    /// It went wrong, and is undone or was never begun: nobody has to get up.
    Undone,
    /// Somebody has to act.
    Bad,
}

/// What one message tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// One message for each key: environment, begin of the rollout and bundle; keys of one environment
    /// sort by time.
    pub key: String,
    /// `namespace/name` of the Environment.
    pub environment: String,
    /// How it stands.
    pub tone: Tone,
    /// In a few words: `settled`, `rolled back`.
    pub headline: String,
    /// In a sentence.
    pub message: String,
    /// The release that it is about.
    pub release: Option<Release>,
    /// What serves now.
    pub serving: Option<Release>,
    /// What happens next, or what a person can do.
    pub next: String,
    /// Who or what caused the newest transition.
    pub actor: String,
    /// The gates so far.
    pub gates: Vec<GateReport>,
    /// When the rollout began.
    pub started: Timestamp,
    /// When the newest transition happened.
    pub at: Timestamp,
    /// Number of the newest transition.
    pub sequence: u64,
    /// Whether the rollout ended.
    pub outcome: bool,
    /// Whether it is one piece of news that nothing will be added to.
    pub alone: bool,
}

impl Story {
    /// The story that a transition is the newest part of.
    pub fn of(environment: &str, transition: &Transition) -> Self {
        let digest = transition.release.as_ref().map(|release| release.digest.short()).unwrap_or_default();
        let apart = match transition.reason {
            // News that is no part of a rollout has a message of its own.
            Reason::Held | Reason::SourceFailed | Reason::SourceRecovered | Reason::DriftCorrected => {
                format!("/{:?}/{}", transition.reason, transition.sequence)
            }
            _ => String::new(),
        };
        let (tone, headline, next) = words(transition);
        Self {
            alone: !apart.is_empty(),
            key: format!("{environment}/{}/{digest}{apart}", transition.started.as_second()),
            environment: environment.to_owned(),
            tone,
            headline: headline.to_owned(),
            message: transition.message.clone(),
            release: transition.release.clone(),
            serving: transition.serving.clone(),
            next,
            actor: transition.actor.clone(),
            gates: transition.gates.clone(),
            started: transition.started,
            at: transition.at,
            sequence: transition.sequence,
            outcome: transition.reason.is_outcome(),
        }
    }

    /// What is still to be told, oldest first: of transitions of the same rollout that wait together only
    /// the newest is a message of its own, and none that ends a rollout is left out.
    pub fn pending(environment: &str, outbox: &[Outgoing]) -> Vec<Self> {
        let mut stories: Vec<Self> = Vec::new();
        for outgoing in outbox.iter().filter(|outgoing| !outgoing.notified) {
            let story = Self::of(environment, &outgoing.transition);
            match stories.last_mut() {
                Some(last) if last.key == story.key && !last.outcome => *last = story,
                _ => stories.push(story),
            }
        }
        stories
    }

    /// The environment's name without its namespace.
    pub fn name(&self) -> &str {
        self.environment.rsplit('/').next().unwrap_or(&self.environment)
    }
}

fn words(transition: &Transition) -> (Tone, &'static str, String) {
    let retry = "push a change, or `holdfast retry`".to_owned();
    match transition.reason {
        Reason::RolloutStarted => (Tone::Moving, "rolling out", "readiness, then the gates".to_owned()),
        Reason::CanaryStarted => (Tone::Moving, "canary takes traffic", "the gates decide".to_owned()),
        Reason::CanaryPassed => (Tone::Moving, "canary passed", "the rest of the pods follow".to_owned()),
        Reason::Settled => (Tone::Good, "settled", "nothing to do".to_owned()),
        Reason::RevisionAdvanced => (Tone::Good, "up to date", "nothing to do".to_owned()),
        Reason::Superseded => (Tone::Undone, "superseded", "the newer release rolls out".to_owned()),
        Reason::RolloutFailed
            if transition.to == Phase::Failed && transition.serving == transition.release =>
        {
            (Tone::Bad, "failed", retry)
        }
        Reason::RolloutFailed => (Tone::Moving, "failed", "going back".to_owned()),
        Reason::RollbackStarted => {
            (Tone::Moving, "rolling back", "the last settled release returns".to_owned())
        }
        Reason::RolledBack => (Tone::Undone, "rolled back", format!("the bundle is blocked: {retry}")),
        Reason::RollbackFailed => (Tone::Bad, "rollback failed", "somebody has to look now".to_owned()),
        Reason::Held => (Tone::Undone, "waits", "see the reason above".to_owned()),
        Reason::Undecided => {
            (Tone::Moving, "gates cannot decide", "it holds until there is evidence".to_owned())
        }
        Reason::SourceFailed => {
            (Tone::Undone, "not deployed", "fix the commit; the cluster keeps what it has".to_owned())
        }
        Reason::SourceRecovered => (Tone::Good, "source is back", "nothing to do".to_owned()),
        Reason::DriftCorrected => {
            (Tone::Good, "drift corrected", "make the change in Git to keep it".to_owned())
        }
    }
}
