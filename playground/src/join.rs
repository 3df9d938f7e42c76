//! The playground's node in a cluster that is there already: pods that ask for it run as local processes, and
//! everything else of that cluster stays as it is.
//!
//! The node bears a taint, so that only pods that tolerate it come here; volumes and Ingresses are served for
//! classes of its own.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Node as NodeObject, Taint};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use node::Node;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::programs::Programs;
use crate::shop;

/// Name of the node, of the StorageClass and of the class of Ingresses that it serves.
pub const CLASS: &str = "playground";
/// Label and taint of the node: pods select and tolerate it to run here.
pub const LABEL: &str = "holdfast.dev/playground";
/// Value of the label and of the taint.
pub const VALUE: &str = "local";
/// Who the node's objects are written by.
const FIELD_MANAGER: &str = "playground";

/// Addresses for pods, and the prefix's length: the range that is set aside for tests of networks (RFC 2544), since a
/// real API server refuses loopback addresses as endpoints.
pub const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 16);

/// Why the node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The addresses for pods are not this machine's.
    #[error(
        "pods need addresses of {network}, which are not this machine's ({source}): run \
         `sudo ip route add local {network} dev lo`, or run this below tests/control-plane/own-network.sh"
    )]
    Addresses {
        /// The range.
        network: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: kube::config::KubeconfigError,
    },
    /// No client can be made from it.
    #[error("no client can be made for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The API server refuses an object that the node needs.
    #[error("the cluster refuses {what}: {source}")]
    Refused {
        /// Which one.
        what: &'static str,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The node does not start.
    #[error("the node does not start: {0}")]
    Node(#[from] node::Error),
}

/// A client from a kubeconfig file, its current context.
///
/// # Errors
///
/// [`Error::Kubeconfig`] and [`Error::Client`].
pub async fn client(kubeconfig: &Path) -> Result<Client, Error> {
    let unusable = |source| Error::Kubeconfig { path: kubeconfig.to_owned(), source };
    let file = Kubeconfig::read_from(kubeconfig).map_err(unusable)?;
    let config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)?;
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

/// A node in somebody's cluster.
pub struct Joined {
    client: Client,
    ingress_url: String,
    node: Node,
    volumes: JoinHandle<()>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("ingress_url", &self.ingress_url).finish_non_exhaustive()
    }
}

impl Joined {
    /// Joins the cluster of a kubeconfig's current context, with files in `folder`, which must exist.
    ///
    /// # Errors
    ///
    /// When the machine has no addresses for pods, or the cluster refuses the node.
    pub async fn start(kubeconfig: &Path, folder: &Path, programs: &Programs) -> Result<Self, Error> {
        let (first, prefix) = PODS;
        TcpListener::bind((Ipv4Addr::from(u32::from(first) + 1), 0))
            .map_err(|source| Error::Addresses { network: format!("{first}/{prefix}"), source })?;
        let client = client(kubeconfig).await?;
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS},
            "provisioner": controllers::provisioner::PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        });
        Api::<StorageClass>::all(client.clone())
            .patch(CLASS, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&class))
            .await
            .map_err(|source| Error::Refused { what: "the StorageClass", source: Box::new(source) })?;

        let images = shop::images(&programs.shop);
        let mut config = node::Config::new(folder.join("node"), images);
        config.name = CLASS.to_owned();
        (config.pod_network, config.pod_network_prefix) = PODS;
        config.labels.insert(LABEL.to_owned(), VALUE.to_owned());
        config.taints.push(Taint {
            key: LABEL.to_owned(),
            value: Some(VALUE.to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
        config.ingress_class = Some(CLASS.to_owned());
        let node = Node::start(client.clone(), config).await?;
        let provisioner = controllers::provisioner::run(client.clone(), CLASS.to_owned());
        let volumes = tokio::spawn(async move {
            if let Err(error) = provisioner.await {
                tracing::error!(%error, "no volumes are made any more");
            }
        });
        let ingress_url = format!("http://{}", node.ingress_address());
        Ok(Self { client, ingress_url, node, volumes })
    }

    /// Where Ingresses of the class [`CLASS`] answer.
    pub fn ingress_url(&self) -> &str {
        &self.ingress_url
    }

    /// Ends every pod's process, and takes the node and its StorageClass out of the cluster again.
    ///
    /// # Errors
    ///
    /// When the cluster cannot be reached for that.
    pub async fn leave(self) -> Result<(), Error> {
        self.volumes.abort();
        self.node.shutdown().await;
        let refused = |what| move |source| Error::Refused { what, source: Box::new(source) };
        let params = DeleteParams::default();
        let nodes = Api::<NodeObject>::all(self.client.clone());
        gone(nodes.delete(CLASS, &params).await).map_err(refused("to let the node go"))?;
        let classes = Api::<StorageClass>::all(self.client);
        gone(classes.delete(CLASS, &params).await).map_err(refused("to let the StorageClass go"))
    }
}

/// Not to be there is as good as to be deleted.
fn gone<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
