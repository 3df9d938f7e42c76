//! The embedded cluster: API server, controllers and node in this process, pods as processes of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::Server;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use node::Node;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::network::Network;
use crate::pod_logs::NodeLogs;
use crate::pod_metrics::NodeMetrics;
use crate::pod_streams::NodeStreams;
use crate::programs::Programs;
use crate::shop;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not start.
    #[error("the embedded API server does not start: {0}")]
    ApiServer(#[from] apiserver::Error),
    /// The folder cannot be used.
    #[error("the folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kubeconfig cannot be used.
    #[error("the embedded cluster's kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// No client can be made from it.
    #[error("no client can be made for the embedded cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The kubeconfig cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There are no addresses for pods.
    #[error("no addresses on the loopback network (127.0.0.0/8) for pods: {0}")]
    Network(#[source] io::Error),
    /// The node does not start.
    #[error("the embedded node does not start: {0}")]
    Node(#[from] node::Error),
}

/// A running cluster. Dropping it ends everything in it, pods included.
pub struct Cluster {
    client: Client,
    url: String,
    kubeconfig: PathBuf,
    shop_url: String,
    stop: watch::Sender<bool>,
    controllers: JoinHandle<Result<(), controllers::Error>>,
    node: Node,
    server: Server,
    _network: Network,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("url", &self.url)
            .field("kubeconfig", &self.kubeconfig)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts a cluster that keeps its files in `folder`, which must exist, and knows the shop's images.
    ///
    /// # Errors
    ///
    /// When a part of it does not start.
    pub async fn start(folder: &Path, programs: &Programs) -> Result<Self, Error> {
        let images = shop::images(&programs.shop);
        let folder =
            folder.canonicalize().map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
        let node_root = folder.join("node");
        let network = Network::claim().map_err(Error::Network)?;
        let usage = node::Usage::default();
        let sessions = node::Sessions::default();
        let server = Server::start(apiserver::Config {
            tls: true,
            service_accounts: true,
            service_range: network.services(),
            pod_logs: Some(Arc::new(NodeLogs::new(&node_root))),
            pod_streams: Some(Arc::new(NodeStreams::new(sessions.clone(), &node_root))),
            pod_metrics: Some(Arc::new(NodeMetrics::new(usage.clone()))),
            ..apiserver::Config::default()
        })
        .await?;
        let kubeconfig = folder.join("kubeconfig");
        let text = server.kubeconfig();
        write_private(&kubeconfig, &text)
            .map_err(|source| Error::Write { path: kubeconfig.clone(), source })?;
        let config = kube::Config::from_custom_kubeconfig(
            Kubeconfig::from_yaml(&text)?,
            &KubeConfigOptions::default(),
        )
        .await?;
        let client = Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))?;

        let (stop, stopped) = watch::channel(false);
        let settings = controllers::Settings {
            root_ca: server.certificate_authority().map(Arc::from),
            ..controllers::Settings::default()
        };
        let controllers = tokio::spawn(controllers::run_with(client.clone(), settings, until(stopped)));

        let mut config = node::Config::new(node_root, images);
        config.usage = usage;
        config.sessions = sessions;
        (config.pod_network, config.pod_network_prefix) = network.pods();
        let node = Node::start(client.clone(), config).await?;
        let shop_url = format!("http://{}", node.ingress_address());
        Ok(Self {
            client,
            url: server.url(),
            kubeconfig,
            shop_url,
            stop,
            controllers,
            node,
            server,
            _network: network,
        })
    }

    /// A client with all rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Address of the API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Address of the Ingress, where the shop answers.
    pub fn ingress_url(&self) -> &str {
        &self.shop_url
    }

    /// Ends pods, controllers and API server, in this order, and waits for each.
    pub async fn stop(self) {
        self.node.shutdown().await;
        self.stop.send_replace(true);
        if let Ok(Err(error)) = self.controllers.await {
            tracing::warn!(%error, "the controllers had ended");
        }
        self.server.shutdown().await;
    }
}

/// Completes when `true` is sent, or the sender is gone.
async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Writes a file that only this user can read: it holds the cluster's credentials.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
