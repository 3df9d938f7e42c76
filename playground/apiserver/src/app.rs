//! The server's state, shared by all requests.

use crate::Config;
use crate::auth::User;
use crate::faults::Faults;
use crate::kept::Kept;
use crate::schema::catalogue::{Catalogue, Resource};
use crate::schema::{Type, table::TABLE};
use crate::status::{About, Refusal};
use crate::store::{Object, Store};
use crate::tls::Identity;
use crate::{convert, time};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;
use tokio::task::JoinSet;

/// The server's state.
pub struct App {
    /// How the server was started.
    pub config: Config,
    /// Faults on demand.
    pub faults: Faults,
    /// Token of the cluster administrator.
    pub admin_token: String,
    /// What HTTPS is served with; none for HTTP.
    pub identity: Option<Identity>,
    /// Connections that speak another protocol by now.
    sessions: Mutex<JoinSet<()>>,
    store: RwLock<Store>,
    catalogue: RwLock<Arc<Catalogue>>,
    random: Mutex<u64>,
    tokens: Mutex<HashMap<String, (User, Timestamp)>>,
}

impl App {
    /// State with the built-in resources and no objects. `own` is where it will be.
    pub fn new(config: Config, identity: Option<Identity>, own: Weak<App>) -> App {
        let random = Mutex::new(config.seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut catalogue = Catalogue::built_in();
        if config.pod_metrics.is_some() {
            crate::metrics_api::resources().into_iter().for_each(|resource| catalogue.add(resource));
        }
        let mut app = App {
            faults: Faults::new(own, config.seed),
            config,
            admin_token: String::new(),
            identity,
            sessions: Mutex::default(),
            store: RwLock::default(),
            catalogue: RwLock::new(Arc::new(catalogue)),
            random,
            tokens: Mutex::default(),
        };
        app.admin_token = app.uid();
        app
    }

    /// A state that an earlier server left.
    pub fn restored(config: Config, identity: Option<Identity>, own: Weak<App>, kept: Kept) -> App {
        App {
            faults: Faults::new(own, config.seed),
            config,
            admin_token: kept.admin_token,
            identity,
            sessions: Mutex::default(),
            store: RwLock::new(kept.store),
            catalogue: RwLock::new(kept.catalogue),
            random: Mutex::new(kept.random),
            tokens: Mutex::new(kept.tokens),
        }
    }

    /// Takes the state out; what is left behind is empty.
    pub fn keep(&self) -> Kept {
        Kept {
            address: self.config.address,
            store: std::mem::take(&mut *self.store_mut()),
            catalogue: self.catalogue(),
            tokens: std::mem::take(&mut *self.tokens()),
            admin_token: self.admin_token.clone(),
            identity: self.identity.clone(),
            random: self.random(),
        }
    }

    /// Serves a connection that speaks another protocol from now on, until it or the server ends.
    pub fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(session);
    }

