//! Starts a cluster, and waits for what should happen in it.

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use node::{Config, ImageMap, Node, Program, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fixture;

/// Each cluster has loopback networks of its own.
static NETWORK: AtomicU8 = AtomicU8::new(0);

/// A running cluster.
pub struct Cluster {
    pub client: Client,
    pub node: Node,
    pub root: PathBuf,
    pub server: apiserver::Server,
    stop: oneshot::Sender<()>,
    controllers: tokio::task::JoinHandle<Result<(), controllers::Error>>,
}

/// The images of all tests.
pub fn images() -> ImageMap {
    ImageMap::default()
        .with("shop", fixture::server())
        .with("crash", Program::new("/bin/sh").with_args(["-c", "echo dying; exit 3"]))
        .with(
            "stubborn",
            Program::new("/bin/sh").with_args(["-c", "trap '' TERM; while :; do sleep 1; done"]),
        )
        .with("idle", Program::new("/bin/sh").with_args(["-c", "while :; do sleep 60; done"]))
        .with("busy", Program::new("/bin/sh").with_args(["-c", "while :; do :; done"]))
        .with("once", Program::new("/bin/sh").with_args(["-c", "echo done"]))
}

impl Cluster {
    pub async fn start(name: &str) -> Cluster {
        let number = NETWORK.fetch_add(1, Ordering::SeqCst);
        let usage = Usage::new(Duration::from_millis(100), Duration::from_secs(1));
        let server = apiserver::Server::start(apiserver::Config {
            pod_metrics: Some(Arc::new(crate::usage::Measured(usage.clone()))),
            service_range: (Ipv4Addr::new(127, 220 + number, 0, 0), 16),
            ..apiserver::Config::default()
        })
        .await
        .unwrap();
        let client = client(&server.url());
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = controllers::Settings {
            autoscaler_sync: Duration::from_millis(100),
            ..controllers::Settings::default()
        };
        let controllers = tokio::spawn(controllers::run_with(client.clone(), settings, async move {
            let _ = stopped.await;
        }));
        let root = std::env::temp_dir().join(format!("node-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let config = Config {
            pod_network: Ipv4Addr::new(127, 180 + number, 0, 0),
            pod_network_prefix: 16,
            usage,
            ..Config::new(&root, images())
        };
        let node = Node::start(client.clone(), config).await.unwrap();
        let cluster = Cluster { client, node, root, server, stop, controllers };
        cluster
            .create(&Namespace {
                metadata: ObjectMeta { name: Some("dev".to_owned()), ..ObjectMeta::default() },
                ..Namespace::default()
            })
            .await;
        cluster
    }

    /// Stops everything and proves that nothing is left.
    pub async fn stop(self) {
        self.node.shutdown().await;
        assert_eq!(node::reap(&self.root).unwrap(), 0, "processes were left behind");
        let _ = self.stop.send(());
        self.controllers.await.unwrap().unwrap();
        drop(self.server);
        std::fs::remove_dir_all(&self.root).unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "dev")
    }

    pub async fn create<K>(&self, object: &K)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        Api::<K>::all(self.client.clone()).create(&PostParams::default(), object).await.unwrap();
    }

    /// Applies an object of namespace `dev`.
    pub async fn apply<K>(&self, object: Value)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let mut object = object;
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let params = PatchParams::apply("test").force();
        self.api::<K>().patch(&name, &params, &Patch::Apply(&object)).await.unwrap();
    }

    /// Waits until `check` finds what it looks for; fails with what was there instead.
    pub async fn until<T, S: Debug, F: Future<Output = (Option<T>, S)>>(
        &self,
        what: &str,
        check: impl Fn() -> F,
    ) -> T {
        let start = Instant::now();
        loop {
            let (found, seen) = check().await;
            if let Some(found) = found {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{what}: still {seen:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the Deployment's status is as `check` says.
    pub async fn deployment(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&Deployment) -> bool,
    ) -> Deployment {
        let api = self.api::<Deployment>();
        self.until(what, || async {
            let deployment = api.get(name).await.unwrap();
            let current = deployment.status.as_ref().and_then(|status| status.observed_generation)
                == deployment.metadata.generation;
            let seen = deployment.status.clone();
            ((current && check(&deployment)).then_some(deployment), seen)
        })
        .await
    }

    /// Waits until the Deployment has fully arrived at its present template.
    pub async fn complete(&self, name: &str) -> Deployment {
        self.deployment(name, "the rollout completes", |deployment| {
            let (spec, status) = (deployment.spec.as_ref().unwrap(), deployment.status.as_ref().unwrap());
            status.updated_replicas == spec.replicas
                && status.replicas == spec.replicas
                && status.available_replicas == spec.replicas
        })
        .await
    }

    pub async fn pods(&self, labels: &str) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default().labels(labels)).await.unwrap().items
    }

    /// Waits for a pod's state.
    pub async fn pod(&self, name: &str, what: &str, check: impl Fn(&Pod) -> bool) -> Pod {
        let api = self.api::<Pod>();
        self.until(what, || async {
            let pod = api.get_opt(name).await.unwrap();
            let seen = pod.as_ref().map(|pod| (pod.metadata.deletion_timestamp.clone(), pod.status.clone()));
            (pod.filter(|pod| check(pod)), seen)
        })
        .await
    }

    /// Waits until there is no such pod.
    pub async fn no_pods(&self, labels: &str) {
        self.until("the pods go", || async {
            let names: Vec<_> = self.pods(labels).await.into_iter().map(|pod| pod.metadata.name).collect();
            (names.is_empty().then_some(()), names)
        })
        .await;
    }

    /// The shop in this version, with its Service and Ingress.
    pub async fn shop(&self, version: &str, spec: Value) {
        self.apply::<Deployment>(shop(version, spec)).await;
        self.apply::<k8s_openapi::api::core::v1::Service>(json!({
            "metadata": {"name": "shop", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "shop"}, "ports": [{"port": 8080, "targetPort": "web"}]},
        }))
        .await;
        self.apply::<k8s_openapi::api::networking::v1::Ingress>(json!({
            "metadata": {"name": "shop"},
            "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "shop", "port": {"number": 8080}}}}]}}]},
        }))
        .await;
    }
}

pub fn client(url: &str) -> Client {
    Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}

/// A Deployment of the server.
pub fn shop(version: &str, spec: Value) -> Value {
    let mut deployment = json!({
        "metadata": {"name": "shop"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "shop"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [{
                    "name": "shop", "image": format!("shop:{version}"),
                    "env": [{"name": "VERSION", "value": version}],
                    "ports": [{"name": "web", "containerPort": 5000}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
                }]},
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        deployment["spec"][key] = value.clone();
    }
    deployment
}

/// GET over a connection of its own: status and body.
pub async fn get(address: std::net::SocketAddr, path: &str) -> Result<(u16, String), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.local\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer ended early")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_owned()))
}
