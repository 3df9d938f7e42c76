//! What can be set of the controllers.

use std::time::Duration;

/// Times of the controllers. The defaults are those of kube-controller-manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often each HorizontalPodAutoscaler looks at its metrics: 15 s.
    pub autoscaler_sync: Duration,
    /// How long after its start a pod's CPU is not trusted unless the pod is ready and was measured since: 5 min.
    pub cpu_initialization: Duration,
    /// How long after its start a pod may be not ready without having been ready before: 30 s.
    pub initial_readiness: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            autoscaler_sync: Duration::from_secs(15),
            cpu_initialization: Duration::from_secs(300),
            initial_readiness: Duration::from_secs(30),
        }
    }
}
