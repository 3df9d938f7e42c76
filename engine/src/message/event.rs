//! Transitions as Kubernetes events.

use super::shorten;
use crate::rollout::{Reason, Transition};

/// An event on an Environment, as events.k8s.io/v1 has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesEvent {
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    /// A word in CamelCase, at most 128 bytes.
    pub reason: String,
    /// At most 1,024 bytes: the API server refuses longer ones.
    pub note: String,
}

/// The event of a transition.
pub fn kubernetes_event(transition: &Transition) -> KubernetesEvent {
    let warning = matches!(
        transition.reason,
        Reason::RolloutFailed
            | Reason::RollbackStarted
            | Reason::RolledBack
            | Reason::RollbackFailed
            | Reason::Held
            | Reason::Undecided
            | Reason::SourceFailed
            | Reason::DriftCorrected
    );
    KubernetesEvent {
        type_: if warning { "Warning" } else { "Normal" },
        reason: format!("{:?}", transition.reason),
        note: shorten(&transition.message, 1024),
    }
}
