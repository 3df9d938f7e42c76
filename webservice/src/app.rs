//! What every request handler shares.

use std::sync::OnceLock;

use crate::config::Config;
use crate::fault::FaultSwitch;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Gauges, Metrics};
use crate::problem::Problem;
use crate::store::{Store, StoreError};

/// The running shop's state.
#[derive(Debug)]
pub struct App {
    /// Its settings.
    pub config: Config,
    /// Starting, serving or draining.
    pub lifecycle: Lifecycle,
    /// What it counts.
    pub metrics: Metrics,
    /// Failures on purpose.
    pub faults: FaultSwitch,
    // Empty until the database could be opened for the first time.
    store: OnceLock<Store>,
}

impl App {
    /// A shop whose database is not open yet.
    pub fn new(config: Config) -> Self {
        Self {
            lifecycle: Lifecycle::default(),
            metrics: Metrics::new(&config.version),
            faults: FaultSwitch::new(config.faults),
            store: OnceLock::new(),
            config,
        }
    }

    /// Hands over the opened database. Only the first one counts.
    pub fn set_store(&self, store: Store) {
        if self.store.set(store).is_err() {
            tracing::warn!("the database was opened twice; the second one is not used");
        }
    }

    /// The database.
    ///
    /// # Errors
    /// 503 while it is not open.
    pub fn store(&self) -> Result<&Store, Problem> {
        self.store.get().ok_or_else(|| Problem::unavailable("the database is not reachable yet"))
    }

    /// The database if it is open.
    pub fn open_store(&self) -> Option<&Store> {
        self.store.get()
    }

    /// Metrics as Prometheus reads them.
    pub fn render_metrics(&self) -> String {
        let (pool_used, pool_idle) = self.store.get().map(Store::connections).unwrap_or_default();
        self.metrics.render(Gauges {
            pool_used,
            pool_idle,
            in_flight: self.lifecycle.requests() as u64,
            draining: self.lifecycle.is_draining(),
        })
    }
}

/// Logs a database failure and gives the client's version of it: busy and unreachable pass, the rest is ours.
pub fn store_problem(error: &StoreError) -> Problem {
    tracing::error!(%error, "the database failed");
    if error.is_passing() {
        Problem::unavailable("the database does not answer; try again shortly")
    } else {
        Problem::internal()
    }
}
