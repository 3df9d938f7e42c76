//! What the controllers share: one local copy per resource, and one work queue per controller.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Client, Resource};

use crate::Settings;
use crate::autoscaler::Histories;
use crate::cache::{Change, Store};
use crate::events::Recorder;
use crate::meta::{self, Key};
use crate::queue::Queue;
use crate::root_ca;
use crate::writer::Writer;

/// The stores, with a client that writes.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub client: Client,
    pub settings: Settings,
    pub events: Recorder,
    /// What autoscalers have wanted and done.
    pub scaling: Histories,
    pub deployments: Writer<Deployment>,
    pub replica_sets: Writer<ReplicaSet>,
    pub stateful_sets: Writer<StatefulSet>,
    pub daemon_sets: Writer<DaemonSet>,
    pub jobs: Writer<Job>,
    pub autoscalers: Writer<HorizontalPodAutoscaler>,
    pub budgets: Writer<PodDisruptionBudget>,
    pub quotas: Writer<ResourceQuota>,
    pub cron_jobs: Writer<CronJob>,
    pub pods: Writer<Pod>,
    pub services: Writer<Service>,
    pub endpoint_slices: Writer<EndpointSlice>,
    pub claims: Writer<PersistentVolumeClaim>,
    pub config_maps: Writer<ConfigMap>,
    pub volumes: Arc<Store<PersistentVolume>>,
    pub namespaces: Arc<Store<Namespace>>,
    pub nodes: Arc<Store<Node>>,
}

impl Cluster {
    pub fn new(client: Client, events: Recorder, settings: Settings) -> Cluster {
        Cluster {
            settings,
            events,
            scaling: Histories::default(),
            deployments: Writer::new(client.clone()),
            replica_sets: Writer::new(client.clone()),
            stateful_sets: Writer::new(client.clone()),
            daemon_sets: Writer::new(client.clone()),
            jobs: Writer::new(client.clone()),
            autoscalers: Writer::new(client.clone()),
            budgets: Writer::new(client.clone()),
            quotas: Writer::new(client.clone()),
            cron_jobs: Writer::new(client.clone()),
            pods: Writer::new(client.clone()),
            services: Writer::new(client.clone()),
            endpoint_slices: Writer::new(client.clone()),
            claims: Writer::new(client.clone()),
            config_maps: Writer::new(client.clone()),
            volumes: Arc::default(),
            namespaces: Arc::default(),
            nodes: Arc::default(),
            client,
        }
    }
}

/// Which object needs which controller's look.
#[derive(Clone, Default)]
pub(crate) struct Queues {
    pub deployments: Arc<Queue<Key>>,
    pub replica_sets: Arc<Queue<Key>>,
    pub stateful_sets: Arc<Queue<Key>>,
    pub daemon_sets: Arc<Queue<Key>>,
    pub jobs: Arc<Queue<Key>>,
    pub autoscalers: Arc<Queue<Key>>,
    pub budgets: Arc<Queue<Key>>,
    pub quotas: Arc<Queue<Key>>,
    pub cron_jobs: Arc<Queue<Key>>,
    pub services: Arc<Queue<Key>>,
    pub claims: Arc<Queue<Key>>,
    pub volumes: Arc<Queue<Key>>,
    pub unscheduled: Arc<Queue<Key>>,
    pub namespaces: Arc<Queue<Key>>,
    pub accounts: Arc<Queue<Key>>,
    pub root_ca: Arc<Queue<Key>>,
}

