//! What the node tells the API server about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};

use crate::Config;
use crate::node::Capacity;

const PODS: u32 = 1000;

/// What pods may request together.
pub(crate) fn capacity(config: &Config) -> Capacity {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<f64>().ok())
        .unwrap_or(4.0 * 1024.0 * 1024.0);
    BTreeMap::from([
        ("cpu".to_owned(), f64::from(config.cpus)),
        ("memory".to_owned(), kibibytes * 1024.0),
        ("pods".to_owned(), f64::from(PODS)),
        ("ephemeral-storage".to_owned(), 100.0 * 1024.0 * 1024.0 * 1024.0),
    ])
}

/// Creates or updates the Node object.
pub(crate) async fn register(
    client: &Client,
    config: &Config,
    capacity: &Capacity,
) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let node = Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(format!("playground://{}", config.name)),
            taints: Some(config.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let patch = serde_json::json!({"metadata": {"labels": labels}});
            api.patch(&config.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        Err(error) => return Err(error),
    }
    report(client, config, capacity, Timestamp::now()).await
}

/// Writes the node's status; it has been ready `since` then.
pub(crate) async fn report(
    client: &Client,
    config: &Config,
    capacity: &Capacity,
    since: Timestamp,
) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = serde_json::json!({"status": status(config, capacity, since)});
    api.patch_status(&config.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(config: &Config, capacity: &Capacity, since: Timestamp) -> NodeStatus {
    let whole = |time: Timestamp| Time(Timestamp::from_second(time.as_second()).unwrap_or(time));
    let (now, since) = (whole(Timestamp::now()), whole(since));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.clone()),
    };
    let amounts: BTreeMap<String, Quantity> =
        capacity.iter().map(|(name, amount)| (name.clone(), Quantity(format!("{amount:.0}")))).collect();
    NodeStatus {
        capacity: Some(amounts.clone()),
        allocatable: Some(amounts),
        conditions: Some(vec![
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "enough memory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "enough disk"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "enough process ids"),
            condition("Ready", "True", "KubeletReady", "the node runs pods as local processes"),
        ]),
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".to_owned(), address: "127.0.0.1".to_owned() },
            NodeAddress { type_: "Hostname".to_owned(), address: config.name.clone() },
        ]),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            operating_system: "linux".to_owned(),
            os_image: "local processes".to_owned(),
            kernel_version: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
            container_runtime_version: format!("playground://{}", env!("CARGO_PKG_VERSION")),
            kubelet_version: format!("v1.36.0-playground.{}", env!("CARGO_PKG_VERSION")),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

/// Those of the class that this node serves, or all where it serves them all.
pub(crate) fn of_class(ingresses: Vec<Arc<Ingress>>, class: Option<&str>) -> Vec<Arc<Ingress>> {
    let Some(class) = class else { return ingresses };
    let is = |ingress: &Arc<Ingress>| {
        ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) == Some(class)
    };
    ingresses.into_iter().filter(is).collect()
}

/// Writes the Ingress' address into the status of every Ingress that lacks it.
pub(crate) async fn publish_address(client: &Client, ingresses: &[Arc<Ingress>], address: SocketAddr) {
    let wanted = serde_json::json!({"ingress": [{
        "ip": address.ip().to_string(), "ports": [{"port": address.port(), "protocol": "TCP"}],
    }]});
    for ingress in ingresses {
        let present = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        if present.and_then(|present| serde_json::to_value(present).ok()).as_ref() == Some(&wanted) {
            continue;
        }
        let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
        let name = ingress.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Ingress> = Api::namespaced(client.clone(), namespace);
        let patch = serde_json::json!({"status": {"loadBalancer": wanted}});
        if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            tracing::debug!(%error, ingress = name, "the address of an Ingress could not be written");
        }
    }
}
