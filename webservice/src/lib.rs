//! DhakaCart, the shop that Holdfast deploys.
//!
//! One process serves the API under `/api`, the storefront at `/`, probes at `/health` and `/ready`, and
//! metrics at `/metrics`. [`start`] runs it inside another program, which is how its tests use it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), webservice::StartError> {
//! let shop = webservice::start(webservice::Config { port: 0, ..Default::default() }).await?;
//! println!("the shop is open at http://{}/", shop.address());
//! shop.drain();
//! shop.stopped().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod config;
mod endpoint;
mod fault;
mod healthcheck;
mod lifecycle;
mod metrics;
mod order;
mod problem;
mod product;
mod request;
mod routes;
mod server;
mod session;
mod store;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use app::App;
pub use config::{Config, ConfigError, Database, Faults, LogFormat};
pub use endpoint::{ENDPOINTS, Endpoint, Kind};
pub use healthcheck::{HealthcheckError, healthcheck};
use store::Store;
pub use store::StoreError;

/// The shop could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or is not this machine's.
    #[error(
        "cannot listen on {address}: {source}; set BIND_ADDRESS and PORT to a free address of this machine"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The embedded database cannot be used, which waiting does not change.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running shop. Dropping it does not stop it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    app: Arc<App>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Where it listens. If it was bound to all addresses, the loopback one.
    pub fn address(&self) -> SocketAddr {
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.address.port())
            }
            _ => self.address,
        }
    }

    /// Starts the graceful shutdown, as SIGTERM does. Returns at once.
    pub fn drain(&self) {
        self.app.lifecycle.drain();
    }

    /// Resolves when the shop has drained and its database is closed.
    pub async fn stopped(self) {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended unexpectedly");
        }
    }
}

/// Starts a shop: binds, opens the database, serves.
///
/// A PostgreSQL server that cannot be reached is waited for in the background, with `/ready` failing until it
/// answers: databases and shops start in any order.
///
/// # Errors
/// The address cannot be bound, or an embedded database cannot be opened.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let address = config.listen_address();
    let listen = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let app = Arc::new(App::new(config));
    match (Store::open(&app.config).await, &app.config.database) {
        (Ok(store), _) => app.set_store(store),
        (Err(error), Database::Postgres(_)) => {
            tracing::warn!(%error, "waiting for the database");
            tokio::spawn(open_later(Arc::clone(&app)));
        }
        (Err(error), _) => return Err(error.into()),
    }
    let routes = routes::all(&app);
    let serving = tokio::spawn({
        let app = Arc::clone(&app);
        async move {
            server::serve(listener, Arc::clone(&app), routes).await;
            if let Some(store) = app.open_store() {
                store.close().await;
            }
        }
    });
    tracing::info!(%address, version = app.config.version, database = ?app.config.database, "the shop is open");
    Ok(Running { address, app, serving })
}

/// Tries to open the database until it works or the shop goes away, at growing intervals.
async fn open_later(app: Arc<App>) {
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let mut wait = Duration::from_millis(100);
    loop {
        tokio::select! {
            () = app.lifecycle.drain_started() => return,
            () = tokio::time::sleep(wait) => {}
        }
        match Store::open(&app.config).await {
            Ok(store) => {
                tracing::info!("the database is open");
                app.set_store(store);
                return;
            }
            Err(error) => tracing::warn!(%error, "still waiting for the database"),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
