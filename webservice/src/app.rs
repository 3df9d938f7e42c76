//! What every request handler shares.

use std::sync::OnceLock;
use std::time::Duration;

use crate::admin::{KeyError, Keys};
use crate::cache::Cache;
use crate::config::Config;
use crate::edge::Edge;
use crate::fault::FaultSwitch;
use crate::limit::Limiter;
use crate::metrics::Gauges;
use crate::problem::Problem;
use crate::store::{Store, StoreError};

/// The running backend's state.
#[derive(Debug)]
pub struct App {
    /// What it has in common with the frontend.
    pub edge: Edge,
    /// Its settings.
    pub config: Config,
    /// Failures on purpose.
    pub faults: FaultSwitch,
    /// How much each client may ask, if that is limited.
    pub limiter: Option<Limiter>,
    /// Keys of administrators' tokens, if there are administrators.
    pub keys: Option<Keys>,
    /// Answers about the catalogue.
    pub cache: Cache,
    // Empty until the database could be opened for the first time.
    store: OnceLock<Store>,
}

impl App {
    /// A shop whose database is not open yet.
    ///
    /// # Errors
    /// The file of administrators' keys cannot be used.
    pub fn new(config: Config) -> Result<Self, KeyError> {
        Ok(Self {
            edge: Edge::new(config.edge()),
            faults: FaultSwitch::new(config.faults),
            limiter: Limiter::new(config.rate_limit),
            keys: config.admin_keys.as_deref().map(Keys::open).transpose()?,
            cache: Cache::new(config.catalogue_cache),
            store: OnceLock::new(),
            config,
        })
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

    /// What is measured rather than counted.
    pub fn gauges(&self) -> Gauges {
        let (pool_used, pool_idle) = self.store.get().map(Store::connections).unwrap_or_default();
        Gauges {
            pool: self.store.get().map(|store| (pool_used, pool_idle, store.most_connections())),
            batches: self.store.get().map(Store::batches),
            ..self.edge.gauges()
        }
    }

    /// Removes carts that nobody came back for, now and then.
    pub async fn tidy(&self) {
        const EVERY: Duration = Duration::from_secs(60 * 60);
        const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
        loop {
            tokio::select! {
                () = self.edge.lifecycle.drain_started() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let Some(store) = self.store.get() else { continue };
            match store.forget_carts(KEPT).await {
                Ok(0) => {}
                Ok(lines) => tracing::info!(lines, "abandoned carts were removed"),
                Err(error) => tracing::warn!(%error, "abandoned carts could not be removed"),
            }
        }
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
