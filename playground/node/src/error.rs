//! What can keep a node from working.

use std::path::PathBuf;

/// A failure of the node as a whole. What goes wrong with one pod is told in that pod's status instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be used.
    #[error("cannot use the node's state folder {path}: {source}. Choose a folder that can be written")]
    Root {
        /// The folder or a file in it.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The Ingress has no place to listen.
    #[error("cannot listen on {address} for the Ingress: {source}. Choose another address")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The program that ends everything when this one dies could not be started.
    #[error("cannot start the watchdog /bin/sh: {source}. The node needs a POSIX shell")]
    Watchdog {
        /// The system's error.
        source: std::io::Error,
    },
    /// The node could not be registered.
    #[error(
        "cannot register node {name}: {source}. Check that the API server runs and grants access to nodes"
    )]
    Register {
        /// The node's name.
        name: String,
        /// The client's error.
        source: kube::Error,
    },
}