/// Leads every change to the queues that it concerns. Handlers hold queues and other stores' copies only, so
/// nothing keeps itself alive.
pub(crate) fn connect(cluster: &Cluster, queues: &Queues) {
    own(&cluster.deployments.store, &queues.deployments);
    own(&cluster.replica_sets.store, &queues.replica_sets);
    own(&cluster.stateful_sets.store, &queues.stateful_sets);
    own(&cluster.daemon_sets.store, &queues.daemon_sets);
    own(&cluster.jobs.store, &queues.jobs);
    own(&cluster.budgets.store, &queues.budgets);
    let quotas = Arc::clone(&queues.quotas);
    cluster.quotas.store.on_change(move |change| {
        if let Some(quota) = change.new.as_ref().filter(|_| crate::quotas::asks(change)) {
            quotas.add(Key::of(quota.as_ref()));
        }
    });
    own(&cluster.cron_jobs.store, &queues.cron_jobs);
    connect_budgets(cluster, queues);
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    count_anew(cluster, queues, &cluster.pods.store, move |old, new| {
        old.spec != new.spec || phase(old) != phase(new)
    });
    count_anew(cluster, queues, &cluster.services.store, |old, new| old.spec != new.spec);
    count_anew(cluster, queues, &cluster.claims.store, |old, new| old.spec != new.spec);
    own(&cluster.services.store, &queues.services);
    own(&cluster.claims.store, &queues.claims);
    own(&cluster.volumes, &queues.volumes);
    own(&cluster.namespaces, &queues.namespaces);

    // The status that a look has written is no reason to look again.
    let (autoscalers, scaling) = (Arc::clone(&queues.autoscalers), cluster.scaling.clone());
    cluster.autoscalers.store.on_change(move |change| match (&change.old, &change.new) {
        (Some(old), None) => scaling.forget(meta::uid(old.as_ref())),
        (old, Some(new)) => {
            if old.as_ref().is_none_or(|old| old.spec != new.spec) {
                autoscalers.add(Key::of(new.as_ref()));
            }
        }
        (None, None) => {}
    });
    let (accounts, root_ca) = (Arc::clone(&queues.accounts), Arc::clone(&queues.root_ca));
    cluster.namespaces.on_change(move |change| {
        if let (None, Some(namespace)) = (&change.old, &change.new) {
            accounts.add(Key::of(namespace.as_ref()));
            root_ca.add(Key::of(namespace.as_ref()));
        }
    });
    let root_ca = Arc::clone(&queues.root_ca);
    cluster.config_maps.store.on_change(move |change| {
        let changed = change.sides().find(|map| meta::name(map.as_ref()) == root_ca::NAME);
        if let Some(map) = changed {
            root_ca.add(Key { namespace: String::new(), name: meta::namespace(map.as_ref()).to_owned() });
        }
    });
    let deployments = Arc::clone(&queues.deployments);
    let all = Arc::clone(&cluster.deployments.store);
    cluster.replica_sets.store.on_change(move |change| {
        for set in change.sides() {
            match controller(set.as_ref(), "Deployment") {
                Some(key) => deployments.add(key),
                // An orphan: any Deployment of the namespace may adopt it.
                None => all.in_namespace(meta::namespace(set.as_ref())).iter().for_each(|deployment| {
                    deployments.add(Key::of(deployment.as_ref()));
                }),
            }
        }
    });
    connect_pods(cluster, queues);
    let services = Arc::clone(&queues.services);
    cluster.endpoint_slices.store.on_change(move |change| {
        for slice in change.sides() {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(crate::endpoints::SERVICE_NAME)) {
                let namespace = meta::namespace(slice.as_ref()).to_owned();
                services.add(Key { namespace, name: name.clone() });
            }
        }
    });
    let (pods, unscheduled) = (Arc::clone(&cluster.pods.store), Arc::clone(&queues.unscheduled));
    let (all, daemon_sets) = (Arc::clone(&cluster.daemon_sets.store), Arc::clone(&queues.daemon_sets));
    cluster.nodes.on_change(move |change| {
        if !crate::scheduler::node_changed(change) {
            return;
        }
        for pod in pods.all() {
            if crate::scheduler::waits(&pod) {
                unscheduled.add(Key::of(pod.as_ref()));
            }
        }
        for set in all.all() {
            daemon_sets.add(Key::of(set.as_ref()));
        }
    });
    // A volume whose claim is gone is deleted; a claim waits for its volume.
    let (claims, volumes) = (Arc::clone(&queues.claims), Arc::clone(&queues.volumes));
    cluster.volumes.on_change(move |change| {
        if let Some(claim) = change.last().and_then(|volume| volume.spec.as_ref()?.claim_ref.clone()) {
            let (namespace, name) = (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default());
            claims.add(Key { namespace, name });
        }
    });
    cluster.claims.store.on_change(move |change| {
        if let (Some(claim), None) = (&change.old, &change.new)
            && let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone())
        {
            volumes.add(Key { namespace: String::new(), name: volume });
        }
    });
}

/// Budgets count pods against what the pods' managers want; a Job tells its CronJob of its end.
fn connect_budgets(cluster: &Cluster, queues: &Queues) {
    let (all, budgets) = (Arc::clone(&cluster.budgets.store), Arc::clone(&queues.budgets));
    cluster.pods.store.on_change(move |change| {
        for pod in change.sides() {
            for budget in all.in_namespace(meta::namespace(pod.as_ref())) {
                if crate::disruption::selects(&budget, pod) {
                    budgets.add(Key::of(budget.as_ref()));
                }
            }
        }
    });
    on_resize(cluster, queues, &cluster.deployments.store, |deployment| deployment.spec.as_ref()?.replicas);
    on_resize(cluster, queues, &cluster.stateful_sets.store, |set| set.spec.as_ref()?.replicas);
    on_resize(cluster, queues, &cluster.replica_sets.store, |set| set.spec.as_ref()?.replicas);
    let cron_jobs = Arc::clone(&queues.cron_jobs);
    cluster.jobs.store.on_change(move |change| {
        if let Some(key) = change.last().and_then(|job| controller(job.as_ref(), "CronJob")) {
            cron_jobs.add(key);
        }
    });
}

