//! The EndpointSlices of Services: which addresses serve, are ready, or are going away.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Key};
use crate::queue::Outcome;

/// The label that leads from a slice to its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints per slice, Kubernetes' default.
const SLICE_SIZE: usize = 100;

/// Whether the Service's selector matches the pod. A Service without a selector has endpoints made by others.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    !selector.is_empty()
        && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// What makes two pods belong to one slice: the names and numbers of their ports.
type PortKey = Vec<(Option<String>, Option<i32>)>;

/// The slices that a Service needs, given the pods of its namespace: one group per distinct set of target ports.
pub(crate) fn slices(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSlice> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut groups: BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for pod in pods {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        if address.is_empty() || meta::is_terminal(pod) || !selects(service, pod) {
            continue;
        }
        let targets: Vec<EndpointPort> = ports
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(target_port(port, pod)?),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        let key = targets.iter().map(|port| (port.name.clone(), port.port)).collect();
        let publish = spec.publish_not_ready_addresses == Some(true);
        let group = groups.entry(key).or_insert_with(|| (targets, Vec::new()));
        group.1.push(endpoint(pod, address, publish));
    }
    if groups.is_empty() {
        // A Service whose pods do not exist yet has one empty slice, so that its readers find something.
        groups.insert(Vec::new(), (Vec::new(), Vec::new()));
    }
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let chunks: Vec<&[Endpoint]> =
            if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(SLICE_SIZE).collect() };
        for chunk in chunks {
            slices.push(EndpointSlice {
                metadata: metadata(service),
                address_type: "IPv4".to_owned(),
                endpoints: Some(chunk.to_vec()).filter(|list| !list.is_empty()),
                ports: Some(ports.clone()).filter(|list| !list.is_empty()),
            });
        }
    }
    slices
}

fn endpoint(pod: &Pod, address: &str, publish_not_ready: bool) -> Endpoint {
    let (ready, terminating) = (meta::is_ready(pod), meta::is_deleting(pod));
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_not_ready || (ready && !terminating)),
            serving: Some(ready),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// The number of the port on this pod; a named one is looked up in its containers.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => pod
            .spec
            .as_ref()?
            .containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten())
            .find(|candidate| candidate.name.as_ref() == Some(name))
            .map(|candidate| candidate.container_port),
    }
}

fn metadata(service: &Service) -> ObjectMeta {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    if cluster_ip == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), meta::name(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    ObjectMeta {
        generate_name: Some(format!("{}-", meta::name(service))),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![meta::controlled_by(service)]),
        ..ObjectMeta::default()
    }
}

/// Brings one Service's slices up to date.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let present: Vec<Arc<EndpointSlice>> = cluster
        .endpoint_slices
        .store
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|slice| {
            let label = |name: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name));
            label(SERVICE_NAME) == Some(&key.name) && label(MANAGED_BY).map(String::as_str) == Some(MANAGER)
        })
        .collect();
    let service = cluster.services.store.get(&key.namespace, &key.name);
    let wanted = match &service {
        Some(service) if !meta::is_deleting(service.as_ref()) => {
            let spec = service.spec.as_ref();
            let selector = spec.and_then(|spec| spec.selector.as_ref());
            let external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
            if external || selector.is_none_or(BTreeMap::is_empty) {
                return Ok(Outcome::Settled);
            }
            slices(service, &cluster.pods.store.in_namespace(&key.namespace))
        }
        // The garbage collector takes the slices of a deleted Service.
        _ => return Ok(Outcome::Settled),
    };
    let mut present = present;
    let mut writes = Vec::new();
    for mut slice in wanted {
        // The slice with the same ports is kept, so that readers see an update and not a gap.
        let index = present.iter().position(|old| old.ports == slice.ports).or_else(|| {
            let empty = |old: &Arc<EndpointSlice>| old.ports.as_ref().is_none_or(Vec::is_empty);
            present.iter().position(|old| empty(old) || slice.ports.is_none())
        });
        match index.map(|index| present.swap_remove(index)) {
            Some(old) => {
                let labels = slice.metadata.labels.clone();
                let equal = old.metadata.labels == labels
                    && old.endpoints.clone().unwrap_or_default()
                        == slice.endpoints.clone().unwrap_or_default()
                    && old.ports.clone().unwrap_or_default() == slice.ports.clone().unwrap_or_default();
                if !equal {
                    slice.metadata = ObjectMeta { labels, ..old.metadata.clone() };
                    writes.push((slice, false));
                }
            }
            None => writes.push((slice, true)),
        }
    }
    try_join_all(writes.iter().map(|(slice, new)| async move {
        match new {
            true => cluster.endpoint_slices.create(&key.namespace, slice).await,
            false => cluster.endpoint_slices.replace(slice).await,
        }
    }))
    .await
    .map(drop)
    .or_else(settle_in_terminating_namespace)?;
    for old in present {
        cluster.endpoint_slices.delete(&old).await?;
    }
    Ok(Outcome::Settled)
}

fn settle_in_terminating_namespace(error: Error) -> Result<(), Error> {
    if crate::replicaset::is_namespace_terminating(&error) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(port: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "shop", "namespace": "dev", "uid": "s", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": port}]},
        }))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, extra: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "dev", "uid": name, "labels": {"app": "shop"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 5000}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (key, more) in extra.as_object().unwrap() {
            for (name, field) in more.as_object().unwrap() {
                value[key][name] = field.clone();
            }
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn an_endpoint_is_ready_only_while_its_pod_is_and_stays() {
        let pods = [
            pod("a", "127.32.0.1", true, json!({})),
            pod("b", "127.32.0.2", false, json!({})),
            pod("c", "127.32.0.3", true, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
            pod("d", "127.32.0.4", true, json!({"status": {"phase": "Failed"}})),
            pod("e", "127.32.0.5", true, json!({"metadata": {"labels": {"app": "other"}}})),
            pod("f", "", true, json!({})),
        ];
        let slices = slices(&service(json!("web")), &pods);
        assert_eq!(slices.len(), 1);
        let states: Vec<_> = slices[0]
            .endpoints
            .iter()
            .flatten()
            .map(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap();
                (endpoint.addresses[0].as_str(), conditions.ready, conditions.serving, conditions.terminating)
            })
            .collect();
        assert_eq!(
            states,
            [
                ("127.32.0.1", Some(true), Some(true), Some(false)),
                ("127.32.0.2", Some(false), Some(false), Some(false)),
                ("127.32.0.3", Some(false), Some(true), Some(true)),
            ]
        );
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(5000));
        let labels = slices[0].metadata.labels.as_ref().unwrap();
        assert_eq!((labels["team"].as_str(), labels[SERVICE_NAME].as_str()), ("a", "shop"));
    }

    #[test]
    fn pods_whose_named_port_differs_get_slices_of_their_own() {
        let other = json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 6000}]}]}});
        let pods = [pod("a", "127.32.0.1", true, json!({})), pod("b", "127.32.0.2", true, other)];
        let ports: Vec<_> = slices(&service(json!("web")), &pods)
            .iter()
            .map(|slice| slice.ports.as_ref().unwrap()[0].port)
            .collect();
        assert_eq!(ports, [Some(5000), Some(6000)]);
    }
}
