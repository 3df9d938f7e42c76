//! What every pod of a node shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use controllers::cache::Store;
use controllers::events::Recorder;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::Client;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use tokio::sync::watch;

use crate::config::Config;
use crate::environment::Lookup;
use crate::process::Processes;
use crate::proxy::Table;

/// The node's shared state.
pub(crate) struct Context {
    pub client: Client,
    pub config: Config,
    pub processes: Arc<Processes>,
    pub events: Recorder,
    pub pods: Arc<Store<Pod>>,
    pub services: Arc<Store<Service>>,
    pub config_maps: Arc<Store<ConfigMap>>,
    pub secrets: Arc<Store<Secret>>,
    pub claims: Arc<Store<PersistentVolumeClaim>>,
    /// Counts changes of ConfigMaps, Secrets and claims, for those that wait for one.
    pub changed: Arc<watch::Sender<u64>>,
    pub table: Arc<Table>,
    pub addresses: Addresses,
    pub graveyard: crate::logs::Graveyard,
    pub allocatable: BTreeMap<String, f64>,
}

impl Context {
    /// The folder of one pod's volumes and scratch space.
    pub fn pod_folder(&self, pod: &Pod) -> PathBuf {
        self.config.root.join("pods").join(safe(pod.metadata.uid.as_deref().unwrap_or_default()))
    }

    /// The folder of a claim, which outlives pods but not the claim: another one of the same name starts empty.
    pub fn claim_folder(&self, claim: &PersistentVolumeClaim) -> PathBuf {
        let part = |text: &Option<String>| safe(text.as_deref().unwrap_or_default());
        let meta = &claim.metadata;
        let name = format!("{}-{}", part(&meta.name), part(&meta.uid));
        self.config.root.join("claims").join(part(&meta.namespace)).join(name)
    }

    /// The Services that a pod of the namespace may learn of.
    pub fn visible_services(&self, namespace: &str) -> Vec<Arc<Service>> {
        let mut services = self.services.in_namespace(namespace);
        if namespace != "default" {
            services.extend(self.services.get("default", "kubernetes"));
        }
        services
    }
}

impl Lookup for Context {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(namespace, name)
    }
}

/// A name as one component of a path. The API server admits only names that are; a hostile one must not lead out.
pub(crate) fn safe(name: &str) -> String {
    let text: String = name
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => character,
            _ => '_',
        })
        .take(253)
        .collect();
    if text.is_empty() || text.starts_with('.') { format!("_{text}") } else { text }
}

/// The addresses of the node's pods. An address is used again as late as possible, so that nothing meant for a
/// former pod reaches its successor.
pub(crate) struct Addresses {
    first: u32,
    size: u32,
    state: Mutex<(u32, BTreeSet<u32>)>,
}

impl Addresses {
    pub fn new(network: Ipv4Addr, prefix: u8) -> Addresses {
        let size = 1u32 << (32 - u32::from(prefix.clamp(8, 30)));
        let first = u32::from(network) & !(size - 1);
        Addresses { first, size, state: Mutex::new((1, BTreeSet::new())) }
    }

    /// An address that no running pod has; none when all are taken.
    pub fn take(&self) -> Option<Ipv4Addr> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, taken) = &mut *state;
        // Neither the network's own address nor the last one.
        for _ in 0..self.size {
            let offset = *next;
            *next = if offset + 2 >= self.size { 1 } else { offset + 1 };
            if taken.insert(offset) {
                return Some(Ipv4Addr::from(self.first + offset));
            }
        }
        None
    }

    /// Gives an address back.
    pub fn release(&self, address: Ipv4Addr) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.remove(&u32::from(address).wrapping_sub(self.first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_reused_late() {
        let addresses = Addresses::new(Ipv4Addr::new(127, 32, 0, 0), 30);
        let (a, b) = (addresses.take().unwrap(), addresses.take().unwrap());
        assert_eq!((a, b), (Ipv4Addr::new(127, 32, 0, 1), Ipv4Addr::new(127, 32, 0, 2)));
        assert_eq!(addresses.take(), None);
        addresses.release(a);
        assert_eq!(addresses.take(), Some(a));
        let large = Addresses::new(Ipv4Addr::new(127, 32, 0, 0), 12);
        let first = large.take().unwrap();
        large.release(first);
        assert_ne!(large.take(), Some(first));
    }

    #[test]
    fn names_stay_inside_their_folder() {
        for (name, expected) in
            [("shop", "shop"), ("../x", "_.._x"), ("", "_"), ("..", "_.."), ("a/b", "a_b")]
        {
            assert_eq!(safe(name), expected);
        }
    }
}
