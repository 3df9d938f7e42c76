//! Conditions after the conventions of kstatus, and the one line that says it all.

use std::collections::BTreeMap;

use crate::rollout::{HoldReason, Phase, Rollout, Sink};

use super::shorten;

/// A condition of an Environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`, `Reconciling`, `Stalled` or `SourceReady`.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word in CamelCase.
    pub reason: String,
    /// A sentence, at most 32,768 bytes.
    pub message: String,
}

/// The conditions of an environment.
///
/// `Ready` is true exactly if the newest release that Git gives is out and healthy. `Reconciling` and
/// `Stalled` say whether waiting helps or a person has to act, as kstatus reads them. `SourceReady` is
/// about the way to Git alone: an outage of Git makes it false and leaves `Ready` as it was, for nothing
/// in the cluster changed.
pub fn conditions(rollout: &Rollout) -> Vec<Condition> {
    let word = Word::of(rollout);
    let reconciling = matches!(word.state, State::Moving);
    let stalled = matches!(word.state, State::Stuck);
    let mut conditions = vec![
        condition("Ready", yes(matches!(word.state, State::Good)), &word.reason, &word.message),
        condition(
            "Reconciling",
            yes(reconciling),
            if reconciling { &word.reason } else { "AtRest" },
            if reconciling { &word.message } else { "nothing is under way" },
        ),
        condition(
            "Stalled",
            yes(stalled),
            if stalled { &word.reason } else { "NotStalled" },
            if stalled { &word.message } else { "nothing waits for a person" },
        ),
    ];
    conditions.push(match &rollout.source_problem {
        Some(problem) => condition("SourceReady", "False", &problem.reason, &problem.message),
        None => condition("SourceReady", "True", "Fetched", "the newest commit is known and renders"),
    });
    conditions
}

/// The condition `Delivered`: whether evidence and people learn of what happens.
pub fn delivered(undelivered: &BTreeMap<Sink, String>) -> Condition {
    let reasons: Vec<&str> = undelivered.values().map(String::as_str).collect();
    match undelivered.keys().next() {
        None => condition("Delivered", "True", "Delivered", "evidence and messages arrive"),
        Some(Sink::Evidence) => condition("Delivered", "False", "EvidenceFailed", &reasons.join("; ")),
        Some(Sink::Messages) => condition("Delivered", "False", "MessageFailed", &reasons.join("; ")),
    }
}

/// The one line that people see in `kubectl get environments`: what is, and what serves.
pub fn summary(rollout: &Rollout) -> String {
    let word = Word::of(rollout);
    let mut text = word.message;
    if let Some(held) = rollout.held.as_ref().filter(|_| rollout.phase.in_progress()) {
        text = format!("{text}; {} waits: {}", held.release.revision.short(), held.message);
    }
    if let Some(problem) = rollout.source_problem.as_ref().filter(|problem| !problem.commit_at_fault) {
        text = format!("{text}; the source is out of reach: {}", problem.message);
    }
    // What an API server says can have several lines; a column has one.
    shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "), 1024)
}

fn yes(is: bool) -> &'static str {
    if is { "True" } else { "False" }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: shorten(message, 32_768),
    }
}

enum State {
    /// The newest release is out and healthy.
    Good,
    /// It will be, without anybody's help.
    Moving,
    /// A person has to act.
    Stuck,
}

struct Word {
    state: State,
    reason: String,
    message: String,
}

impl Word {
    fn of(rollout: &Rollout) -> Self {
        let word = |state, reason: &str, message: String| Self { state, reason: reason.to_owned(), message };
        let serving = rollout.serving().map(|release| release.revision.short());
        let serves = match &serving {
            Some(revision) => format!("; {revision} serves"),
            None => "; nothing is deployed yet".to_owned(),
        };
        let target = rollout.target.as_ref().map(|release| release.revision.short()).unwrap_or_default();
        let progress =
            if rollout.progress.is_empty() { String::new() } else { format!(": {}", rollout.progress) };
        let failure = rollout.failure.as_ref();
        let why = failure.map(|failure| failure.message.as_str()).unwrap_or_default();
        match rollout.phase {
            Phase::Applying => {
                return word(State::Moving, "Applying", format!("applying {target}{progress}"));
            }
            Phase::Converging => {
                return word(
                    State::Moving,
                    "Converging",
                    format!("{target} is applied and becomes ready{progress}"),
                );
            }
            Phase::Canary if rollout.undecided => {
                let message = format!("the canary of {target} holds: its gates cannot decide{progress}");
                return word(State::Moving, "Undecided", message);
            }
            Phase::Canary => {
                return word(
                    State::Moving,
                    "Canary",
                    format!("the canary of {target} takes traffic{progress}"),
                );
            }
            Phase::Observing => {
                return word(State::Moving, "Observing", format!("{target} is observed{progress}"));
            }
            Phase::RollingBack => {
                let back =
                    rollout.settled.as_ref().map(|release| release.revision.short()).unwrap_or_default();
                return word(
                    State::Moving,
                    "RollingBack",
                    format!("{target} failed ({why}); going back to {back}"),
                );
            }
            Phase::RollbackFailed => {
                return word(
                    State::Stuck,
                    "RollbackFailed",
                    format!("the rollback is not ready: {why}{serves}"),
                );
            }
            Phase::Failed => {
                let reason = failure.map_or("Failed", |failure| failure.reason.as_str());
                return word(State::Stuck, reason, format!("{target} failed: {why}"));
            }
            Phase::Idle | Phase::Held | Phase::Settled | Phase::RolledBack => {}
        }
        if let Some(problem) = rollout.source_problem.as_ref().filter(|problem| problem.commit_at_fault) {
            return word(State::Stuck, &problem.reason, format!("{}{serves}", problem.message));
        }
        if let Some(held) = &rollout.held {
            let reason = format!("{:?}", held.reason);
            let waits = held.release.revision.short();
            let state = match held.reason {
                // Nobody has to do anything but wait.
                HoldReason::AwaitsEnvironment => State::Moving,
                HoldReason::ApplyRejected => State::Stuck,
                _ if held.retry_at.is_some() => State::Moving,
                _ => State::Stuck,
            };
            return word(state, &reason, format!("{waits} waits: {}{serves}", held.message));
        }
        match rollout.phase {
            Phase::RolledBack => word(State::Stuck, "RolledBack", format!("{target} failed ({why}){serves}")),
            Phase::Settled if !rollout.progress.is_empty() => {
                word(State::Moving, "NotReady", format!("{}{serves}", rollout.progress))
            }
            Phase::Settled => {
                let release = rollout.settled.as_ref();
                let subject = release.map(|release| release.revision.subject.as_str()).unwrap_or_default();
                let name = serving.unwrap_or_default();
                word(State::Good, "Settled", format!("{name} is settled and ready: {subject}"))
            }
            _ => match &rollout.source_problem {
                Some(problem) => word(State::Moving, &problem.reason, format!("{}{serves}", problem.message)),
                None => word(State::Moving, "Waiting", format!("waiting for the first release{serves}")),
            },
        }
    }
}
