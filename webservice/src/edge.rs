//! What both roles of the shop have in common: how they are reached, watched and stopped.

use std::time::Duration;

use crate::client::TrustedProxies;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Gauges, Metrics};

/// Settings of either role.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    /// Shown to clients and in metrics.
    pub version: String,
    /// How long connections are still accepted after SIGTERM.
    pub drain: Duration,
    /// How long requests in flight may take to finish after that.
    pub shutdown: Duration,
    /// Longest time spent on one request.
    pub request_timeout: Duration,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

/// The state of either role.
#[derive(Debug)]
pub struct Edge {
    /// Its settings.
    pub settings: EdgeSettings,
    /// Starting, serving or draining.
    pub lifecycle: Lifecycle,
    /// What it counts.
    pub metrics: Metrics,
}

impl Edge {
    /// A role that serves nobody yet.
    pub fn new(settings: EdgeSettings) -> Self {
        Self { lifecycle: Lifecycle::default(), metrics: Metrics::new(&settings.version), settings }
    }

    /// What is measured rather than counted.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            pool: None,
            batches: None,
            in_flight: self.lifecycle.requests() as u64,
            connections: self.lifecycle.connections() as u64,
            draining: self.lifecycle.is_draining(),
        }
    }
}
