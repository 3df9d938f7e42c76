//! Services' names without a DNS server.
//!
//! A process on the host asks the host's resolver, which knows nothing of the cluster. The rule: where the host of a
//! URL in a container's environment values, command or arguments is the name of a Service, as the cluster's DNS would
//! know it from the pod's namespace, it is replaced by the Service's address. A Service that is made after the process
//! was started, or made anew at another address, is not found.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

/// The Services of a cluster, seen from a namespace.
pub(crate) struct Names<'a> {
    namespace: &'a str,
    services: &'a [Arc<Service>],
}

impl<'a> Names<'a> {
    pub fn new(namespace: &'a str, services: &'a [Arc<Service>]) -> Self {
        Self { namespace, services }
    }

    /// Replaces every Service that is the host of a URL in the text.
    pub fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("://") {
            let (before, after) = rest.split_at(at + 3);
            out.push_str(before);
            // User and password may stand before the host.
            let authority = &after[..after.find(['/', '?', '#', ' ', ',']).unwrap_or(after.len())];
            let user = authority.rfind('@').map_or(0, |at| at + 1);
            out.push_str(&after[..user]);
            let host = &authority[user..];
            let host = &host[..host.find(':').unwrap_or(host.len())];
            match self.address(host) {
                Some(address) => out.push_str(address),
                None => out.push_str(host),
            }
            rest = &after[user + host.len()..];
        }
        out.push_str(rest);
        out
    }

    /// The address of `name`, `name.namespace`, `name.namespace.svc` or `name.namespace.svc.cluster.local`.
    fn address(&self, host: &str) -> Option<&str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = host.strip_suffix(".cluster.local").unwrap_or(host);
        let (name, namespace) = match host.strip_suffix(".svc").unwrap_or(host).split_once('.') {
            Some((name, namespace)) => (name, namespace),
            None => (host, self.namespace),
        };
        let service = self.services.iter().find(|service| {
            service.metadata.name.as_deref() == Some(name)
                && service.metadata.namespace.as_deref() == Some(namespace)
        })?;
        service.spec.as_ref()?.cluster_ip.as_deref().filter(|address| !matches!(*address, "" | "None"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, address: &str) -> Arc<Service> {
        let object =
            json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": address}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_service_is_found_by_its_names_where_a_host_stands() {
        let services = [
            service("shop", "backend", "127.96.0.11"),
            service("other", "db", "127.96.0.12"),
            service("shop", "headless", "None"),
        ];
        let names = Names::new("shop", &services);
        for (text, expected) in [
            ("http://backend:5000", "http://127.96.0.11:5000"),
            ("http://backend", "http://127.96.0.11"),
            ("http://backend.shop.svc.cluster.local./api?x=1", "http://127.96.0.11/api?x=1"),
            ("http://backend.shop.svc:80", "http://127.96.0.11:80"),
            ("postgres://u:p@db.other:5432/shop", "postgres://u:p@127.96.0.12:5432/shop"),
            ("http://backend:1,http://db.other:2", "http://127.96.0.11:1,http://127.96.0.12:2"),
            // A name of another namespace needs it, and headless Services have no address.
            ("http://db:5432", "http://db:5432"),
            ("http://headless:80", "http://headless:80"),
            // Other hosts, paths and words stay.
            ("http://backend.example.com/backend", "http://backend.example.com/backend"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("backend", "backend"),
            ("a://", "a://"),
            ("", ""),
        ] {
            assert_eq!(names.rewrite(text), expected, "{text}");
        }
    }
}
