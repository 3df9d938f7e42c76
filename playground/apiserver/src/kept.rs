//! What outlives a server, as etcd outlives an API server's process.

use crate::auth::User;
use crate::schema::catalogue::Catalogue;
use crate::store::Store;
use crate::tls::Identity;
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The state of a stopped server: objects with their history and revision, the tokens that it issued and
/// its certificate. Faults on demand
/// are not part of it.
pub struct Kept {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) tokens: HashMap<String, (User, Timestamp)>,
    pub(crate) admin_token: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) random: u64,
}

impl Kept {
    /// Where the server listened. One that is started with port 0 listens there again.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
