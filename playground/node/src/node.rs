//! Starts and stops a node.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use controllers::cache::{Change, Store, follow_all};
use controllers::events::Recorder;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress as IngressObject;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::context::{Addresses, Context};
use crate::error::Error;
use crate::pod::{self, Orders, Worker};
use crate::process::{Processes, absolute, reap};
use crate::proxy::{Ingress, Rules, ServiceProxy, Table, serve};
use crate::{Config, Logs, logs, register};

/// How long processes get to end when the node stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running node. Dropping it kills its processes without a farewell; [`Node::shutdown`] is kinder.
pub struct Node {
    root: PathBuf,
    ingress_address: SocketAddr,
    pods: Arc<Pods>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Registers the node, kills what an earlier node in the same folder may have left, and begins to run pods.
    ///
    /// # Errors
    /// The folder cannot be used, the Ingress' address is taken, or the API server does not accept the node.
    pub async fn start(client: Client, config: Config) -> Result<Node, Error> {
        let mut config = config;
        let root = config.root.clone();
        let unusable = |source| Error::Root { path: root.clone(), source };
        fs::create_dir_all(&config.root).map_err(unusable)?;
        config.root = absolute(&config.root).map_err(unusable)?;
        let left = reap(&config.root).map_err(unusable)?;
        if left > 0 {
            tracing::warn!(left, "killed processes that an earlier node had left");
        }
        remove_folder(&config.root.join("pods")).map_err(unusable)?;
        let processes = Processes::new(&config.root).map_err(|source| Error::Watchdog { source })?;
        let listener = TcpListener::bind(config.ingress_address)
            .await
            .map_err(|source| Error::Listen { address: config.ingress_address, source })?;
        let ingress_address = listener
            .local_addr()
            .map_err(|source| Error::Listen { address: config.ingress_address, source })?;
        let capacity = register::capacity(&config);
        register::register(&client, &config, &capacity)
            .await
            .map_err(|source| Error::Register { name: config.name.clone(), source })?;

        let mut tasks = JoinSet::new();
        let (events, send) = Recorder::new(client.clone(), "kubelet");
        tasks.spawn(send);
        let (services, slices) = (Arc::<Store<Service>>::default(), Arc::<Store<EndpointSlice>>::default());
        let table = Arc::new(Table::new(Arc::clone(&services), Arc::clone(&slices)));
        let context = Arc::new(Context {
            client: client.clone(),
            processes: Arc::new(processes),
            events,
            pods: Arc::default(),
            services,
            config_maps: Arc::default(),
            secrets: Arc::default(),
            claims: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            table,
            addresses: Addresses::new(config.pod_network, config.pod_network_prefix),
            graveyard: Default::default(),
            allocatable: capacity,
            config,
        });
        let pods = Arc::new(Pods::default());
        let node =
            Node { root: context.config.root.clone(), ingress_address, pods: Arc::clone(&pods), tasks };
        Ok(node.begin(&context, slices, listener).await)
    }

    async fn begin(
        mut self,
        context: &Arc<Context>,
        slices: Arc<Store<EndpointSlice>>,
        listener: TcpListener,
    ) -> Node {
        let client = || context.client.clone();
        let ingresses = Arc::<Store<IngressObject>>::default();
        let (rules_changed, services_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        notify_on_change(&ingresses, &rules_changed);
        notify_on_change(&context.services, &services_changed);
        count_changes::<ConfigMap>(&context.config_maps, &context.changed);
        count_changes::<Secret>(&context.secrets, &context.changed);
        count_changes::<PersistentVolumeClaim>(&context.claims, &context.changed);
        let owner = Arc::downgrade(context);
        context.claims.on_change(move |change| {
            if let (Some(gone), None, Some(context)) = (&change.old, &change.new, owner.upgrade()) {
                let folder = context.claim_folder(gone);
                if let Err(error) = remove_folder(&folder) {
                    tracing::warn!(%error, folder = %folder.display(), "a claim's folder could not be removed");
                }
            }
        });

        self.follow(follow_all(client(), Arc::clone(&context.services)));
        self.follow(follow_all(client(), slices));
        self.follow(follow_all(client(), Arc::clone(&ingresses)));
        self.follow(follow_all(client(), Arc::clone(&context.config_maps)));
        self.follow(follow_all(client(), Arc::clone(&context.secrets)));
        self.follow(follow_all(client(), Arc::clone(&context.claims)));
        // A pod is started with the environment that exists, so the rest must be known first.
        context.services.wait_synced().await;
        context.config_maps.wait_synced().await;
        context.secrets.wait_synced().await;
        context.claims.wait_synced().await;
        ingresses.wait_synced().await;

        self.tasks.spawn(context.config.usage.clone().run(context.config.name.clone()));
        let ingress = Arc::new(Ingress::new(Arc::clone(&context.table)));
        ingress.set_rules(Rules::new(&ingresses.all()));
        self.tasks.spawn(serve(listener, Arc::clone(&ingress)));
        let (address, ingress_client) = (self.ingress_address, client());
        self.tasks.spawn(async move {
            loop {
                let all = ingresses.all();
                ingress.set_rules(Rules::new(&all));
                register::publish_address(&ingress_client, &all, address).await;
                rules_changed.notified().await;
            }
        });
        let mut proxy = ServiceProxy::new(Arc::clone(&context.table), Arc::clone(&context.services));
        self.tasks.spawn(async move {
            loop {
                proxy.sync().await;
                services_changed.notified().await;
            }
        });
        let pods = Arc::clone(&self.pods);
        let owner = Arc::downgrade(context);
        context.pods.on_change(move |change| {
            if let Some(context) = owner.upgrade() {
                pods.observe(&context, change);
            }
        });
        let held = Arc::clone(context);
        self.follow(async move { follow_all(held.client.clone(), Arc::clone(&held.pods)).await });
        context.pods.wait_synced().await;
        self
    }

    fn follow(&mut self, watch: impl Future<Output = Result<(), controllers::Error>> + Send + 'static) {
        self.tasks.spawn(async move {
            if let Err(error) = watch.await {
                tracing::error!(%error, "the node cannot see a resource that it needs");
            }
        });
    }

    /// Where the Ingress listens.
    pub fn ingress_address(&self) -> SocketAddr {
        self.ingress_address
    }

    /// The file with the output of a container's present run, line by line after its time. That of the run before is next to it, with
    /// the extension `previous.log`. The file exists once the container has started.
    pub fn log_path(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        logs::path(&self.root, namespace, pod, container)
    }

    /// The output of this node's containers.
    pub fn logs(&self) -> Logs {
        Logs::new(&self.root)
    }

    /// Ends every process, SIGTERM first, and returns when none is left. The objects stay as they are.
    pub async fn shutdown(mut self) {
        let tasks = self.pods.stop_all();
        for task in tasks {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "a pod's task panicked");
            }
        }
        self.tasks.shutdown().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.pods.abort_all();
    }
}

