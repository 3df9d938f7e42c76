//! What a team asks of the rollouts of an environment.

use serde::{Deserialize, Serialize};

use super::Window;
use crate::gate::Gate;

/// The part of an Environment's specification that rollouts are decided by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// How long objects may take to become ready, in seconds; at least 1.
    pub ready_timeout_seconds: u32,
    /// How many new pods a canary holds at; 0 turns canaries off.
    pub canary_pods: u32,
    /// Metric gates, judged while the canary holds or, without one, once everything is ready.
    pub gates: Vec<Gate>,
    /// Whether a failed release is undone.
    pub rollback: RollbackMode,
    /// Whether drift is corrected.
    pub drift: Drift,
    /// Whether a person has to approve each release.
    pub approval_required: bool,
    /// Times at which releases may begin, or may not.
    pub windows: Vec<Window>,
    /// Whether reconciliation is switched off.
    pub suspended: bool,
    /// Whether transitions are recorded on an evidence branch.
    pub evidence: bool,
    /// Whether somebody is told of transitions.
    pub messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ready_timeout_seconds: 300,
            canary_pods: 0,
            gates: Vec::new(),
            rollback: RollbackMode::Auto,
            drift: Drift::Correct,
            approval_required: false,
            windows: Vec::new(),
            suspended: false,
            evidence: false,
            messages: false,
        }
    }
}

/// Whether a failed release is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RollbackMode {
    /// The last settled bundle is applied again.
    Auto,
    /// The failed release stays where it is until a person decides.
    Manual,
}

/// What happens when somebody else changes a field that the environment owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drift {
    /// The field is set back at once.
    Correct,
    /// The change is reported and left alone.
    Report,
}
