//! Connections to pods that wait for their next request.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http1::SendRequest;

use super::http::RequestBody;

/// Idle connections per endpoint; more are closed.
const KEPT: usize = 64;

/// The idle connections by endpoint.
#[derive(Default)]
pub(crate) struct Idle {
    connections: Mutex<HashMap<SocketAddr, Vec<SendRequest<RequestBody>>>>,
}

impl Idle {
    /// A connection that is still open, the one used last first.
    pub fn take(&self, address: SocketAddr) -> Option<SendRequest<RequestBody>> {
        let mut all = self.lock();
        let kept = all.get_mut(&address)?;
        while let Some(connection) = kept.pop() {
            if connection.is_ready() && !connection.is_closed() {
                return Some(connection);
            }
        }
        all.remove(&address);
        None
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, address: SocketAddr, connection: SendRequest<RequestBody>) {
        let mut all = self.lock();
        let kept = all.entry(address).or_default();
        if kept.len() < KEPT {
            kept.push(connection);
        }
    }

    /// Closes all idle connections to a pod.
    pub fn close(&self, ip: Ipv4Addr) {
        self.lock().retain(|address, _| address.ip() != IpAddr::V4(ip));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<SendRequest<RequestBody>>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
