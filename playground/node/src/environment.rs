//! The environment variables of a container.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use crate::expand::expand;
use crate::fields;

/// Where references to other objects are looked up.
pub(crate) trait Lookup {
    /// The ConfigMap of that name in the pod's namespace.
    fn config_map(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<ConfigMap>>;
    /// The Secret of that name in the pod's namespace.
    fn secret(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<Secret>>;
}

/// What is known of the pod beyond its object.
pub(crate) struct Facts<'a> {
    pub pod: &'a Pod,
    pub ip: Ipv4Addr,
    /// The Services that the pod may learn of: its namespace's and the API server's own.
    pub services: &'a [std::sync::Arc<Service>],
    pub allocatable: &'a BTreeMap<String, f64>,
}

/// The variables in order of definition; a later one may refer to an earlier one.
///
/// # Errors
/// What is missing, in the words of kubelet's `CreateContainerConfigError`.
pub(crate) fn variables(
    facts: &Facts,
    container: &Container,
    lookup: &dyn Lookup,
) -> Result<Vec<(String, String)>, String> {
    let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut known = Variables::default();
    let links = facts.pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    for service in facts.services {
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let master = service.metadata.name.as_deref() == Some("kubernetes")
            && service.metadata.namespace.as_deref() == Some("default");
        if master || (links && own) {
            service_links(service, &mut known);
        }
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match lookup.config_map(namespace, &reference.name) {
                Some(map) => map.data.iter().flatten().for_each(|(key, value)| {
                    known.set(format!("{prefix}{key}"), value.clone());
                }),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match lookup.secret(namespace, &reference.name) {
                Some(secret) => secret.data.iter().flatten().for_each(|(key, value)| {
                    known.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                }),
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, |name| known.get(name))),
            (_, Some(source)) => referenced(facts, container, source, namespace, lookup)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            known.set(variable.name.clone(), value);
        }
    }
    Ok(known.list)
}

fn referenced(
    facts: &Facts,
    container: &Container,
    source: &EnvVarSource,
    namespace: &str,
    lookup: &dyn Lookup,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return fields::field(facts.pod, facts.ip, selector).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(facts.pod, Some(container), selector, facts.allocatable).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = lookup.config_map(namespace, &selector.name) else {
            return missing(optional, || format!("configmap \"{}\" not found", selector.name));
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(optional, || {
                format!("couldn't find key {} in ConfigMap {namespace}/{}", selector.key, selector.name)
            }),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = lookup.secret(namespace, &selector.name) else {
            return missing(optional, || format!("secret \"{}\" not found", selector.name));
        };
        return match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => missing(optional, || {
                format!("couldn't find key {} in Secret {namespace}/{}", selector.key, selector.name)
            }),
        };
    }
    Err("the variable's valueFrom names a source that this node does not know".to_owned())
}

fn missing(optional: bool, message: impl FnOnce() -> String) -> Result<Option<String>, String> {
    if optional { Ok(None) } else { Err(message()) }
}

/// The variables by which a container finds a Service, those of Docker links included.
fn service_links(service: &Service, known: &mut Variables) {
    let Some(spec) = &service.spec else { return };
    let address = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(address) => address,
    };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    known.set(format!("{name}_SERVICE_HOST"), address.to_owned());
    known.set(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_ref().filter(|name| !name.is_empty()) {
            known.set(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            known.set(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        known.set(prefix.clone(), url);
        known.set(format!("{prefix}_PROTO"), protocol.to_lowercase());
        known.set(format!("{prefix}_PORT"), port.port.to_string());
        known.set(format!("{prefix}_ADDR"), address.to_owned());
    }
}

/// Variables in order, each name once.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        // A NUL or "=" cannot be part of a name, nor a NUL of a value; such a variable cannot exist.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return;
        }
        match self.index.get(&name) {
            Some(index) => self.list[*index].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|index| self.list[*index].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    struct Objects;

    impl Lookup for Objects {
        fn config_map(&self, _: &str, name: &str) -> Option<Arc<ConfigMap>> {
            (name == "settings")
                .then(|| Arc::new(serde_json::from_value(json!({"data": {"LEVEL": "info"}})).unwrap()))
        }

        fn secret(&self, _: &str, name: &str) -> Option<Arc<Secret>> {
            (name == "keys")
                .then(|| Arc::new(serde_json::from_value(json!({"data": {"token": "aGk="}})).unwrap()))
        }
    }

    fn environment(container: Value, links: bool) -> Result<BTreeMap<String, String>, String> {
        let mut value = json!({"name": "c"});
        value.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let container: Container = serde_json::from_value(value).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "dev"},
            "spec": {"enableServiceLinks": links, "containers": []}}))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "shop-db", "namespace": "dev"},
            "spec": {"clusterIP": "127.96.0.9", "ports": [{"name": "sql", "port": 5432}]}}))
        .unwrap();
        let facts = Facts {
            pod: &pod,
            ip: Ipv4Addr::new(127, 32, 0, 7),
            services: &[Arc::new(service)],
            allocatable: &BTreeMap::new(),
        };
        Ok(variables(&facts, &container, &Objects)?.into_iter().collect())
    }

    #[test]
    fn values_come_from_everywhere_and_refer_to_earlier_ones() {
        let env = environment(
            json!({
                "envFrom": [{"prefix": "APP_", "configMapRef": {"name": "settings"}}],
                "env": [
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "URL", "value": "http://$(IP):5000/$(APP_LEVEL)/$(LATER)"},
                    {"name": "LATER", "value": "x"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                    {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                    {"name": "DB", "value": "$(SHOP_DB_SERVICE_HOST):$(SHOP_DB_SERVICE_PORT_SQL)"},
                ],
            }),
            true,
        )
        .unwrap();
        assert_eq!(env["URL"], "http://127.32.0.7:5000/info/$(LATER)");
        assert_eq!(env["TOKEN"], "hi");
        assert_eq!(env["DB"], "127.96.0.9:5432");
        assert_eq!(env["SHOP_DB_PORT_5432_TCP_ADDR"], "127.96.0.9");
        assert!(!env.contains_key("GONE"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (container, message) in [
            (json!({"envFrom": [{"configMapRef": {"name": "none"}}]}), "configmap \"none\" not found"),
            (
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "x"}}}]}),
                "couldn't find key x in Secret dev/keys",
            ),
        ] {
            assert_eq!(environment(container, true).unwrap_err(), message);
        }
    }

    #[test]
    fn service_links_can_be_switched_off() {
        assert!(environment(json!({}), false).unwrap().is_empty());
    }
}