/// Has the budgets of the namespace counted anew when a workload is to have another size.
fn on_resize<K>(cluster: &Cluster, queues: &Queues, store: &Store<K>, size: fn(&K) -> Option<i32>)
where
    K: Resource + Send + Sync + 'static,
{
    let (all, budgets) = (Arc::clone(&cluster.budgets.store), Arc::clone(&queues.budgets));
    store.on_change(move |change| {
        let wanted = |side: &Option<Arc<K>>| side.as_ref().and_then(|workload| size(workload));
        if wanted(&change.old) != wanted(&change.new)
            && let Some(workload) = change.last()
        {
            for budget in all.in_namespace(meta::namespace(workload.as_ref())) {
                budgets.add(Key::of(budget.as_ref()));
            }
        }
    });
}

fn connect_pods(cluster: &Cluster, queues: &Queues) {
    let to = queues.clone();
    let (services, sets) = (Arc::clone(&cluster.services.store), Arc::clone(&cluster.replica_sets.store));
    let stateful_sets = Arc::clone(&cluster.stateful_sets.store);
    let deployments = Arc::clone(&cluster.deployments.store);
    cluster.pods.store.on_change(move |change| {
        for pod in change.sides() {
            let namespace = meta::namespace(pod.as_ref());
            for service in services.in_namespace(namespace) {
                if crate::endpoints::selects(&service, pod) {
                    to.services.add(Key::of(service.as_ref()));
                }
            }
            let Some(owner) = meta::controller_of(&pod.metadata) else {
                // An orphan: whoever selects it may adopt it.
                for set in sets.in_namespace(namespace) {
                    to.replica_sets.add(Key::of(set.as_ref()));
                }
                for set in stateful_sets.in_namespace(namespace) {
                    to.stateful_sets.add(Key::of(set.as_ref()));
                }
                continue;
            };
            let key = Key { namespace: namespace.to_owned(), name: owner.name.clone() };
            match owner.kind.as_str() {
                "ReplicaSet" => {
                    // A Recreate rollout waits for the very end of the old pods.
                    if change.new.is_none() || meta::is_terminal(pod) {
                        let set = sets.get(namespace, &key.name);
                        if let Some(key) = set.and_then(|set| controller(set.as_ref(), "Deployment"))
                            && deployments
                                .get(namespace, &key.name)
                                .is_some_and(|deployment| crate::deployment::is_recreate(&deployment))
                        {
                            to.deployments.add(key);
                        }
                    }
                    to.replica_sets.add(key);
                }
                "StatefulSet" => to.stateful_sets.add(key),
                "DaemonSet" => to.daemon_sets.add(key),
                "Job" => to.jobs.add(key),
                _ => {}
            }
        }
        // A claim that is being deleted waits for the end of the last pod that mounts it.
        if let Some(pod) = change.last().filter(|pod| change.new.is_none() || meta::is_terminal(pod)) {
            for name in crate::claims::claims_of(pod) {
                to.claims
                    .add(Key { namespace: meta::namespace(pod.as_ref()).to_owned(), name: name.to_owned() });
            }
        }
        // A change of the last known state only: a pod that was bound or has ended frees or takes room.
        if let Some(pod) = &change.new
            && crate::scheduler::waits(pod)
        {
            to.unscheduled.add(Key::of(pod.as_ref()));
        }
    });
    // Room that becomes free may be what another pod waits for.
    let (pods, unscheduled) = (Arc::downgrade(&cluster.pods.store), Arc::clone(&queues.unscheduled));
    cluster.pods.store.on_change(move |change| {
        let freed = change.new.as_ref().is_none_or(|pod| meta::is_terminal(pod));
        if let (true, Some(pods)) = (freed, pods.upgrade()) {
            for pod in pods.all().iter().filter(|pod| crate::scheduler::waits(pod)) {
                unscheduled.add(Key::of(pod.as_ref()));
            }
        }
    });
}

fn own<K>(store: &Arc<Store<K>>, queue: &Arc<Queue<Key>>)
where
    K: Resource + Send + Sync + 'static,
{
    let queue = Arc::clone(queue);
    store.on_change(move |change: &Change<K>| {
        if let Some(object) = change.last() {
            queue.add(Key::of(object.as_ref()));
        }
    });
}

/// Has the quotas of the namespace counted anew when what they count has changed.
fn count_anew<K>(
    cluster: &Cluster,
    queues: &Queues,
    store: &Arc<Store<K>>,
    counts_otherwise: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) where
    K: Resource + Send + Sync + 'static,
{
    let (all, queue) = (Arc::clone(&cluster.quotas.store), Arc::clone(&queues.quotas));
    store.on_change(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !counts_otherwise(old, new)
        {
            return;
        }
        if let Some(object) = change.last() {
            for quota in all.in_namespace(meta::namespace(object.as_ref())) {
                queue.add(Key::of(quota.as_ref()));
            }
        }
    });
}

/// The key of the object's controller if it is of that kind.
fn controller<K: Resource>(object: &K, kind: &str) -> Option<Key> {
    let owner = meta::controller_of(object.meta()).filter(|owner| owner.kind == kind)?;
    Some(Key { namespace: meta::namespace(object).to_owned(), name: owner.name.clone() })
}
