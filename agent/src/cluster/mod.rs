//! Everything that the agent asks of a cluster, and tells it.
//!
//! [`Cluster`] is the handle: cheap to clone, and every write through it asks at that moment whether this
//! agent still leads. There is one file per verb.

mod answer;
mod apply;
mod applyset;
mod bundles;
mod door;
mod environments;
mod error;
mod events;
mod health;
mod index;
mod inputs;
mod kinds;
mod lease;
mod leave;
mod members;
mod pods;
mod preview;
mod prune;
mod raw;
mod request;
mod status;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;

use engine::object::GroupVersionKind;
use http::{HeaderValue, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Semaphore;

pub use applyset::group_kinds;
pub use environments::EnvironmentEvent;
pub use error::{Error, FieldOwner, ObjectError};
pub use events::EnvironmentNotice;
pub use health::PodWatch;
pub use index::{ChangeKind, Member, MemberChange, Members};
pub use inputs::{InputKind, InputRef, InputState};
pub use kinds::Kind;
pub use lease::{Election, Leadership, LeaseTimes};
pub use members::Subscription;
pub use pods::{Pod, PodSets};
pub use status::StatusWriter;

/// How many requests of all environments together are under way at most: each needs a connection.
const REQUESTS: usize = 64;

/// A cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    leadership: Leadership,
}

struct Inner {
    client: Client,
    /// How many requests may be under way; watches do not count.
    requests: Semaphore,
    identity: String,
    kinds: kinds::Kinds,
    members: members::MemberWatch,
    problems: Arc<health::Problems>,
    inputs: inputs::Inputs,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Kind {
    /// A kind that every cluster has: no discovery is needed.
    pub(crate) fn known(api_version: &str, kind: &str, plural: &str) -> Self {
        Self {
            gvk: GroupVersionKind::from_api_version(api_version, kind),
            plural: plural.to_owned(),
            namespaced: true,
            watchable: true,
        }
    }
}

impl Cluster {
    /// Connects to the cluster of a kubeconfig file or, without one, to that of `KUBECONFIG`,
    /// `~/.kube/config` or the pod that this runs in. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] when no usable configuration is found.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        Ok(Self::new(client(kubeconfig).await?))
    }

    /// Uses a client. The agent counts as the only one until [`Cluster::led_by`] says otherwise.
    pub fn new(client: Client) -> Self {
        let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
        let identity = pod.unwrap_or_else(|_| "holdfast".to_owned());
        let inner = Inner {
            client,
            requests: Semaphore::new(REQUESTS),
            identity,
            kinds: kinds::Kinds::default(),
            members: members::MemberWatch::default(),
            problems: Arc::default(),
            inputs: inputs::Inputs::default(),
        };
        Self { inner: Arc::new(inner), leadership: Leadership::always() }
    }

    /// The same cluster, written to only while this leadership lasts.
    pub fn led_by(&self, leadership: Leadership) -> Self {
        Self { inner: self.inner.clone(), leadership }
    }

    /// Whether this agent may write now.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The client, for requests that no verb here covers.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// What this agent calls itself in events: the name of its pod or host.
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }
}

/// A client for the cluster of a kubeconfig file or, without one, for that of `KUBECONFIG`,
/// `~/.kube/config` or the pod that this runs in.
///
/// # Errors
/// [`Error::Config`] when no usable configuration is found.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    crate::tls::install();
    let unusable = |error: &dyn std::error::Error| Error::Config(request::chain(error));
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))?
        }
        None => Config::infer().await.map_err(|error| unusable(&error))?,
    };
    // The agent has one retry policy of its own: see `request`.
    config.default_retry = false;
    let agent = HeaderValue::from_static(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
    config.headers.push((header::USER_AGENT, agent));
    Client::try_from(config).map_err(|error| unusable(&error))
}
