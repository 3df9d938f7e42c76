//! Starts the controllers and keeps them running.

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use tokio::task::JoinSet;

use crate::cache::{Store, follow_all};
use crate::cluster::{Cluster, Queues, connect};
use crate::events::Recorder;
use crate::gc::Resources;
use crate::meta::Key;
use crate::queue::{Outcome, Queue};
use crate::{
    Error, Settings, accounts, autoscaler, claims, cronjob, daemonset, deployment, disruption, endpoints, gc,
    job, namespaces, quotas, replicaset, root_ca, scheduler, statefulset,
};

/// Workers per controller. More gain nothing on a local API server.
const WORKERS: usize = 4;

type Tasks = JoinSet<Result<(), Error>>;

/// Runs all controllers until `shutdown` completes, then stops them at once; whatever they were doing is picked up
/// by the next start.
///
/// # Errors
/// [`Error::Refused`] if the API server denies the client what the controllers need. Other failures are tried
/// again for ever.
pub async fn run(client: Client, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    run_with(client, Settings::default(), shutdown).await
}

/// As [`run`], with other times than Kubernetes' own.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let mut tasks = Tasks::new();
    let (events, send) = Recorder::of_controllers(client.clone());
    tasks.spawn(async move {
        send.await;
        Ok(())
    });
    let cluster = Cluster::new(client.clone(), events, settings);
    let queues = Queues::default();
    connect(&cluster, &queues);
    watch_all(&cluster, &mut tasks);
    work(&cluster, &queues, &mut tasks);
    collect(&cluster, &queues, &mut tasks);

    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(error)) if error.is_panic() => {
                    tracing::error!(%error, "a controller's task ended");
                }
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

fn watch_all(cluster: &Cluster, tasks: &mut Tasks) {
    let client = || cluster.client.clone();
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.deployments.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.replica_sets.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.stateful_sets.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.daemon_sets.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.jobs.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.autoscalers.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.budgets.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.quotas.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.cron_jobs.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.pods.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.services.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.endpoint_slices.store)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.claims.store)));
    if cluster.settings.root_ca.is_some() {
        tasks.spawn(follow_all(client(), Arc::clone(&cluster.config_maps.store)));
    }
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.volumes)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.namespaces)));
    tasks.spawn(follow_all(client(), Arc::clone(&cluster.nodes)));
}

/// Waits until every copy is complete: a controller that sees half of the pods would create the other half anew.
async fn wait_synced(cluster: &Cluster) {
    cluster.deployments.store.wait_synced().await;
    cluster.replica_sets.store.wait_synced().await;
    cluster.stateful_sets.store.wait_synced().await;
    cluster.daemon_sets.store.wait_synced().await;
    cluster.jobs.store.wait_synced().await;
    cluster.autoscalers.store.wait_synced().await;
    cluster.budgets.store.wait_synced().await;
    cluster.quotas.store.wait_synced().await;
    cluster.cron_jobs.store.wait_synced().await;
    cluster.pods.store.wait_synced().await;
    cluster.services.store.wait_synced().await;
    cluster.endpoint_slices.store.wait_synced().await;
    cluster.claims.store.wait_synced().await;
    if cluster.settings.root_ca.is_some() {
        cluster.config_maps.store.wait_synced().await;
    }
    cluster.volumes.wait_synced().await;
    cluster.namespaces.wait_synced().await;
    cluster.nodes.wait_synced().await;
}

