//! The addresses of Services: a TCP listener per ClusterIP and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use controllers::cache::Store;
use k8s_openapi::api::core::v1::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::table::{Port, Table};

/// A Service's port behind an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    namespace: String,
    service: String,
    port: i32,
}

/// The listeners.
pub(crate) struct ServiceProxy {
    table: Arc<Table>,
    services: Arc<Store<Service>>,
    listeners: BTreeMap<SocketAddr, (Target, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl ServiceProxy {
    pub fn new(table: Arc<Table>, services: Arc<Store<Service>>) -> ServiceProxy {
        ServiceProxy { table, services, listeners: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Listens on what the Services say now, and on nothing else.
    pub async fn sync(&mut self) {
        let wanted = wanted(&self.services.all());
        let gone: Vec<SocketAddr> = self
            .listeners
            .iter()
            .filter(|(address, (target, task))| wanted.get(*address) != Some(target) || task.is_finished())
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            if let Some((_, task)) = self.listeners.remove(&address) {
                task.abort();
            }
        }
        while self.tasks.try_join_next().is_some() {}
        let known: BTreeSet<SocketAddr> = self.listeners.keys().copied().collect();
        for (address, target) in wanted.into_iter().filter(|(address, _)| !known.contains(address)) {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let table = Arc::clone(&self.table);
                    let task = self.tasks.spawn(serve(listener, table, target.clone()));
                    self.listeners.insert(address, (target, task));
                }
                // Ports below 1024 need rights that this program may not have. The Ingress does not need them.
                Err(error) => tracing::debug!(%address, %error, "a Service's address is not served"),
            }
        }
    }
}

/// The addresses to listen on. Only loopback addresses can belong to this machine.
fn wanted(services: &[Arc<Service>]) -> BTreeMap<SocketAddr, Target> {
    let mut wanted = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let ip: Option<Ipv4Addr> = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
        let Some(ip) = ip.filter(|ip| ip.is_loopback() && *ip != Ipv4Addr::LOCALHOST) else { continue };
        for port in spec.ports.iter().flatten() {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            if let (true, Ok(number)) = (tcp, u16::try_from(port.port)) {
                let target = Target {
                    namespace: service.metadata.namespace.clone().unwrap_or_default(),
                    service: service.metadata.name.clone().unwrap_or_default(),
                    port: port.port,
                };
                wanted.insert(SocketAddr::V4(SocketAddrV4::new(ip, number)), target);
            }
        }
    }
    wanted
}

async fn serve(listener: TcpListener, table: Arc<Table>, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((client, _)) => {
                connections.spawn(relay(client, Arc::clone(&table), target.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a Service could not accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// Connects a client with one ready endpoint. Without any the connection is closed, as a refused one would be.
async fn relay(mut client: TcpStream, table: Arc<Table>, target: Target) {
    let mut tried = Vec::new();
    loop {
        let ready = table.ready(&target.namespace, &target.service, &Port::Number(target.port));
        let Some(lease) = table.choose(&ready, &tried) else { return };
        match TcpStream::connect(lease.address).await {
            Ok(mut pod) => {
                // A connection may stay open for ever; it does not hold up the end of its pod.
                drop(lease);
                let _ = (client.set_nodelay(true), pod.set_nodelay(true));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut pod).await {
                    tracing::trace!(%error, "a relayed connection ended");
                }
                return;
            }
            Err(_) => tried.push(lease.address),
        }
    }
}
