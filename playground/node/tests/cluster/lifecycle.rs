//! Single pods: how they start, fail, are restarted and end.

use crate::fixture;
use crate::harness::{Cluster, client, get};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Namespace, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn pod(name: &str, image: &str, extra: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 5,
                 "containers": [{"name": "main", "image": image}]},
    });
    for (key, value) in extra.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn main_status(pod: &Pod) -> Option<ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

fn waiting_reason(pod: &Pod) -> Option<String> {
    main_status(pod)?.state?.waiting?.reason
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_pods_say_why() {
    let cluster = Cluster::start("failing").await;
    cluster.apply::<Pod>(pod("crash", "crash:1", json!({}))).await;
    cluster.apply::<Pod>(pod("unknown", "registry.example/none:1", json!({}))).await;
    cluster.apply::<Pod>(pod("once", "once:1", json!({"restartPolicy": "Never"}))).await;
    let missing = json!({"containers": [{"name": "main", "image": "shop:1",
        "envFrom": [{"configMapRef": {"name": "later"}}]}]});
    cluster.apply::<Pod>(pod("missing", "shop:1", missing)).await;

    let crash = cluster
        .pod("crash", "the crash loop backs off", |pod| {
            waiting_reason(pod).as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    let status = main_status(&crash).unwrap();
    // The first restart comes at once, the second after 10 s.
    assert_eq!(status.restart_count, 1);
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 3);
    assert_eq!(crash.status.unwrap().phase.as_deref(), Some("Running"));
    let log = std::fs::read_to_string(cluster.node.log_path("dev", "crash", "main")).unwrap();
    assert!(log.ends_with(" stdout F dying\n"), "{log}");

    let unknown = cluster
        .pod("unknown", "the image is given up", |pod| {
            waiting_reason(pod).as_deref() == Some("ImagePullBackOff")
        })
        .await;
    assert_eq!(unknown.status.unwrap().phase.as_deref(), Some("Pending"));

    cluster
        .pod("once", "the pod succeeds", |pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
        })
        .await;

    cluster
        .pod("missing", "the configuration is missed", |pod| {
            waiting_reason(pod).as_deref() == Some("CreateContainerConfigError")
        })
        .await;
    cluster.apply::<ConfigMap>(json!({"metadata": {"name": "later"}, "data": {"A": "1"}})).await;
    cluster.pod("missing", "the pod starts once it can", is_ready).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_noticed_and_restarted() {
    let cluster = Cluster::start("killed").await;
    cluster.apply::<Pod>(pod("shop", "shop:1", json!({}))).await;
    cluster.pod("shop", "the pod is ready", is_ready).await;
    let pids = std::fs::read_to_string(cluster.root.join("pids")).unwrap();
    let killed = std::process::Command::new("kill").args(["-9", pids.trim()]).status().unwrap();
    assert!(killed.success());
    let start = Instant::now();
    let again = cluster
        .pod("shop", "the container is restarted", |pod| {
            is_ready(pod) && main_status(pod).is_some_and(|status| status.restart_count == 1)
        })
        .await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let last = main_status(&again).unwrap().last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_reaches_the_process() {
    let cluster = Cluster::start("configuration").await;
    cluster
        .apply::<ConfigMap>(
            json!({"metadata": {"name": "settings"}, "data": {"LEVEL": "info", "motd": "one"}}),
        )
        .await;
    cluster
        .apply::<PersistentVolumeClaim>(json!({"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    let spec = json!({
        "initContainers": [{"name": "init", "image": "once:1",
            "args": ["-c", "echo from-init > /data/made"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "containers": [{
            "name": "main", "image": "shop:1",
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "SELF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "URL", "value": "http://$(IP):5000/$(LEVEL)"},
                {"name": "CONFIG_DIR", "value": "/etc/shop"},
                {"name": "DATABASE", "value": "sqlite:///data/shop.db"},
            ],
            "readinessProbe": {"tcpSocket": {"port": 5000}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}, {"name": "data", "mountPath": "/data"}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "settings"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    });
    cluster.apply::<Pod>(pod("shop", "shop:1", spec)).await;
    let ready = cluster.pod("shop", "the pod is ready", is_ready).await;
    let ip = ready.status.unwrap().pod_ip.unwrap();
    let address = format!("{ip}:5000").parse().unwrap();
    let ask = async |path: &str| get(address, path).await.unwrap().1;
    assert_eq!(ask("/env/SELF").await, "shop");
    assert_eq!(ask("/env/URL").await, format!("http://{ip}:5000/info"));
    assert_eq!(ask("/file/motd").await, "one");
    let database = ask("/env/DATABASE").await;
    let folder = database.strip_prefix("sqlite://").unwrap().strip_suffix("/shop.db").unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(std::path::Path::new(&folder).join("made")).unwrap(), "from-init\n");
    let claims = cluster.api::<PersistentVolumeClaim>();
    let phase = claims.get("data").await.unwrap().status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Bound"));
    // A changed ConfigMap reaches the files of the running pod.
    cluster
        .apply::<ConfigMap>(
            json!({"metadata": {"name": "settings"}, "data": {"LEVEL": "info", "motd": "two"}}),
        )
        .await;
    cluster
        .until("the file follows", || async {
            let text = get(address, "/file/motd").await.unwrap().1;
            ((text == "two").then_some(()), text)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_end_within_their_grace_and_namespaces_with_all_they_hold() {
    let cluster = Cluster::start("ending").await;
    cluster.apply::<Pod>(pod("polite", "shop:1", json!({"terminationGracePeriodSeconds": 30}))).await;
    cluster.apply::<Pod>(pod("stubborn", "stubborn:1", json!({"terminationGracePeriodSeconds": 1}))).await;
    for name in ["polite", "stubborn"] {
        cluster.pod(name, "the pod is ready", is_ready).await;
    }
    let pods = cluster.api::<Pod>();
    let start = Instant::now();
    pods.delete("polite", &DeleteParams::default()).await.unwrap();
    cluster.no_pods("app=polite").await;
    assert!(start.elapsed() < Duration::from_secs(5), "it need not use its grace");
    let start = Instant::now();
    pods.delete("stubborn", &DeleteParams::default()).await.unwrap();
    cluster.no_pods("app=stubborn").await;
    assert!(start.elapsed() >= Duration::from_millis(900), "SIGKILL came before the grace was over");

    cluster.shop("v1", json!({})).await;
    cluster.complete("shop").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("dev", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the namespace goes", || async {
            let left = namespaces.get_opt("dev").await.unwrap();
            (left.is_none().then_some(()), left)
        })
        .await;
    cluster
        .until("the processes go", || async {
            let list = std::fs::read_to_string(cluster.root.join("pids")).unwrap();
            (list.is_empty().then_some(()), list)
        })
        .await;
    cluster.stop().await;
}

/// Not a test: a node in a process of its own, which is then killed.
#[test]
#[ignore = "not a test: the node that another test kills"]
fn act_as_node() {
    let (Ok(url), Ok(root)) = (std::env::var("FIXTURE_URL"), std::env::var("FIXTURE_ROOT")) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = node::Config {
            name: "other".to_owned(),
            pod_network: std::net::Ipv4Addr::new(127, 179, 0, 0),
            pod_network_prefix: 16,
            ..node::Config::new(root, crate::harness::images())
        };
        let _node = node::Node::start(client(&url), config).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_survives_a_killed_node() {
    let cluster = Cluster::start("survivor").await;
    let root = cluster.root.join("other");
    std::fs::create_dir_all(&root).unwrap();
    let program = fixture::itself("lifecycle::act_as_node");
    let mut other = std::process::Command::new(&program.path)
        .args(&program.args)
        .env("FIXTURE_URL", cluster.server.url())
        .env("FIXTURE_ROOT", &root)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // A shell with a child in the same group, and one that has detached itself from it.
    let script = "sleep 1000 & while :; do sleep 1; done";
    let spec = json!({"nodeName": "other", "containers": [{"name": "main", "image": "once:1", "args": ["-c", script]}]});
    cluster.apply::<Pod>(pod("family", "once:1", spec)).await;
    cluster.pod("family", "the pod runs", is_ready).await;
    other.kill().unwrap();
    other.wait().unwrap();
    cluster
        .until("the watchdog ends everything", || async {
            let list = std::fs::read_to_string(root.join("pids")).unwrap();
            let alive = list.lines().filter(|pid| std::path::Path::new("/proc").join(pid).exists()).count();
            ((alive == 0).then_some(()), alive)
        })
        .await;
    assert_eq!(node::reap(&root).unwrap(), 0, "a grandchild survived");
    cluster.stop().await;
}