fn work(cluster: &Cluster, queues: &Queues, tasks: &mut Tasks) {
    controller(tasks, cluster, &queues.deployments, WORKERS, |cluster, key| async move {
        deployment::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.replica_sets, WORKERS, |cluster, key| async move {
        replicaset::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.stateful_sets, WORKERS, |cluster, key| async move {
        statefulset::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.daemon_sets, WORKERS, |cluster, key| async move {
        daemonset::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.jobs, WORKERS, |cluster, key| async move {
        job::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.autoscalers, WORKERS, |cluster, key| async move {
        autoscaler::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.budgets, WORKERS, |cluster, key| async move {
        disruption::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.cron_jobs, WORKERS, |cluster, key| async move {
        cronjob::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.accounts, 1, |cluster, key| async move {
        accounts::reconcile(&cluster, &key.name).await
    });
    controller(tasks, cluster, &queues.root_ca, 1, |cluster, key| async move {
        root_ca::reconcile(&cluster, &key.name).await
    });
    controller(tasks, cluster, &queues.services, WORKERS, |cluster, key| async move {
        endpoints::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.claims, WORKERS, |cluster, key| async move {
        claims::reconcile(&cluster, &key).await
    });
    controller(tasks, cluster, &queues.volumes, 1, |cluster, key| async move {
        claims::reconcile_volume(&cluster, &key.name).await
    });
    // One at a time, so that two pods do not take the same room.
    controller(tasks, cluster, &queues.unscheduled, 1, |cluster, key| async move {
        scheduler::reconcile(&cluster, &key).await
    });
}

/// Runs `workers` workers on a queue.
fn controller<F>(
    tasks: &mut Tasks,
    cluster: &Cluster,
    queue: &Arc<Queue<Key>>,
    workers: usize,
    reconcile: impl Fn(Cluster, Key) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Result<Outcome, Error>> + Send + 'static,
{
    for _ in 0..workers {
        let (cluster, queue, reconcile) = (cluster.clone(), Arc::clone(queue), reconcile.clone());
        tasks.spawn(async move {
            wait_synced(&cluster).await;
            queue.work(|key| reconcile(cluster.clone(), key)).await;
            Ok(())
        });
    }
}

/// Garbage collection, the end of namespaces and quotas, which need every resource of the server.
fn collect(cluster: &Cluster, queues: &Queues, tasks: &mut Tasks) {
    let (namespaces, queue) = (Arc::clone(&cluster.namespaces), Arc::clone(&queues.namespaces));
    let (quotas, count) = (Arc::clone(&cluster.quotas.store), Arc::clone(&queues.quotas));
    let resources = Arc::new(Resources::new(cluster.client.clone(), move |namespace, came_or_went| {
        if came_or_went {
            for quota in quotas.in_namespace(namespace) {
                count.add(Key::of(quota.as_ref()));
            }
        }
        if namespaces.get("", namespace).is_some_and(|namespace| crate::meta::is_deleting(namespace.as_ref()))
        {
            queue.add(Key { namespace: String::new(), name: namespace.to_owned() });
        }
    }));
    let definitions = Arc::new(Store::<CustomResourceDefinition>::default());
    let changed = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&changed);
    definitions.on_change(move |_| notify.notify_one());
    let follow_definitions = follow_all(cluster.client.clone(), definitions);
    tasks.spawn(follow_definitions);

    let (cluster, queues) = (cluster.clone(), queues.clone());
    tasks.spawn(async move {
        let mut workers = JoinSet::new();
        loop {
            match resources.refresh().await {
                Ok(()) if workers.is_empty() => {
                    for _ in 0..WORKERS {
                        let (collector, queue) = (Arc::clone(&resources), Arc::clone(&resources.graph.queue));
                        workers.spawn(queue.work(move |uid| {
                            let resources = Arc::clone(&collector);
                            async move { gc::reconcile(&resources, &uid).await }
                        }));
                        everything(
                            &mut workers,
                            &queues.namespaces,
                            &cluster,
                            &resources,
                            |all, key| async move {
                                namespaces::reconcile(&all.cluster, &all.resources, &key.name).await
                            },
                        );
                    }
                    // One at a time: each counts a whole namespace.
                    everything(&mut workers, &queues.quotas, &cluster, &resources, |all, key| async move {
                        quotas::reconcile(&all.cluster, &all.resources, &key).await
                    });
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "discovery failed");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    continue;
                }
            }
            changed.notified().await;
        }
    });
}

/// The cluster, with every resource of the server.
#[derive(Clone)]
struct Everything {
    cluster: Cluster,
    resources: Arc<Resources>,
}

/// Runs a worker that needs every resource of the server on a queue.
fn everything<F>(
    workers: &mut JoinSet<()>,
    queue: &Arc<Queue<Key>>,
    cluster: &Cluster,
    resources: &Arc<Resources>,
    reconcile: impl Fn(Everything, Key) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<Outcome, Error>> + Send + 'static,
{
    let all = Everything { cluster: cluster.clone(), resources: Arc::clone(resources) };
    let queue = Arc::clone(queue);
    workers.spawn(async move {
        wait_synced(&all.cluster).await;
        queue.work(|key| reconcile(all.clone(), key)).await;
    });
}
