//! The daemon: everything wired together, from the first connection to the last write.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::kustomize::Cache;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::evidence::Judgements;
use super::manager;
use super::services::{Claims, Options, Services};
use crate::cluster::{Cluster, Election, LeaseTimes};
use crate::evidence::Evidence;
use crate::http;
use crate::measure::Prober;
use crate::source::{Sources, SourcesConfig};
use crate::telemetry::Telemetry;

/// Name of the Lease that replicas elect their leader with.
const LEASE: &str = "holdfast";

/// The daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No way to the cluster was found.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {error}; give another with --data-dir")]
    DataDirectory {
        /// The directory.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// No HTTP client could be made.
    #[error("no HTTP client could be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The address of the web page, metrics and probes cannot be used.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The operating system gives no signals.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

/// Runs the agent until it is told to stop: by SIGTERM, SIGINT or, where that was asked for, the end of
/// standard input. Writes that are under way are ended; nothing is lost, because state comes first.
///
/// # Errors
/// [`ServeError`] when it cannot begin.
pub async fn serve(options: Options) -> Result<(), ServeError> {
    std::fs::create_dir_all(&options.data_dir)
        .map_err(|error| ServeError::DataDirectory { path: options.data_dir.display().to_string(), error })?;
    let (stopping, stop) = watch::channel(false);
    listen_for_the_end(stopping, options.until_stdin_closes)?;

    let cluster = Cluster::connect(options.kubeconfig.as_deref()).await?;
    // A pod's name is its own, even across restarts of its container; elsewhere the process tells apart.
    let identity = match std::env::var("POD_NAME") {
        Ok(pod) if !pod.is_empty() => pod,
        _ => format!("{}-{}", cluster.identity(), std::process::id()),
    };
    let (election, leadership) =
        Election::new(&options.lease_namespace, LEASE, &identity, LeaseTimes::default());
    let cluster = cluster.led_by(leadership.clone());

    let telemetry = Telemetry::new();
    let observed = telemetry.clone();
    let sources = Sources::new(SourcesConfig {
        observer: Arc::new(move |repository, took, failure| {
            let reason = failure.map(|failure| failure.reason());
            observed.fetched(&repository.to_string(), reason, took);
        }),
        timeout: options.fetch_timeout,
        ..SourcesConfig::new(&options.data_dir)
    });
    let evidence = Evidence::new(&options.data_dir);
    let services = Arc::new(Services {
        cluster: cluster.clone(),
        sources,
        renders: Cache::new(),
        evidence,
        prober: Prober::new()?,
        telemetry,
        options,
        claims: Claims::default(),
        judgements: Judgements::default(),
        ready: AtomicBool::new(false),
        board: super::board::Board::default(),
    });

    let http = http::serve(services.options.http, http_deps(&services), stop.clone()).await?;
    let mut resign = stop.clone();
    let resigned = tokio::spawn(election.run(cluster, async move {
        // A dropped sender is the end too.
        let _ = resign.wait_for(|stop| *stop).await;
    }));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, http = %http.address, "started");
    manager::run(services.clone(), leadership, stop).await;
    // The lease is given back, so that a standby takes over at once; evidence gets a last chance to leave.
    let _ = tokio::time::timeout(Duration::from_secs(5), resigned).await;
    services.evidence.flush(Duration::from_secs(5)).await;
    services.ready.store(false, Ordering::Release);
    // It ends with the requests under way.
    let _ = tokio::time::timeout(Duration::from_secs(1), http.task).await;
    tracing::info!("stopped");
    Ok(())
}

fn http_deps(services: &Arc<Services>) -> http::Deps {
    let (ready, board, hooked) = (services.clone(), services.clone(), services.clone());
    http::Deps {
        ready: Box::new(move || ready.ready.load(Ordering::Acquire)),
        telemetry: services.telemetry.clone(),
        hook_secret: services.options.webhook_secret.clone(),
        on_hook: Box::new(move |event| {
            event.repositories.iter().map(|repository| hooked.sources.poke(Some(repository))).sum()
        }),
        board: Box::new(move || board.board.views()),
    }
}

fn listen_for_the_end(stopping: watch::Sender<bool>, stdin: bool) -> Result<(), ServeError> {
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let (closed, mut closing) = watch::channel(false);
    if stdin {
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while matches!(std::io::stdin().read(&mut buffer), Ok(read) if read > 0) {}
            closed.send_replace(true);
        });
    }
    tokio::spawn(async move {
        let parent_gone = async {
            // Without a parent to watch the sender is dropped, which says nothing.
            if closing.wait_for(|closed| *closed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = term.recv() => tracing::info!("told to stop by SIGTERM"),
            _ = int.recv() => tracing::info!("told to stop by SIGINT"),
            () = parent_gone => tracing::info!("told to stop: standard input was closed"),
        }
        stopping.send_replace(true);
    });
    Ok(())
}
