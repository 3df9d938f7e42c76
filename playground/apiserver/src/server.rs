//! The HTTP server around it all.

use crate::app::App;
use crate::faults::{Fault, Faults};
use crate::kept::Kept;
use crate::logs::PodLogs;
use crate::metrics_api::PodMetrics;
use crate::request::{Query, Request, Target, percent_decode};
use crate::respond::{self, Body};
use crate::status::{About, Refusal};
use crate::streams::PodStreams;
use crate::tls::{Identity, Stream};
use crate::{body, bootstrap, route};
use base64::Engine;
use http::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::error::Error as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// How to start a server.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; port 0 picks a free one.
    pub address: SocketAddr,
    /// Seed of UIDs and generated names; equal seeds give equal ones.
    pub seed: u64,
    /// Whether a client without a token is the cluster administrator. With `false` it is `system:anonymous`.
    pub anonymous_admin: bool,
    /// Whether to serve HTTPS, with a certificate authority of the server's own, instead of HTTP.
    pub tls: bool,
    /// Service addresses: network and prefix length. The default lies in loopback, so that a local process can listen on it.
    pub service_range: (Ipv4Addr, u8),
    /// Whether a pod has to have a ServiceAccount, as the admission plugin of that name sees to it. Somebody has to make the
    /// account `default` of every namespace then, and nodes have to mount tokens.
    pub service_accounts: bool,
    /// How long an Event is remembered after it was last written.
    pub event_lifetime: Duration,
    /// Who has the logs of pods.
    pub pod_logs: Option<Arc<dyn PodLogs>>,
    /// Who runs programs in pods and connects to them.
    pub pod_streams: Option<Arc<dyn PodStreams>>,
    /// Who measures pods; `metrics.k8s.io` is served when there is somebody.
    pub pod_metrics: Option<Arc<dyn PodMetrics>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            anonymous_admin: true,
            tls: false,
            service_range: (Ipv4Addr::new(127, 96, 0, 0), 12),
            service_accounts: false,
            event_lifetime: Duration::from_secs(3600),
            pod_logs: None,
            pod_streams: None,
            pod_metrics: None,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address or port 0")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no certificate.
    #[error("no certificate for HTTPS can be made: {0}; start the server without TLS")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A running API server. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts to serve an empty cluster on a task of the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(config: Config) -> Result<Server, Error> {
        Server::begin(config, None).await
    }

    /// Starts to serve what an earlier server left: the same objects at the same revisions, the same tokens. With port 0 it
    /// listens where the earlier one did, so that its clients find it again.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start_with(mut config: Config, kept: Kept) -> Result<Server, Error> {
        if config.address.port() == 0 {
            config.address = kept.address();
        }
        Server::begin(config, Some(kept)).await
    }

    async fn begin(config: Config, kept: Option<Kept>) -> Result<Server, Error> {
        let wanted = config.address;
        let refuse = |source| Error::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        let config = Config { address, ..config };
        let fresh = kept.is_none();
        let identity = identity(&config, kept.as_ref())?;
        let app = Arc::new_cyclic(|own| match kept {
            None => App::new(config, identity, own.clone()),
            Some(kept) => App::restored(config, identity, own.clone(), kept),
        });
        if fresh {
            bootstrap::run(&app);
        }
        bootstrap::own_service(&app);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, app.clone(), stopped));
        Ok(Server { address, app, stop, task })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`, or `http:` without TLS.
    pub fn url(&self) -> String {
        let scheme = if self.app.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of the authority that clients have to trust, as PEM; none without TLS.
    pub fn certificate_authority(&self) -> Option<&str> {
        self.app.identity.as_ref().map(|identity| identity.authority.as_str())
    }

    /// The bearer token of the cluster administrator.
    pub fn admin_token(&self) -> &str {
        &self.app.admin_token
    }

    /// A kubeconfig for the cluster administrator, as YAML.
    pub fn kubeconfig(&self) -> String {
        let authority = self.certificate_authority().map_or_else(String::new, |pem| {
            format!(
                "    certificate-authority-data: {}\n",
                base64::engine::general_purpose::STANDARD.encode(pem)
            )
        });
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: playground\n  cluster:\n    server: {}\n{authority}users:\n- name: admin\n  \
             user:\n    token: {}\ncontexts:\n- name: playground\n  context:\n    cluster: playground\n    user: admin\n    \
             namespace: default\ncurrent-context: playground\n",
            self.url(),
            self.app.admin_token
        )
    }

    /// Faults on demand.
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// Forgets the history, as etcd does at its compactions: a watch or a page from before is answered with 410.
    pub fn compact(&self) {
        self.app.store_mut().compact();
    }

    /// Stops to serve; open watches end.
    pub async fn shutdown(mut self) {
        self.end().await;
    }

    /// Stops to serve, as `shutdown` does, and hands out the state for `start_with`. Writes that were answered are in it.
    pub async fn stop_keeping(mut self) -> Kept {
        self.end().await;
        self.app.keep()
    }

    async fn end(&mut self) {
        self.stop.send_replace(true);
        self.app.end_sessions();
        self.app.store_mut().close_watches();
        // A task that panicked or was aborted has ended all the same.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

/// What the server shows its clients: as before where there was a server before, for they trust that.
fn identity(config: &Config, kept: Option<&Kept>) -> Result<Option<Identity>, Error> {
    if !config.tls {
        return Ok(None);
    }
    if let Some(identity) = kept.and_then(|kept| kept.identity.clone()) {
        return Ok(Some(identity));
    }
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), bootstrap::service_address(config).into()];
    if !addresses.contains(&config.address.ip()) {
        addresses.push(config.address.ip());
    }
    Identity::new(&addresses).map(Some).map_err(|error| Error::Certificate(error.into()))
}

/// Shortest and longest time between looks at old Events.
const SWEEP_LEAST: Duration = Duration::from_millis(50);
const SWEEP_MOST: Duration = Duration::from_secs(60);

async fn accept(listener: TcpListener, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let lifetime = app.config.event_lifetime;
    let mut sweep = tokio::time::interval((lifetime / 10).clamp(SWEEP_LEAST, SWEEP_MOST));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = sweep.tick() => {
                app.forget_events(lifetime);
                continue;
            }
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        // Without it small answers wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(stream, app.clone(), stopped.clone()));
    }
    // What is being written is written before the store is at rest.
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, app: Arc<App>, mut stopped: watch::Receiver<bool>) {
    let stream = tokio::select! {
        stream = Stream::begin(stream, app.identity.as_ref()) => stream,
        _ = stopped.wait_for(|stop| *stop) => return,
    };
    let Some(stream) = stream else { return };
    let service = service_fn(|request| serve(app.clone(), request));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        result = &mut connection => {
            let Err(error) = result else { return };
            tracing::debug!(%error, "a connection ended early");
            if error.source().is_some_and(|source| source.is::<Reset>())
                && let Some(parts) = connection.into_parts()
            {
                // Closed without lingering, the peer gets a reset instead of an orderly end.
                parts.io.into_inner().reset();
            }
        }
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// The connection is to be reset without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset, as a fault on demand asks")]
struct Reset;

async fn serve(app: Arc<App>, request: http::Request<Incoming>) -> Result<Response<Body>, Reset> {
    let (mut parts, incoming) = request.into_parts();
    let Ok(collected) = Limited::new(incoming, body::LIMIT).collect().await else {
        return Ok(respond::refusal(&Refusal::too_large()));
    };
    let segments = parts.uri.path().trim_matches('/').split('/').filter(|s| !s.is_empty());
    let mut request = Request {
        method: parts.method,
        path: segments.map(|s| percent_decode(s, false)).collect(),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body: collected.to_bytes(),
        upgrade: Mutex::new(parts.extensions.remove::<OnUpgrade>()),
        stale: None,
    };
    let verdict = app.faults.decide(&app, &request);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    request.stale = verdict.stale;
    let Some(fault) = verdict.fault else { return Ok(route::answer(&app, request).await) };
    let watches = request.query.is_true("watch");
    let refusal = match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Reset => return Err(Reset),
        Fault::LoseAnswer => {
            route::answer(&app, request).await;
            return Err(Reset);
        }
        Fault::Expired if watches => return Ok(crate::watch::expired()),
        Fault::Expired => Refusal::gone("The resourceVersion for the provided list is too old."),
        Fault::Conflict => Refusal::modified(about(&app, &request)),
        Fault::TooManyRequests { retry_after_seconds } => Refusal::too_many_requests(retry_after_seconds),
        Fault::InternalError => Refusal::internal_error("etcdserver: request timed out"),
        Fault::Unavailable { retry_after_seconds } => Refusal::unavailable(retry_after_seconds),
        Fault::Delay { .. }
        | Fault::StaleList
        | Fault::DropWatch { .. }
        | Fault::SilenceWatch { .. }
        | Fault::ShiftLeases { .. }
        | Fault::FreezeLeases => {
            return Ok(route::answer(&app, request).await);
        }
    };
    Ok(respond::refusal(&refusal))
}

/// What a request is about, for the wording of a refusal.
fn about(app: &App, request: &Request) -> About {
    Target::find(&app.catalogue(), &request.path)
        .map(|t| About::new(&t.resource.group, &t.resource.plural, &t.name))
        .unwrap_or_default()
}
