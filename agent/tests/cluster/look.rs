//! Watching Environments, members and pods.

use agent::api::Environment;
use agent::cluster::{ChangeKind, EnvironmentEvent};
use engine::object::Digest;
use kube::api::Api;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{PATIENCE, World, deploy, eventually, follow, next, objects, reference};

async fn word(events: &mut mpsc::Receiver<EnvironmentEvent>) -> String {
    let event = tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("no event in time")
        .expect("the watch ended");
    match event {
        EnvironmentEvent::Applied(environment) => format!("applied {}", environment.key()),
        EnvironmentEvent::Invalid { name, message, .. } => format!("invalid {name}: {message}"),
        EnvironmentEvent::Deleted { namespace, name } => format!("deleted {namespace}/{name}"),
        EnvironmentEvent::Synced => "synced".to_owned(),
    }
}

#[tokio::test]
async fn environments_come_and_go() {
    let world = World::new().await;
    world.environment(Environment::test("dev")).await;
    let mut events = world.cluster.environments(None);
    assert_eq!(word(&mut events).await, "applied holdfast-system/dev");
    assert_eq!(word(&mut events).await, "synced");
    world.environment(Environment::test("prod").in_namespace("shop")).await;
    assert_eq!(word(&mut events).await, "applied shop/prod");
    let environments: Api<Environment> = Api::namespaced(world.client.clone(), "shop");
    environments.delete("prod", &Default::default()).await.unwrap();
    assert_eq!(word(&mut events).await, "deleted shop/prod");
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "backend", "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "backend"}},
            "template": {
                "metadata": {"labels": {"app": "backend"}},
                "spec": {"containers": [{"name": "app", "image": "shop:1"}]}
            }
        }
    })
}

fn owned_by(kind: &str, owner: &Value) -> Value {
    json!([{
        "apiVersion": "apps/v1", "kind": kind, "controller": true,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]
    }])
}

async fn replica_set(world: &World, deployment: &Value, hash: &str, revision: &str) -> Value {
    let labels = json!({"app": "backend", "pod-template-hash": hash});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("backend-{hash}"), "namespace": "shop", "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": owned_by("Deployment", deployment)
        },
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": deployment["spec"]["template"]["spec"]}
        }
    });
    world.create(set).await
}

async fn pod(world: &World, set: &Value, name: &str, status: Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": set["metadata"]["labels"],
            "ownerReferences": owned_by("ReplicaSet", set)
        },
        "spec": {"containers": [{"name": "app", "image": "shop:1"}]}
    });
    world.create(pod.clone()).await;
    let patch = kube::api::Patch::Merge(json!({"status": status}));
    world.api(&pod).patch_status(name, &Default::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn old_pods_are_told_from_new_ones_and_a_broken_new_one_fails_the_release() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let wanted = deployment();
    deploy(&world.cluster, &dev, std::slice::from_ref(&wanted)).await.unwrap();
    let key = reference(&wanted);
    world
        .edit(&wanted, |object| {
            object["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("2");
        })
        .await;
    let live = world.read(&wanted).await.unwrap();
    let old = replica_set(&world, &live, "aaa", "1").await;
    let new = replica_set(&world, &live, "bbb", "2").await;
    let ready = json!({"podIP": "127.1.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    pod(&world, &old, "old-1", ready).await;
    let waiting = |reason: &str| {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "app", "image": "shop:2", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason}}
        }]})
    };
    pod(&world, &new, "new-1", waiting("ContainerCreating")).await;

    let pods = world.cluster.pods_of(&key).await.unwrap();
    let names = |pods: &[agent::cluster::Pod]| {
        pods.iter().map(|pod| (pod.name.clone(), pod.ready)).collect::<Vec<_>>()
    };
    assert_eq!(names(&pods.old), [("old-1".to_owned(), true)]);
    assert_eq!(names(&pods.new), [("new-1".to_owned(), false)]);
    assert_eq!(pods.old[0].ip.as_deref(), Some("127.1.0.1"));

    let mut changes = world.cluster.subscribe(&dev.marks());
    let guard = world.cluster.watch_pods(&dev.marks(), [&key]);
    let digest = Digest::of_bytes(b"bundle");
    let health = || world.cluster.health(&digest, [&key], &[], 0);
    assert_eq!((health().total, health().ready, health().failed.len()), (1, 0, 0));
    pod(&world, &new, "new-2", waiting("ImagePullBackOff")).await;
    assert_eq!(next(&mut changes).await, [(ChangeKind::HealthChanged, "backend".into())]);
    assert_eq!(health().failed[0].reason, "ImagePullBackOff");
    drop(guard);
    assert_eq!(health().failed, []);
}

#[tokio::test]
async fn health_follows_the_status() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let wanted = deployment();
    deploy(&world.cluster, &dev, std::slice::from_ref(&wanted)).await.unwrap();
    follow(&world.cluster, &dev, &objects(std::slice::from_ref(&wanted))).await;
    let key = reference(&wanted);
    let digest = Digest::of_bytes(b"bundle");
    let health = |canaries: &[_]| world.cluster.health(&digest, [&key], canaries, 1);
    assert_eq!(health(&[]).progressing.len(), 1);
    let status = |updated: u32, ready: u32| {
        kube::api::Patch::Merge(json!({"status": {
            "observedGeneration": 1, "replicas": 3, "updatedReplicas": updated, "readyReplicas": ready,
            "availableReplicas": ready
        }}))
    };
    let api = world.api(&wanted);
    api.patch_status("backend", &Default::default(), &status(1, 3)).await.unwrap();
    eventually("the canary stands", || async { health(std::slice::from_ref(&key)).ready == 1 }).await;
    assert_eq!(health(&[]).ready, 0);
    assert!(!world.cluster.members(|index| index.get(&key).unwrap().has_drifted()), "status is no drift");
}
