//! One pod from its first container to its removal.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::container::{self, Finish};
use crate::context::Context;
use crate::logs;
use crate::rewrite::Mounts;
use crate::status::{self, Record, Records, is_sidecar};
use crate::tokens::Tokens;
use crate::volumes::{self, Content};

/// How a pod is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// When patience ends and SIGKILL follows.
    pub deadline: Instant,
}

/// What the node tells a pod's task.
#[derive(Clone)]
pub(crate) struct Orders {
    /// The newest state of the object.
    pub pod: Arc<Pod>,
    /// Set once it has to go; a later order may only be more impatient.
    pub grace: Option<Duration>,
    /// The object is gone already: nothing is reported any more.
    pub vanished: bool,
}

/// The state of one pod's task, shared with its containers' tasks.
pub(crate) struct Worker {
    pub context: Arc<Context>,
    orders: watch::Receiver<Orders>,
    pub ip: Ipv4Addr,
    pub stop: watch::Sender<Option<Stop>>,
    records: Mutex<Records>,
    /// Counts changes of the records.
    changed: watch::Sender<u64>,
    dirty: Notify,
    published: AsyncMutex<Option<PodStatus>>,
    tokens: Tokens,
    start: Timestamp,
}

/// How long after a token was refused it is asked for again.
const TOKEN_RETRY: Duration = Duration::from_secs(1);
const PATIENCE_OF_PROXY: Duration = Duration::from_millis(500);

impl Worker {
    pub fn new(context: Arc<Context>, orders: watch::Receiver<Orders>, ip: Ipv4Addr) -> Worker {
        let pod = Arc::clone(&orders.borrow().pod);
        let spec = pod.spec.as_ref();
        let inits = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let mut records = Records::new();
        for container in inits.iter().chain(containers) {
            let mut record = Record::new(reason);
            // A node that starts anew takes over what an earlier one has counted.
            let before = pod.status.iter().flat_map(|status| {
                status
                    .container_statuses
                    .iter()
                    .flatten()
                    .chain(status.init_container_statuses.iter().flatten())
            });
            if let Some(before) = before.into_iter().find(|before| before.name == container.name)
                && before.container_id.is_some()
            {
                record.restarts = before.restart_count.saturating_add(1);
            }
            records.insert(container.name.clone(), record);
        }
        Worker {
            context,
            orders,
            ip,
            stop: watch::Sender::new(None),
            records: Mutex::new(records),
            changed: watch::Sender::new(0),
            dirty: Notify::new(),
            published: AsyncMutex::new(None),
            tokens: Tokens::default(),
            start: Timestamp::now(),
        }
    }

