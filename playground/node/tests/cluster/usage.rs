//! What pods use, and what follows from it.

use crate::harness::Cluster;
use apiserver::{Amounts, NodeUsage, PodMetrics, PodUsage};
use k8s_openapi::api::core::v1::Pod;
use node::Usage;
use serde_json::{Value, json};

/// Hands the node's measurements to the API server.
pub struct Measured(pub Usage);

fn amounts(container: &node::ContainerUsage) -> Amounts {
    Amounts { cpu_nanocores: container.cpu_nanocores, memory_bytes: container.memory_bytes }
}

impl PodMetrics for Measured {
    fn pods(&self) -> Vec<PodUsage> {
        let pod = |pod: node::PodUsage| PodUsage {
            namespace: pod.namespace,
            name: pod.name,
            at: pod.at,
            window: pod.window,
            containers: pod.containers.iter().map(|one| (one.name.clone(), amounts(one))).collect(),
        };
        self.0.pods().into_iter().map(pod).collect()
    }

    fn nodes(&self) -> Vec<NodeUsage> {
        let node = |(name, usage): (String, node::PodUsage)| NodeUsage {
            name,
            at: usage.at,
            window: usage.window,
            amounts: amounts(&usage.containers[0]),
        };
        self.0.node().into_iter().map(node).collect()
    }
}

/// A pod that keeps a CPU busy.
fn busy(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "busy"}]},
    })
}

async fn read(cluster: &Cluster, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    cluster.client.request(request).await.unwrap()
}

/// Billionths of a CPU.
fn cpu(usage: &Value) -> u64 {
    usage["cpu"].as_str().unwrap().strip_suffix('n').unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_pods_is_served() {
    let cluster = Cluster::start("usage").await;
    cluster.apply::<Pod>(busy("spin")).await;
    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/dev/pods?labelSelector=app%3Dspin";
    let pod = cluster
        .until("the pod is measured", || async {
            let list = read(&cluster, path).await;
            let busy = list["items"].as_array().unwrap().iter().find(|item| {
                // Other tests want the machine too, so the bar is low.
                cpu(&item["containers"][0]["usage"]) > 20_000_000
            });
            (busy.cloned(), list)
        })
        .await;
    assert_eq!(
        (pod["kind"].as_str(), pod["containers"][0]["name"].as_str()),
        (Some("PodMetrics"), Some("main"))
    );
    assert_eq!(pod["metadata"]["labels"]["app"], "spin");
    let memory = pod["containers"][0]["usage"]["memory"].as_str().unwrap();
    assert!(memory.strip_suffix("Ki").unwrap().parse::<u64>().unwrap() > 0, "{memory}");
    let node = read(&cluster, "/apis/metrics.k8s.io/v1beta1/nodes/playground").await;
    assert!(cpu(&node["usage"]) > 0, "{node}");
    let resources = read(&cluster, "/apis/metrics.k8s.io/v1beta1").await;
    let kinds: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds, ["NodeMetrics", "PodMetrics"]);
    let none =
        read(&cluster, "/apis/metrics.k8s.io/v1beta1/namespaces/dev/pods?labelSelector=app%3Dother").await;
    assert_eq!(none["items"], json!([]));
    cluster.stop().await;
}