/// The pods that this node runs.
#[derive(Default)]
struct Pods {
    running: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    by_uid: HashMap<String, Running>,
    /// Set when the node stops: nothing is started any more.
    closed: bool,
}

struct Running {
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

impl Pods {
    /// Passes a change on to the pod's task, and starts one for a new pod.
    fn observe(self: &Arc<Self>, context: &Arc<Context>, change: &Change<Pod>) {
        if let Some(old) = &change.old {
            let replaced = change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid);
            if replaced {
                self.vanish(old);
            }
        }
        let Some(pod) = change.new.as_ref() else { return };
        let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())
            == Some(context.config.name.as_str());
        let Some(uid) = pod.metadata.uid.clone().filter(|_| here) else { return };
        let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = running.by_uid.get(&uid) {
            known.orders.send_modify(|orders| {
                orders.pod = Arc::clone(pod);
                orders.grace = grace;
            });
            return;
        }
        if running.closed {
            return;
        }
        let Some(ip) = context.addresses.take() else {
            tracing::error!(pod = pod.metadata.name, "no address is left for a pod");
            return;
        };
        let (orders, receiver) = watch::channel(Orders { pod: Arc::clone(pod), grace, vanished: false });
        let worker = Arc::new(Worker::new(Arc::clone(context), receiver, ip));
        let (pods, own) = (Arc::downgrade(self), uid.clone());
        let task = tokio::spawn(async move {
            pod::run(worker).await;
            if let Some(pods) = pods.upgrade() {
                pods.running.lock().unwrap_or_else(PoisonError::into_inner).by_uid.remove(&own);
            }
        });
        running.by_uid.insert(uid, Running { orders, task });
    }

    /// The object is gone, by force or because this node has taken it off itself.
    fn vanish(&self, pod: &Pod) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pod.metadata.uid.as_ref().and_then(|uid| running.by_uid.get(uid)) {
            known.orders.send_modify(|orders| {
                orders.vanished = true;
                orders.grace = Some(Duration::ZERO);
            });
        }
    }

    fn stop_all(&self) -> Vec<JoinHandle<()>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = |running: Running| {
            running.orders.send_modify(|orders| {
                // The pod stays on the API server for the next node; only its processes go.
                orders.vanished = true;
                orders.grace = Some(orders.grace.map_or(FAREWELL, |grace| grace.min(FAREWELL)));
            });
            running.task
        };
        running.closed = true;
        running.by_uid.drain().map(|(_, running)| stop(running)).collect()
    }

    fn abort_all(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.closed = true;
        for running in running.by_uid.values() {
            running.task.abort();
        }
    }
}

fn notify_on_change<K: kube::Resource>(store: &Store<K>, notify: &Arc<Notify>) {
    let notify = Arc::clone(notify);
    store.on_change(move |_| notify.notify_one());
}

fn count_changes<K: kube::Resource>(store: &Store<K>, counter: &Arc<watch::Sender<u64>>) {
    let counter = Arc::clone(counter);
    store.on_change(move |_| counter.send_modify(|count| *count += 1));
}

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a node offers, by resource.
pub(crate) type Capacity = BTreeMap<String, f64>;
