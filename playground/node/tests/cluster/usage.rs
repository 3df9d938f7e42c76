//! What pods use, and what follows from it.

use crate::harness::Cluster;
use apiserver::{Amounts, NodeUsage, PodMetrics, PodUsage};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
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

/// An autoscaler that wants this much memory or CPU per pod.
fn scaler(resource: &str, average: &str) -> Value {
    json!({
        "metadata": {"name": "load"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "load"},
            "minReplicas": 1, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": resource,
                "target": {"type": "AverageValue", "averageValue": average}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    })
}

/// Waits until the autoscaler's status is so.
async fn scaled(cluster: &Cluster, what: &str, replicas: i32, conditions: &[(&str, &str, &str)]) {
    let api = cluster.api::<HorizontalPodAutoscaler>();
    cluster
        .until(what, || async {
            let status = api.get("load").await.unwrap().status.unwrap_or_default();
            let holds = conditions.iter().all(|(kind, value, reason)| {
                status.conditions.iter().flatten().any(|condition| {
                    condition.type_ == *kind
                        && condition.status == *value
                        && condition.reason.as_deref() == Some(*reason)
                })
            });
            let arrived = status.current_replicas == Some(replicas) && status.desired_replicas == replicas;
            ((arrived && holds).then_some(()), status)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_follows_what_pods_use() {
    let cluster = Cluster::start("autoscaler").await;
    cluster
        .apply::<Deployment>(json!({
            "metadata": {"name": "load"},
            "spec": {"selector": {"matchLabels": {"app": "load"}}, "template": {
                "metadata": {"labels": {"app": "load"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "idle"}]},
            }},
        }))
        .await;
    cluster.apply::<HorizontalPodAutoscaler>(scaler("cpu", "1Gi")).await;
    scaled(&cluster, "one pod is enough", 1, &[("ScalingActive", "True", "ValidMetricFound")]).await;
    // Any process holds more than a byte of memory.
    cluster.apply::<HorizontalPodAutoscaler>(scaler("memory", "1")).await;
    let limited = [
        ("AbleToScale", "True", "ReadyForNewScale"),
        ("ScalingActive", "True", "ValidMetricFound"),
        ("ScalingLimited", "True", "TooManyReplicas"),
    ];
    scaled(&cluster, "the Deployment grows to the maximum", 3, &limited).await;
    cluster.apply::<HorizontalPodAutoscaler>(scaler("memory", "100Gi")).await;
    scaled(&cluster, "the Deployment shrinks", 1, &[("ScalingActive", "True", "ValidMetricFound")]).await;
    let mut utilization = scaler("memory", "1");
    utilization["spec"]["metrics"][0]["resource"]["target"] =
        json!({"type": "Utilization", "averageUtilization": 50});
    cluster.apply::<HorizontalPodAutoscaler>(utilization).await;
    let failed = [("ScalingActive", "False", "FailedGetResourceMetric")];
    scaled(&cluster, "pods without requests have no utilization", 1, &failed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_top_prints_pods_and_nodes() {
    if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        println!("SKIPPED kubectl top: kubectl is not installed");
        return;
    }
    let cluster = Cluster::start("top").await;
    cluster.apply::<Pod>(busy("spin")).await;
    let url = cluster.server.url();
    let top = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("kubectl");
        // Neither the user's configuration nor an old discovery.
        let cache = format!("--cache-dir={}", cluster.root.join("kubectl").display());
        command.env("KUBECONFIG", "/dev/null").args(["--server", &url, &cache, "top"]).args(arguments);
        let output = command.output().await.unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.success(), text.concat())
    };
    for (arguments, row) in
        [(&["pods", "--namespace=dev", "--containers"][..], "spin"), (&["nodes"], "playground")]
    {
        cluster
            .until("kubectl top prints the row", || async {
                let (success, text) = top(arguments).await;
                let printed = text.lines().any(|line| line.starts_with(row) && line.contains('m'));
                ((success && printed).then_some(()), text)
            })
            .await;
    }
    cluster.stop().await;
}
