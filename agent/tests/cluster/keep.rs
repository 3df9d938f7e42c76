//! What is kept in the cluster: bundles and the state of rollouts.

use agent::api::{Environment, EnvironmentStatus};
use agent::cluster::{Cluster, Election, EnvironmentNotice, Error, LeaseTimes, StatusWriter};
use engine::object::{Digest, Object};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::{World, config_map, deploy, follow, objects, planned};

#[tokio::test]
async fn a_restarted_agent_knows_its_members_and_writes_nothing() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}
    });
    deploy(&world.cluster, &dev, &[config_map("a", "1"), service.clone()]).await.unwrap();

    // An agent that may not write at all: every write would fail.
    let (_election, nobody) = Election::new("holdfast-system", "holdfast", "b", LeaseTimes::default());
    let cluster = world.another_agent().await.led_by(nobody);
    let dev = world.fresh(&dev).await;
    let wanted = objects(&[config_map("a", "1")]);
    follow(&cluster, &dev, &[]).await;
    let plan = planned(&cluster, &dev, &wanted);
    assert_eq!((plan.writes(), plan.unchanged, plan.prune.len()), (0, 1, 1), "{plan}");
    assert_eq!(plan.prune[0].object.kind, "Service");
    let errors = cluster.prune(&dev, &plan.prune).await.unwrap_err();
    assert!(matches!(errors[0].error, Error::NotLeader));
}

/// A bundle that needs more than one Secret, because nothing in it repeats.
fn large() -> Vec<Object> {
    let text = |seed: u32| -> String {
        (0..8_000).map(|i| Digest::of_bytes(format!("{seed}/{i}").as_bytes()).hex()).collect()
    };
    objects(&(0..5).map(|seed| config_map(&format!("c{seed}"), &text(seed))).collect::<Vec<_>>())
}

async fn secrets(world: &World) -> Vec<Secret> {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "holdfast-system");
    let list = secrets.list(&ListParams::default()).await.unwrap().items;
    list.into_iter().filter(|secret| secret.type_.as_deref() == Some("holdfast.dev/bundle")).collect()
}

#[tokio::test]
async fn bundles_come_back_as_they_were() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let (small, large) = (objects(&[config_map("a", "1")]), large());
    let (one, two) = (Digest::of_bytes(b"one"), Digest::of_bytes(b"two"));
    world.cluster.store_bundle(&dev, &one, &small).await.unwrap();
    world.cluster.store_bundle(&dev, &two, &large).await.unwrap();
    world.cluster.store_bundle(&dev, &two, &large).await.unwrap();
    let stored = secrets(&world).await;
    assert!(stored.len() >= 3, "{}", stored.len());
    for secret in &stored {
        let size: usize = secret.data.iter().flatten().map(|(_, data)| data.0.len()).sum();
        assert!(size < 1024 * 1024);
        assert_eq!(
            secret.metadata.owner_references.as_ref().unwrap()[0].uid,
            *dev.metadata.uid.as_ref().unwrap()
        );
    }
    assert_eq!(world.cluster.load_bundle(&dev, &one).await.unwrap(), small);
    assert_eq!(world.cluster.load_bundle(&dev, &two).await.unwrap(), large);

    world.cluster.forget_bundles_except(&dev, &[one]).await.unwrap();
    assert_eq!(secrets(&world).await.len(), 1);
    assert!(
        matches!(world.cluster.load_bundle(&dev, &two).await, Err(Error::BundleMissing(digest)) if digest == two)
    );
}

#[tokio::test]
async fn a_damaged_bundle_is_noticed_and_can_be_stored_again() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let bundle = objects(&[config_map("a", "1")]);
    let digest = Digest::of_bytes(b"one");
    world.cluster.store_bundle(&dev, &digest, &bundle).await.unwrap();
    let secrets_api: Api<Secret> = Api::namespaced(world.client.clone(), "holdfast-system");
    let mut damaged = secrets(&world).await.remove(0);
    let name = damaged.metadata.name.clone().unwrap();
    secrets_api.delete(&name, &Default::default()).await.unwrap();
    damaged.metadata.resource_version = None;
    damaged.metadata.uid = None;
    damaged.metadata.managed_fields = None;
    for data in damaged.data.as_mut().unwrap().values_mut() {
        data.0.truncate(data.0.len() / 2);
    }
    secrets_api.create(&Default::default(), &damaged).await.unwrap();
    let error = world.cluster.load_bundle(&dev, &digest).await.unwrap_err();
    assert!(matches!(error, Error::BundleDamaged { .. }), "{error}");
    world.cluster.store_bundle(&dev, &digest, &bundle).await.unwrap();
    assert_eq!(world.cluster.load_bundle(&dev, &digest).await.unwrap(), bundle);
}

fn status(phase: &str, sequence: u64) -> EnvironmentStatus {
    EnvironmentStatus {
        phase: Some(phase.to_owned()),
        rollout: Some(json!({"sequence": sequence, "ratio": 1.0, "nothing": {}})),
        ..EnvironmentStatus::default()
    }
}

async fn stored(world: &World, environment: &Environment) -> Value {
    serde_json::to_value(world.fresh(environment).await.status).unwrap()
}

#[tokio::test]
async fn a_second_writer_of_the_status_stops_the_first() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let mut first = StatusWriter::new(&dev);
    first.write(&world.cluster, status("Applying", 1)).await.unwrap();

    // A person changes the specification in between: no reason to stop.
    let spec = serde_json::to_value(world.fresh(&dev).await).unwrap();
    world.edit(&spec, |object| object["spec"]["suspend"] = json!(true)).await;
    first.write(&world.cluster, status("Converging", 2)).await.unwrap();
    assert_eq!(stored(&world, &dev).await["phase"], "Converging");
    assert!(world.fresh(&dev).await.spec.suspend);

    // What is stored already is not written again.
    let before = world.fresh(&dev).await.metadata.resource_version;
    first.write(&world.cluster, status("Converging", 2)).await.unwrap();
    assert_eq!(world.fresh(&dev).await.metadata.resource_version, before);

    let another: Cluster = world.another_agent().await;
    let mut second = StatusWriter::new(&world.fresh(&dev).await);
    second.write(&another, status("Canary", 3)).await.unwrap();
    let error = first.write(&world.cluster, status("Observing", 5)).await.unwrap_err();
    assert!(matches!(&error, Error::Superseded(key) if key == "holdfast-system/dev"), "{error}");
    assert_eq!(stored(&world, &dev).await["phase"], "Canary");
    second.write(&another, status("Observing", 4)).await.unwrap();
}

#[tokio::test]
async fn an_environment_that_was_made_anew_is_another_one() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let mut writer = StatusWriter::new(&dev);
    let environments: Api<Environment> = Api::namespaced(world.client.clone(), dev.namespace());
    environments.delete("dev", &Default::default()).await.unwrap();
    world.environment(Environment::test("dev")).await;
    let error = writer.write(&world.cluster, status("Applying", 1)).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn an_event_is_told_once() {
    let world = World::new().await;
    let dev = world.environment(Environment::test("dev")).await;
    let notice = EnvironmentNotice {
        key: "1".into(),
        warning: false,
        reason: "Settled".into(),
        action: "Settled".into(),
        note: "everything is out".into(),
    };
    world.cluster.tell(&dev, &notice).await.unwrap();
    world.cluster.tell(&dev, &notice).await.unwrap();
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(world.client.clone(), dev.namespace());
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].regarding.as_ref().unwrap().uid, dev.metadata.uid);
    assert_eq!(events[0].note.as_deref(), Some("everything is out"));
}
