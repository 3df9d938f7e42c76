//! What a node is told at its start.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::images::ImageMap;
use crate::sessions::Sessions;
use crate::usage::Usage;

/// The configuration of a node. [`Config::new`] gives defaults for everything but its folder and images.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name in the cluster.
    pub name: String,
    /// The folder for logs, volumes and scratch space; created when missing. One node at a time may use it.
    pub root: PathBuf,
    /// Which local program stands for which image.
    pub images: ImageMap,
    /// The first address for pods; each takes the next one. It must be a loopback address (127.0.0.0/8).
    pub pod_network: Ipv4Addr,
    /// The size of the pod network as a prefix length, 8 to 30.
    pub pod_network_prefix: u8,
    /// Where the Ingress listens; port 0 takes a free one.
    pub ingress_address: SocketAddr,
    /// CPUs that pods may request together. Requests are not enforced on processes, so a small machine may offer
    /// more than it has.
    pub cpus: u32,
    /// Further labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Where the node measures what pods use.
    pub usage: Usage,
    /// Through which programs are run in its containers.
    pub sessions: Sessions,
}

impl Config {
    /// A node named `playground` whose pods get addresses from 127.32.0.0/12.
    pub fn new(root: impl Into<PathBuf>, images: ImageMap) -> Config {
        Config {
            name: "playground".to_owned(),
            root: root.into(),
            images,
            pod_network: Ipv4Addr::new(127, 32, 0, 0),
            pod_network_prefix: 12,
            ingress_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            cpus: 64,
            labels: BTreeMap::new(),
            usage: Usage::default(),
            sessions: Sessions::default(),
        }
    }
}