    /// The newest state of the object.
    pub fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.orders.borrow().pod)
    }

    /// Tells of changes of the object and of orders.
    pub fn changes(&self) -> watch::Receiver<Orders> {
        self.orders.clone()
    }

    /// Changes what is known of a container, and has it published.
    pub fn update(&self, container: &str, change: impl FnOnce(&mut Record)) {
        let ready = {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(record) = records.get_mut(container) {
                change(record);
            }
            let pod = self.pod();
            let mut all = pod.spec.iter().flat_map(|spec| spec.containers.iter());
            all.all(|container| records.get(&container.name).is_some_and(|record| record.ready))
        };
        // The proxies on this node learn it here, long before the API server tells them.
        self.context.table.set_ready(self.ip, ready);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        self.dirty.notify_one();
    }

    /// Waits until what is known of a container is as `test` says, or the pod is told to go.
    pub async fn until(&self, container: &str, test: impl Fn(&Record) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.record(container).is_none_or(|record| test(&record)) {
                return;
            }
            tokio::select! {
                _ = self.stopped() => return,
                result = changed.changed() => if result.is_err() { return },
            }
        }
    }

    /// A copy of what is known of a container.
    pub fn record(&self, container: &str) -> Option<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// Writes the status if it changed, and returns when the API server has it.
    pub async fn publish(&self) -> Result<(), kube::Error> {
        let mut published = self.published.lock().await;
        if self.orders.borrow().vanished {
            return Ok(());
        }
        let mut pod = self.pod().as_ref().clone();
        if let Some(own) = published.as_ref() {
            pod.status = Some(overlay(pod.status.take().unwrap_or_default(), own));
        }
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let next = status::status(&pod, &records, Some(self.ip), self.start, Timestamp::now());
        if published.as_ref() == Some(&next) {
            return Ok(());
        }
        let mut value = serde_json::to_value(&next).map_err(kube::Error::SerdeError)?;
        if let Some(fields) = value.as_object_mut() {
            // A merge patch keeps what it does not name.
            for name in ["reason", "message"] {
                fields.entry(name).or_insert(serde_json::Value::Null);
            }
        }
        let patch = serde_json::json!({"metadata": {"uid": pod.metadata.uid}, "status": value});
        let params = PatchParams { field_manager: Some("kubelet".to_owned()), ..PatchParams::default() };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.api(&pod).patch_status(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => *published = Some(next),
            // Deleted meanwhile, perhaps replaced by another pod of that name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn keep_published(&self) {
        let mut pause = Duration::from_millis(20);
        loop {
            self.dirty.notified().await;
            while let Err(error) = self.publish().await {
                tracing::debug!(%error, "a pod's status could not be written");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            pause = Duration::from_millis(20);
        }
    }

    /// Waits for the order to go, takes the pod out of the proxies, and then tells its containers.
    async fn await_stop(&self) {
        let mut orders = self.orders.clone();
        let mut drained = false;
        loop {
            let order = orders.borrow_and_update().clone();
            if let Some(grace) = order.grace {
                let deadline = Instant::now() + grace;
                if !drained {
                    drained = true;
                    // SIGTERM must not overtake the proxies: they stop choosing this pod at once, and what they
                    // have sent already gets a moment to be answered.
                    self.context.table.retire(self.ip, PATIENCE_OF_PROXY.min(grace / 2)).await;
                }
                self.stop.send_if_modified(|stop| {
                    let sooner = stop.is_none_or(|stop| deadline < stop.deadline);
                    if sooner {
                        *stop = Some(Stop { deadline });
                    }
                    sooner
                });
            }
            if orders.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the pod has been told to go.
    pub fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Waits until the pod is told to go.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        let found = stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        found.unwrap_or(Stop { deadline: Instant::now() })
    }
}

/// The status on the server, with this node's own fields as it last wrote them.
fn overlay(mut server: PodStatus, own: &PodStatus) -> PodStatus {
    let mine: Vec<_> = own.conditions.iter().flatten().cloned().collect();
    let foreign = server.conditions.take().unwrap_or_default();
    let foreign = foreign.into_iter().filter(|other| !mine.iter().any(|mine| mine.type_ == other.type_));
    server.conditions = Some(foreign.chain(mine.iter().cloned()).collect());
    server.start_time.clone_from(&own.start_time);
    server.qos_class.clone_from(&own.qos_class);
    server
}

/// Runs the pod until it is gone, then takes it off the API server.
pub(crate) async fn run(worker: Arc<Worker>) {
    let helper = Arc::clone(&worker);
    let mut helpers = JoinSet::new();
    helpers.spawn(async move { helper.keep_published().await });
    let helper = Arc::clone(&worker);
    helpers.spawn(async move { helper.await_stop().await });

    let over = matches!(
        worker.pod().status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    );
    if !over {
        live(&worker).await;
        // The last word on the containers, before the object goes.
        if let Err(error) = worker.publish().await {
            tracing::debug!(%error, "a pod's last status could not be written");
        }
    }
    worker.stopped().await;
    helpers.shutdown().await;
    remove(&worker).await;
}

async fn live(worker: &Arc<Worker>) {
    let Some(mounts) = prepare(worker).await else { return };
    let mounts = Arc::new(mounts);
    let pod = worker.pod();
    let Some(spec) = pod.spec.as_ref() else { return };
    let mut running = JoinSet::new();
    for init in spec.init_containers.iter().flatten() {
        let run = container::run(Arc::clone(worker), Arc::clone(&mounts), init.name.clone());
        if is_sidecar(init) {
            running.spawn(run);
            worker.until(&init.name, |record| record.started).await;
        } else if run.await != Finish::Succeeded {
            running.shutdown().await;
            return;
        }
        if worker.is_stopping() {
            break;
        }
    }
    let mut main = JoinSet::new();
    if !worker.is_stopping() {
        for container in &spec.containers {
            let name = container.name.clone();
            worker.update(&name, |record| {
                if let status::State::Waiting { reason, .. } = &mut record.state {
                    *reason = "ContainerCreating".to_owned();
                }
            });
            main.spawn(container::run(Arc::clone(worker), Arc::clone(&mounts), name));
        }
    }
    // Volumes from ConfigMaps and Secrets follow their sources while the pod runs.
    let mut follow = JoinSet::new();
    follow.spawn(follow_sources(Arc::clone(worker)));
    while main.join_next().await.is_some() {}
    follow.shutdown().await;
    // Sidecars end after the others, also those of a finished pod.
    if !worker.is_stopping() {
        running.shutdown().await;
    }
    while running.join_next().await.is_some() {}
}

/// Makes the folders of all volumes; waits for what they are made from. None if the pod has to go before.
async fn prepare(worker: &Arc<Worker>) -> Option<Mounts> {
    let mut changed = worker.context.changed.subscribe();
    let mut told = None;
    worker.dirty.notify_one();
    loop {
        changed.borrow_and_update();
        let fetched = worker.tokens.refresh(&worker.context.client, &worker.pod()).await;
        let unfetched = fetched.is_err();
        match fetched.and_then(|_| make_volumes(worker)) {
            Ok(mounts) => return Some(mounts),
            Err(message) => {
                if told.as_ref() != Some(&message) {
                    let text = format!("MountVolume.SetUp failed: {message}");
                    worker.context.events.warning(worker.pod().as_ref(), "FailedMount", text);
                    told = Some(message);
                }
            }
        }
        tokio::select! {
            _ = worker.stopped() => return None,
            result = changed.changed() => result.ok()?,
            // Nothing tells when the server would give a token.
            () = tokio::time::sleep(TOKEN_RETRY), if unfetched => {}
        }
    }
}

async fn follow_sources(worker: Arc<Worker>) {
    let mut changed = worker.context.changed.subscribe();
    loop {
        let refreshed = worker.tokens.refresh(&worker.context.client, &worker.pod()).await;
        // A source that is gone leaves the files as they were, and an old token lives on for a while.
        let made = refreshed.clone().and_then(|_| make_volumes(&worker));
        if let Err(message) = made {
            tracing::debug!(%message, "a volume could not be brought up to date");
        }
        let pause = match refreshed {
            Ok(None) => None,
            Ok(Some(at)) => {
                let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                Some(left.max(TOKEN_RETRY))
            }
            Err(_) => Some(TOKEN_RETRY),
        };
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// The local folders of the pod's volumes, written as far as they changed.
fn make_volumes(worker: &Worker) -> Result<Mounts, String> {
    let pod = worker.pod();
    let context = &worker.context;
    let base = context.pod_folder(&pod).join("volumes");
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut folders: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let spec = pod.spec.as_ref().ok_or_else(|| "the pod has no spec".to_owned())?;
    for volume in spec.volumes.iter().flatten() {
        let folder = match volumes::content(
            &pod,
            worker.ip,
            volume,
            context.as_ref(),
            &context.allocatable,
            &worker.tokens,
        )? {
            Content::Files(files) => {
                let folder = base.join(crate::context::safe(&volume.name));
                write_if_changed(&folder, &files).map_err(|error| error.to_string())?;
                folder
            }
            Content::Scratch => base.join(crate::context::safe(&volume.name)),
            Content::Claim(claim) => {
                let found = context.claims.get(namespace, &claim);
                let found = found.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" not found"))?;
                context.claim_folder(&found)
            }
            Content::Host(path) => path,
        };
        if volume.host_path.is_none() {
            std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        folders.insert(&volume.name, folder);
    }
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut mounts = Vec::new();
    for mount in all.flat_map(|container| container.volume_mounts.iter().flatten()) {
        let Some(folder) = folders.get(mount.name.as_str()) else {
            return Err(format!("volume \"{}\" does not exist in the pod", mount.name));
        };
        let sub = mount.sub_path.as_deref().unwrap_or_default();
        if sub.split('/').any(|part| part == "..") || sub.starts_with('/') {
            return Err(format!("subPath {sub:?} leads outside of the volume"));
        }
        let folder = if sub.is_empty() { folder.clone() } else { folder.join(sub) };
        mounts.push((mount.mount_path.clone(), folder));
    }
    // Two containers that mount different volumes at one path see the first one's; images rarely do that.
    Ok(Mounts::new(mounts))
}

fn write_if_changed(
    folder: &std::path::Path,
    files: &BTreeMap<String, (Vec<u8>, u32)>,
) -> std::io::Result<()> {
    let same = std::fs::read_link(folder.join("..data")).is_ok_and(|data| {
        let data = folder.join(data);
        let count = count_files(&data);
        count == files.len()
            && files
                .iter()
                .all(|(path, (value, _))| std::fs::read(data.join(path)).is_ok_and(|old| old == *value))
    });
    if same {
        return Ok(());
    }
    let generation = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
    volumes::write(folder, files, generation)
}

fn count_files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// Takes the pod off the API server and off the disk.
async fn remove(worker: &Worker) {
    let pod = worker.pod();
    let context = &worker.context;
    context.table.forget(worker.ip);
    context.addresses.release(worker.ip);
    let folder = context.pod_folder(&pod);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "a pod's folder could not be removed");
    }
    let log_folder = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        logs::pod_folder(&context.config.root, namespace, pod.metadata.name.as_deref().unwrap_or_default())
    };
    context
        .graveyard
        .bury(log_folder(&pod), |folder| context.pods.all().iter().any(|pod| log_folder(pod) == folder));
    if pod.metadata.deletion_timestamp.is_none() || worker.orders.borrow().vanished {
        return;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }
        .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
    let mut pause = Duration::from_millis(20);
    loop {
        match worker.api(&pod).delete(name, &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => tracing::debug!(%error, pod = name, "a pod could not be taken off the API server"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
        if worker.orders.borrow().vanished {
            return;
        }
    }
}

/// The container of that name, as the object describes it now.
pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.find(|container| container.name == name).cloned()
}
