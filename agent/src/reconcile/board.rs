//! What the web page and the JSON API show: the newest state of every environment, with its last news.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use engine::message::conditions;
use engine::rollout::{Rollout, Transition};

use crate::http::{EnvironmentView, GateView, TransitionView};

/// How much of an environment's history is shown; all of it is on the evidence branch.
const SHOWN: usize = 30;

/// The newest state of every environment.
#[derive(Debug, Default)]
pub struct Board(RwLock<BTreeMap<String, Shown>>);

#[derive(Debug)]
struct Shown {
    view: EnvironmentView,
    /// Number of the newest transition in the view.
    newest: u64,
}

fn news(transition: &Transition) -> TransitionView {
    TransitionView {
        at: transition.at,
        reason: format!("{:?}", transition.reason),
        to: transition.to.to_string(),
        message: transition.message.clone(),
    }
}

impl Board {
    /// Shows the newest state of an environment.
    pub fn show(&self, rollout: &Rollout) {
        let mut board = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = board.remove(&rollout.environment);
        let mut newest = before.as_ref().map_or(0, |shown| shown.newest);
        let mut transitions = before.map(|shown| shown.view.transitions).unwrap_or_default();
        for outgoing in &rollout.outbox {
            if outgoing.transition.sequence > newest {
                newest = outgoing.transition.sequence;
                transitions.insert(0, news(&outgoing.transition));
            }
        }
        transitions.truncate(SHOWN);
        let ready = conditions(rollout).into_iter().find(|condition| condition.type_ == "Ready");
        let latest = rollout.target.as_ref().or(rollout.settled.as_ref());
        let gates = rollout.gates.iter().zip(&rollout.settings.gates).map(|(run, gate)| {
            let report = run.report(gate);
            GateView {
                name: report.name.clone(),
                verdict: report.verdict.to_string(),
                passed: report.passed,
                failed: report.failed,
            }
        });
        let view = EnvironmentView {
            key: rollout.environment.clone(),
            phase: rollout.phase.to_string(),
            ready: ready.map_or_else(|| "Unknown".to_owned(), |condition| condition.status),
            revision: latest.map(|release| release.revision.short()),
            subject: latest.map(|release| release.revision.subject.clone()),
            digest: latest.map(|release| release.digest.to_string()),
            serving: rollout.serving().map(|release| release.revision.short()),
            message: engine::message::summary(rollout),
            transitions,
            gates: gates.collect(),
        };
        board.insert(rollout.environment.clone(), Shown { view, newest });
    }

    /// The environment is gone.
    pub fn forget(&self, environment: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(environment);
    }

    /// All environments, by name.
    pub fn views(&self) -> Vec<EnvironmentView> {
        let board = self.0.read().unwrap_or_else(PoisonError::into_inner);
        board.values().map(|shown| shown.view.clone()).collect()
    }
}
