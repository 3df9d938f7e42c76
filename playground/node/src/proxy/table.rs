//! Which endpoints a request may go to, and which requests an endpoint still has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use controllers::cache::Store;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::Notify;

/// A port of a Service, by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Number(i32),
    Name(String),
}

/// The endpoints of all Services, and what this node knows of its own pods before the API server does.
pub(crate) struct Table {
    services: Arc<Store<Service>>,
    slices: Arc<Store<EndpointSlice>>,
    local: Mutex<HashMap<Ipv4Addr, Local>>,
    answered: Notify,
    next: AtomicUsize,
    pub(super) idle: super::idle::Idle,
}

#[derive(Default)]
struct Local {
    ready: bool,
    retired: bool,
    requests: usize,
}

impl Table {
    pub fn new(services: Arc<Store<Service>>, slices: Arc<Store<EndpointSlice>>) -> Table {
        Table {
            services,
            slices,
            local: Mutex::default(),
            answered: Notify::new(),
            next: AtomicUsize::new(0),
            idle: super::idle::Idle::default(),
        }
    }

    /// Notes whether a pod of this node is ready.
    pub fn set_ready(&self, ip: Ipv4Addr, ready: bool) {
        self.lock().entry(ip).or_default().ready = ready;
        if !ready {
            self.idle.close(ip);
        }
    }

    /// Takes a pod of this node out of service for good, then waits until its requests are answered, but not for
    /// longer than `patience`.
    pub async fn retire(&self, ip: Ipv4Addr, patience: Duration) {
        {
            let mut local = self.lock();
            local.entry(ip).or_default().retired = true;
        }
        self.idle.close(ip);
        let quiet = async {
            loop {
                let answered = self.answered.notified();
                tokio::pin!(answered);
                answered.as_mut().enable();
                if self.lock().get(&ip).is_none_or(|local| local.requests == 0) {
                    return;
                }
                answered.await;
            }
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
            tracing::debug!(%ip, "a pod is stopped while it still answers requests");
        }
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, ip: Ipv4Addr) {
        self.lock().remove(&ip);
        self.idle.close(ip);
    }

    /// The ready endpoints of a Service's port, without those that this node knows to be out of service.
    pub fn ready(&self, namespace: &str, service: &str, port: &Port) -> Vec<SocketAddr> {
        let Some(service) = self.services.get(namespace, service) else { return Vec::new() };
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let found = ports.into_iter().find(|candidate| match port {
            Port::Number(number) => candidate.port == *number,
            Port::Name(name) => candidate.name.as_ref() == Some(name),
        });
        let Some(found) = found else { return Vec::new() };
        let port_name = found.name.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let mut addresses = Vec::new();
        let local = self.lock();
        for slice in self.slices.in_namespace(namespace) {
            let labels = slice.metadata.labels.as_ref();
            let of = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
            if of.map(String::as_str) != Some(name) {
                continue;
            }
            let ports = slice.ports.iter().flatten();
            let number = ports
                .into_iter()
                .find(|candidate| candidate.name.as_deref().unwrap_or_default() == port_name)
                .and_then(|candidate| candidate.port)
                .and_then(|number| u16::try_from(number).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                    continue;
                }
                let ip: Option<IpAddr> = endpoint.addresses.first().and_then(|text| text.parse().ok());
                let Some(ip) = ip else { continue };
                let serves = match ip {
                    IpAddr::V4(ip) => local.get(&ip).is_none_or(|local| local.ready && !local.retired),
                    IpAddr::V6(_) => true,
                };
                if serves {
                    addresses.push(SocketAddr::new(ip, number));
                }
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Chooses the next of these endpoints in turn, without those already tried. The choice counts as a request
    /// of that endpoint until the lease is dropped.
    pub fn choose(self: &Arc<Self>, endpoints: &[SocketAddr], tried: &[SocketAddr]) -> Option<Lease> {
        let untried: Vec<SocketAddr> =
            endpoints.iter().filter(|endpoint| !tried.contains(endpoint)).copied().collect();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let mut local = self.lock();
        for step in 0..untried.len() {
            let address = untried[(turn.wrapping_add(step)) % untried.len()];
            if let IpAddr::V4(ip) = address.ip()
                && let Some(known) = local.get_mut(&ip)
            {
                // Retired since the endpoints were looked up.
                if known.retired {
                    continue;
                }
                known.requests += 1;
            }
            return Some(Lease { address, table: Arc::clone(self) });
        }
        None
    }

    fn answer(&self, address: SocketAddr) {
        if let IpAddr::V4(ip) = address.ip()
            && let Some(local) = self.lock().get_mut(&ip)
        {
            local.requests = local.requests.saturating_sub(1);
        }
        self.answered.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Local>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way to an endpoint, or being answered by it.
pub(crate) struct Lease {
    /// The endpoint.
    pub address: SocketAddr,
    table: Arc<Table>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.answer(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Arc<Table> {
        Arc::new(Table::new(Arc::default(), Arc::default()))
    }

    fn endpoints() -> [SocketAddr; 2] {
        ["127.32.0.1:80".parse().unwrap(), "127.32.0.2:80".parse().unwrap()]
    }

    #[test]
    fn endpoints_take_turns() {
        let table = table();
        let chosen: Vec<_> = (0..4).map(|_| table.choose(&endpoints(), &[]).unwrap().address).collect();
        assert_eq!(chosen[0], chosen[2]);
        assert_ne!(chosen[0], chosen[1]);
        assert!(table.choose(&endpoints(), &endpoints()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_pod_is_not_chosen_and_waits_for_its_requests() {
        let table = table();
        let ip = Ipv4Addr::new(127, 32, 0, 1);
        table.set_ready(ip, true);
        let lease = table.choose(&endpoints()[..1], &[]).unwrap();
        let other = Arc::clone(&table);
        let retired = tokio::spawn(async move { other.retire(ip, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        assert!(table.choose(&endpoints()[..1], &[]).is_none());
        assert!(!retired.is_finished());
        let start = tokio::time::Instant::now();
        drop(lease);
        retired.await.unwrap();
        assert!(start.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_with_a_hanging_request_ends() {
        let table = table();
        let ip = Ipv4Addr::new(127, 32, 0, 1);
        table.set_ready(ip, true);
        let _hanging = table.choose(&endpoints()[..1], &[]).unwrap();
        table.retire(ip, Duration::from_millis(500)).await;
    }
}