    /// Ends all connections that speak another protocol.
    pub fn end_sessions(&self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// The objects, to read.
    pub fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects, to write.
    pub fn store_mut(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The served resources.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the served resources.
    pub fn change_catalogue(&self, change: impl FnOnce(&mut Catalogue)) {
        let mut guard = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Catalogue::default();
        for resource in guard.all() {
            next.add_shared(resource.clone());
        }
        change(&mut next);
        *guard = Arc::new(next);
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, (User, Timestamp)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom a bearer token stands for; `None` when it was not issued here or has expired.
    pub fn user_of(&self, token: &str) -> Option<User> {
        if token == self.admin_token {
            return Some(User::admin());
        }
        self.tokens().get(token).filter(|(_, end)| *end > time::now()).map(|(user, _)| user.clone())
    }

    /// Issues a token that is good until `end`.
    pub fn issue(&self, user: User, end: Timestamp) -> String {
        let token = format!("{}.{}", self.uid(), self.uid());
        let mut tokens = self.tokens();
        let now = time::now();
        tokens.retain(|_, (_, end)| *end > now);
        tokens.insert(token.clone(), (user, end));
        token
    }

    /// The next 64 random bits of this server's sequence (SplitMix64; the seed makes runs repeatable).
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A new UUID (version 4).
    pub fn uid(&self) -> String {
        let bytes = (u128::from(self.random()) << 64) | u128::from(self.random());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
    }

    /// Five random characters for `generateName`.
    pub fn suffix(&self) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.random();
        let mut out = String::new();
        for _ in 0..5 {
            out.push(char::from(ALPHABET[(bits % 27) as usize]));
            bits /= 27;
        }
        out
    }

    /// The group-version that objects of a resource are stored in.
    pub fn hub(&self, resource: &Resource) -> String {
        if let Some(hub) = convert::hub(&resource.table()) {
            return hub.into();
        }
        match &resource.custom {
            Some(custom) => crate::schema::catalogue::group_version(&resource.group, &custom.storage_version),
            None => resource.group_version(),
        }
    }

    /// The type of a resource's objects in another group-version.
    pub fn type_in(&self, resource: &Resource, group_version: &str) -> Option<Arc<Type>> {
        if resource.group_version() == group_version {
            return Some(resource.ty.clone());
        }
        let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
        self.catalogue().get(group, version, &resource.plural).map(|r| r.ty.clone())
    }

    /// A built-in type.
    pub fn named_type(name: &str) -> Arc<Type> {
        TABLE.get(name).cloned().unwrap_or_else(|| Arc::new(Type::Any))
    }

    /// Refuses to create in a namespace that is missing or about to go.
    pub fn check_namespace(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
        if namespace.is_empty() || !resource.namespaced {
            return Ok(());
        }
        let found = self.store().get("namespaces", namespace);
        let Some(found) = found else {
            return Err(Refusal::not_found(About::new("", "namespaces", namespace)));
        };
        if found.value["metadata"]["deletionTimestamp"].is_string() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut refusal = Refusal::forbidden(About::new(&resource.group, &resource.plural, name), &why);
            refusal.causes.push(crate::status::Cause {
                field: "metadata.namespace".into(),
                reason: "NamespaceTerminating",
                message: format!("namespace {namespace} is being terminated"),
            });
            return Err(refusal);
        }
        Ok(())
    }

    /// The next free service address, or the wanted one when it is free and in range.
    pub fn cluster_ip(&self, wanted: &str) -> Result<String, String> {
        let (base, bits) = self.config.service_range;
        let size = 1u32 << (32 - u32::from(bits.clamp(8, 30)));
        let store = self.store();
        let used: std::collections::HashSet<&str> =
            store.range("services", "", "").filter_map(|o| o.value["spec"]["clusterIP"].as_str()).collect();
        let address = |n: u32| Ipv4Addr::from(u32::from(base).wrapping_add(n));
        if !wanted.is_empty() {
            let parsed: Ipv4Addr = wanted.parse().map_err(|_| {
                format!("failed to allocate IP {wanted}: the provided IP ({wanted}) is not valid")
            })?;
            let offset = u32::from(parsed).wrapping_sub(u32::from(base));
            if offset == 0 || offset >= size {
                let range = format!("{base}/{bits}");
                return Err(format!(
                    "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of \
                     valid IPs is {range}"
                ));
            }
            if used.contains(wanted) {
                return Err(format!("failed to allocate IP {wanted}: provided IP is already allocated"));
            }
            return Ok(wanted.into());
        }
        let start = 10 + used.len() as u32;
        (0..size - 2)
            .map(|n| address(1 + (start + n) % (size - 2)).to_string())
            .find(|ip| !used.contains(ip.as_str()))
            .ok_or_else(|| "failed to allocate a serviceIP: range is full".into())
    }

    /// Removes Events that were last written longer ago than `lifetime`, as the lease that etcd keeps them under does.
    pub fn forget_events(&self, lifetime: Duration) {
        let Ok(limit) = time::now().checked_sub(lifetime) else { return };
        let old: Vec<Arc<Object>> =
            self.store().range("events", "", "").filter(|e| e.written < limit).cloned().collect();
        let mut store = self.store_mut();
        for event in old {
            // One that was written in the meantime stays.
            let _ = store.delete("events", &event.key, event.revision);
        }
    }

    /// The current time as objects have it.
    pub fn now(&self) -> String {
        time::seconds(time::now())
    }

    /// An object of a resource in the version of the resource.
    pub fn shown(&self, resource: &Resource, stored: &Value) -> Value {
        convert::convert(stored, &resource.table(), &resource.group_version())
    }
}
