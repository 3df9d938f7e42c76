//! What can be set of the controllers.

use std::sync::Arc;
use std::time::Duration;

/// Times of the controllers and what they hand on. The defaults are those of kube-controller-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often each HorizontalPodAutoscaler looks at its metrics: 15 s.
    pub autoscaler_sync: Duration,
    /// How long after its start a pod's CPU is not trusted unless the pod is ready and was measured since: 5 min.
    pub cpu_initialization: Duration,
    /// How long after its start a pod may be not ready without having been ready before: 30 s.
    pub initial_readiness: Duration,
    /// The certificate of the authority that the API server's own is by, as PEM: every namespace gets it in the ConfigMap
    /// `kube-root-ca.crt`, from where pods have it. None for a server without TLS.
    pub root_ca: Option<Arc<str>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            autoscaler_sync: Duration::from_secs(15),
            cpu_initialization: Duration::from_secs(300),
            initial_readiness: Duration::from_secs(30),
            root_ca: None,
        }
    }
}
