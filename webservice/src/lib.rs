//! DhakaCart, the shop that Holdfast deploys.
//!
//! Two roles: the backend ([`start`]) serves the API under `/api`, and the frontend ([`start_web`]) serves the storefront
//! and the dashboard and hands `/api` on to a backend. Both answer probes at `/health` and `/ready`, and metrics at
//! `/metrics`. They run inside other programs as well, which is how their tests use them:
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

mod admin;
mod api;
mod app;
mod cache;
mod cart;
mod client;
mod config;
mod cors;
mod edge;
mod encode;
mod endpoint;
mod fault;
mod healthcheck;
mod lifecycle;
mod limit;
mod metrics;
mod order;
mod problem;
mod product;
mod request;
mod routes;
mod server;
mod session;
mod store;
mod trace;
mod web;
mod whole;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use admin::{KeyError, Keys, sign as sign_token};
use api::Api;
use app::App;
pub use client::TrustedProxies;
pub use config::{ApiUrl, Config, ConfigError, Database, Faults, LogFormat, RateLimit, WebConfig};
pub use cors::Origins;
pub use endpoint::{ENDPOINTS, Endpoint, Kind};
pub use healthcheck::{HealthcheckError, healthcheck};
use request::Role;
use store::Store;
pub use store::StoreError;
use web::Web;

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
    /// The file of administrators' keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// A running shop, in either role. Dropping it does not stop it.
pub struct Running {
    address: SocketAddr,
    role: Arc<dyn Drain>,
    serving: JoinHandle<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What can be asked of a role whatever it is.
trait Drain: Send + Sync {
    fn drain(&self);
}

impl<R: Role> Drain for R {
    fn drain(&self) {
        self.edge().lifecycle.drain();
    }
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
        self.role.drain();
    }

    /// Resolves when the shop has drained and its database is closed.
    pub async fn stopped(self) {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended unexpectedly");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Starts a backend: binds, opens the database, serves.
///
/// A PostgreSQL server that cannot be reached is waited for in the background, with `/ready` failing until it
/// answers: databases and shops start in any order.
///
/// # Errors
/// The address cannot be bound, or an embedded database or the file of administrators' keys cannot be opened.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let (listener, address) = listen(config.listen_address()).await?;
    let app = Arc::new(App::new(config)?);
    match (Store::open(&app.config).await, &app.config.database) {
        (Ok(store), _) => app.set_store(store),
        (Err(error), Database::Postgres(_)) => {
            tracing::warn!(%error, "waiting for the database");
            tokio::spawn(open_later(Arc::clone(&app)));
        }
        (Err(error), _) => return Err(error.into()),
    }
    for background in [true, false] {
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            if background { app.tidy().await } else { app.faults.leak(&app.edge.lifecycle).await }
        });
    }
    let routes = TowerToHyperService::new(warp::service(routes::all(&app)));
    let role = Arc::new(Api::new(Arc::clone(&app), routes));
    let serving = tokio::spawn({
        let (app, role) = (Arc::clone(&app), Arc::clone(&role));
        async move {
            server::serve(listener, role).await;
            if let Some(store) = app.open_store() {
                store.close().await;
            }
        }
    });
    tracing::info!(%address, version = app.config.version, database = ?app.config.database, "the shop is open");
    Ok(Running { address, role, serving })
}

/// Starts a frontend: binds, serves, and looks for its backend.
///
/// # Errors
/// The address cannot be bound.
pub async fn start_web(config: WebConfig) -> Result<Running, StartError> {
    let (listener, address) = listen(config.listen_address()).await?;
    let role = Arc::new(Web::new(&config));
    let looking = Arc::clone(&role);
    tokio::spawn(async move { looking.find_backend().await });
    let serving = tokio::spawn(server::serve(listener, Arc::clone(&role)));
    tracing::info!(%address, version = config.version, backend = %config.api_url.authority(), "the frontend is open");
    Ok(Running { address, role, serving })
}

/// Tries to open the database until it works or the shop goes away, at growing intervals.
async fn open_later(app: Arc<App>) {
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let mut wait = Duration::from_millis(100);
    loop {
        tokio::select! {
            () = app.edge.lifecycle.drain_started() => return,
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
