//! Deployments from the first rollout to a rollback.

use crate::harness::{Cluster, shop};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::collections::BTreeMap;

/// Sizes of the ReplicaSets by image.
async fn sizes(cluster: &Cluster) -> BTreeMap<String, i32> {
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
    sets.items
        .into_iter()
        .map(|set| {
            let spec = set.spec.unwrap();
            let containers = spec.template.unwrap().spec.unwrap().containers;
            (containers[0].image.clone().unwrap(), spec.replicas.unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_available_with_endpoints() {
    let cluster = Cluster::start("available").await;
    cluster.shop("v1", json!({})).await;
    let deployment = cluster.complete("shop").await;
    let conditions = deployment.status.unwrap().conditions.unwrap();
    let reason = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .and_then(|condition| condition.reason.clone())
    };
    assert_eq!(reason("Available").as_deref(), Some("MinimumReplicasAvailable"));
    assert_eq!(reason("Progressing").as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(deployment.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "1");
    let slice = cluster
        .until("three endpoints are ready", || async {
            let params = ListParams::default().labels("kubernetes.io/service-name=shop");
            let slices = cluster.api::<EndpointSlice>().list(&params).await.unwrap().items;
            let seen = slices.clone();
            let found = slices.into_iter().find(|slice| {
                let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
                });
                ready.count() == 3
            });
            (found, seen)
        })
        .await;
    assert_eq!(slice.metadata.labels.unwrap()["team"], "a");
    assert_eq!(slice.ports.unwrap()[0].port, Some(5000));
    let pods = cluster.pods("app=shop").await;
    let addresses: std::collections::BTreeSet<_> =
        pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
    assert_eq!(addresses.len(), 3, "each pod has an address of its own");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_held_until_it_is_let_go_and_a_rollback_reuses_the_old_replica_set() {
    let cluster = Cluster::start("canary").await;
    cluster.shop("v1", json!({})).await;
    cluster.complete("shop").await;
    let hold = json!({"minReadySeconds": 3600, "progressDeadlineSeconds": 7200});
    cluster.apply::<Deployment>(shop("v2", hold)).await;
    let held = cluster
        .deployment("shop", "the canary is ready", |deployment| {
            deployment.status.as_ref().and_then(|status| status.ready_replicas) == Some(4)
        })
        .await;
    let status = held.status.unwrap();
    assert_eq!((status.replicas, status.updated_replicas), (Some(4), Some(1)));
    assert_eq!((status.available_replicas, status.unavailable_replicas), (Some(3), Some(1)));
    assert_eq!(sizes(&cluster).await, BTreeMap::from([("shop:v1".into(), 3), ("shop:v2".into(), 1)]));
    // Let go: the rollout completes.
    cluster
        .apply::<Deployment>(shop("v2", json!({"minReadySeconds": 0, "progressDeadlineSeconds": 600})))
        .await;
    cluster.complete("shop").await;
    assert_eq!(sizes(&cluster).await, BTreeMap::from([("shop:v1".into(), 0), ("shop:v2".into(), 3)]));
    // Back: the old ReplicaSet serves again, with a newer revision.
    cluster.apply::<Deployment>(shop("v1", json!({}))).await;
    let back = cluster.complete("shop").await;
    assert_eq!(sizes(&cluster).await, BTreeMap::from([("shop:v1".into(), 3), ("shop:v2".into(), 0)]));
    assert_eq!(back.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "3");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_does_not_start_costs_no_old_pod() {
    let cluster = Cluster::start("bad").await;
    cluster.shop("v1", json!({})).await;
    cluster.complete("shop").await;
    let mut bad = shop("v2", json!({"progressDeadlineSeconds": 1}));
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = json!("unknown:v2");
    cluster.apply::<Deployment>(bad).await;
    let late = cluster
        .deployment("shop", "the deadline passes", |deployment| {
            let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| {
                condition.reason.as_deref() == Some("ProgressDeadlineExceeded") && condition.status == "False"
            })
        })
        .await;
    assert_eq!(late.status.unwrap().available_replicas, Some(3));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deployment_owns_goes_with_it_or_stays_as_asked() {
    let cluster = Cluster::start("collect").await;
    let deployments = cluster.api::<Deployment>();
    // Orphaned: the ReplicaSet and the pods stay, and a new Deployment of that name adopts them.
    cluster.shop("v1", json!({})).await;
    cluster.complete("shop").await;
    let before: Vec<_> = cluster.pods("app=shop").await.into_iter().map(|pod| pod.metadata.uid).collect();
    deployments.delete("shop", &DeleteParams::orphan()).await.unwrap();
    cluster
        .until("the Deployment goes alone", || async {
            (deployments.get_opt("shop").await.unwrap().is_none().then_some(()), "")
        })
        .await;
    cluster.apply::<Deployment>(shop("v1", json!({}))).await;
    cluster.complete("shop").await;
    let after: Vec<_> = cluster.pods("app=shop").await.into_iter().map(|pod| pod.metadata.uid).collect();
    assert_eq!(before, after);
    // Foreground: the Deployment goes last.
    deployments.delete("shop", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until("the Deployment goes", || async {
            let gone = deployments.get_opt("shop").await.unwrap().is_none();
            (gone.then_some(()), "")
        })
        .await;
    assert!(cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.is_empty());
    // Background: the pods follow.
    cluster.apply::<Deployment>(shop("v1", json!({}))).await;
    cluster.complete("shop").await;
    deployments.delete("shop", &DeleteParams::background()).await.unwrap();
    cluster.no_pods("app=shop").await;
    cluster.stop().await;
}
