//! Rollouts step by step, without a server: each plan is carried out on plain values.

use std::collections::BTreeMap;

use super::plan::{Plan, Write, plan};
use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// A Deployment with its ReplicaSets in a world where pods become what the test says.
struct World {
    deployment: Deployment,
    sets: BTreeMap<String, ReplicaSet>,
    now: Timestamp,
    created: i64,
}

impl World {
    fn new(spec: Value) -> World {
        let mut world = World {
            deployment: serde_json::from_value(json!({
                "metadata": {"name": "shop", "namespace": "dev", "uid": "d", "generation": 1},
                "spec": {"selector": {"matchLabels": {"app": "shop"}},
                         "progressDeadlineSeconds": 600,
                         "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": []}}},
            }))
            .unwrap(),
            sets: BTreeMap::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            created: 0,
        };
        world.edit(spec);
        world
    }

    /// Merges into the spec, as an apply would.
    fn edit(&mut self, patch: Value) {
        fn merge(into: &mut Value, from: Value) {
            match (into, from) {
                (Value::Object(into), Value::Object(from)) => {
                    for (key, value) in from {
                        merge(into.entry(key).or_insert(Value::Null), value);
                    }
                }
                (into, from) => *into = from,
            }
        }
        let mut value = serde_json::to_value(&self.deployment).unwrap();
        merge(&mut value, json!({"spec": patch}));
        self.deployment = serde_json::from_value(value).unwrap();
        let generation = &mut self.deployment.metadata.generation;
        *generation = generation.map(|number| number + 1);
    }

    fn image(&mut self, image: &str) {
        self.edit(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
    }

    fn step(&mut self) -> Plan {
        let plan = plan(&self.deployment, self.sets.values().cloned().collect(), &[], self.now);
        for write in &plan.writes {
            match write.clone() {
                Write::Create(mut set) => {
                    self.created += 1;
                    let at = self.now.as_second() + self.created;
                    set.metadata.creation_timestamp = Some(Time(Timestamp::from_second(at).unwrap()));
                    set.metadata.uid = set.metadata.name.clone();
                    self.sets.insert(meta::name(set.as_ref()).to_owned(), *set);
                }
                Write::Update(set) => {
                    self.sets.insert(meta::name(set.as_ref()).to_owned(), *set);
                }
                Write::Delete(set) => {
                    self.sets.remove(meta::name(set.as_ref()));
                }
                Write::Revision(number) => {
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(revision::REVISION.to_owned(), number);
                }
            }
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    /// Every ReplicaSet has its pods, ready; those of a set with a large minReadySeconds are not available.
    fn pods_ready(&mut self) {
        for set in self.sets.values_mut() {
            let spec = set.spec.as_ref().unwrap();
            let size = spec.replicas.unwrap();
            let available = if spec.min_ready_seconds.unwrap_or(0) > 0 { 0 } else { size };
            set.status = Some(k8s_openapi::api::apps::v1::ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(size),
                available_replicas: Some(available),
                ..Default::default()
            });
        }
    }

    /// Sizes by image, for comparison.
    fn sizes(&self) -> BTreeMap<String, i32> {
        self.sets
            .values()
            .map(|set| {
                let spec = set.spec.as_ref().unwrap();
                let image =
                    spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone();
                (image.unwrap(), spec.replicas.unwrap())
            })
            .collect()
    }

    fn size(&self, image: &str) -> i32 {
        self.sizes().get(image).copied().unwrap_or(0)
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.step();
            self.pods_ready();
        }
        assert!(self.step().writes.is_empty(), "a settled world stays as it is");
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone().unwrap())
    }
}

fn deployed(spec: Value) -> World {
    let mut world = World::new(spec);
    world.image("v1");
    world.settle();
    world
}

fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Value {
    json!({"replicas": replicas, "strategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}})
}

#[test]
fn the_first_rollout_completes() {
    let world = deployed(rolling(3, json!(1), json!(0)));
    assert_eq!(world.size("v1"), 3);
    assert_eq!(world.condition("Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[revision::REVISION], "1");
}

#[test]
fn a_rolling_update_stays_within_its_bounds_at_every_step() {
    for (replicas, surge, unavailable) in [
        (3, json!(1), json!(0)),
        (4, json!("25%"), json!("25%")),
        (10, json!("50%"), json!(2)),
        (1, json!(0), json!(1)),
    ] {
        let mut world = deployed(rolling(replicas, surge.clone(), unavailable.clone()));
        world.image("v2");
        let strategy = math::Strategy::of(&world.deployment);
        for _ in 0..60 {
            world.step();
            let total: i32 = world.sizes().values().sum();
            assert!(total <= replicas + strategy.surge(), "{surge} {unavailable}: {total} pods");
            // Old pods are available; of the new ones only those of earlier steps.
            let available: i32 = world
                .sets
                .values()
                .map(|set| {
                    let ready = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
                    ready.min(set.spec.as_ref().unwrap().replicas.unwrap())
                })
                .sum();
            assert!(available >= replicas - strategy.unavailable(), "{surge} {unavailable}: {available}");
            world.pods_ready();
        }
        assert_eq!((world.size("v1"), world.size("v2")), (0, replicas));
        assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    }
}

#[test]
fn a_huge_min_ready_seconds_holds_at_the_surge_and_its_removal_completes() {
    let mut world = deployed(rolling(3, json!(1), json!(0)));
    world.image("v2");
    world.edit(json!({"minReadySeconds": 3600, "progressDeadlineSeconds": 7200}));
    for _ in 0..20 {
        world.step();
        world.pods_ready();
        assert_eq!(world.size("v1"), 3, "no old pod goes");
        assert!(world.size("v2") <= 1);
    }
    assert_eq!(world.size("v2"), 1);
    let status = world.deployment.status.clone().unwrap();
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(4), Some(3)));
    assert_eq!((status.updated_replicas, status.unavailable_replicas), (Some(1), Some(1)));
    world.edit(json!({"minReadySeconds": 0, "progressDeadlineSeconds": 600}));
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 3));
}

#[test]
fn an_old_template_gets_its_replica_set_back_with_a_new_revision() {
    let mut world = deployed(rolling(3, json!(1), json!(0)));
    world.image("v2");
    world.settle();
    world.image("v1");
    world.settle();
    assert_eq!(world.sizes(), BTreeMap::from([("v1".to_owned(), 3), ("v2".to_owned(), 0)]));
    let revisions: Vec<i64> = world.sets.values().map(revision::of).collect();
    assert!(revisions.contains(&3) && revisions.contains(&2), "{revisions:?}");
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[revision::REVISION], "3");
}

#[test]
fn a_rollout_that_stops_moving_misses_its_deadline() {
    let mut world = deployed(rolling(3, json!(1), json!(0)));
    world.edit(json!({"progressDeadlineSeconds": 60}));
    world.image("bad");
    let plan = world.step();
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetCreated".into()));
    assert_eq!(plan.again.unwrap().as_secs(), 61);
    world.now = Timestamp::from_second(world.now.as_second() + 61).unwrap();
    world.step();
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.size("v1"), 3);
    assert_eq!(world.step().again, None);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = deployed(rolling(3, json!(1), json!(0)));
    world.edit(json!({"paused": true, "replicas": 5}));
    world.image("v2");
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (5, 0));
    assert_eq!(world.condition("Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    world.edit(json!({"paused": false}));
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 5));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportion() {
    let mut world = deployed(rolling(10, json!(3), json!(2)));
    world.image("v2");
    world.step();
    world.step();
    world.step();
    // The picture of the Kubernetes documentation: 8 old and 5 new of 10+3, scaled to 15.
    assert_eq!((world.size("v1"), world.size("v2")), (8, 5));
    world.edit(json!({"replicas": 15}));
    world.step();
    assert_eq!((world.size("v1"), world.size("v2")), (11, 7));
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut world = deployed(json!({"replicas": 2, "strategy": {"type": "Recreate"}}));
    let old = world.sets.values().next().unwrap().clone();
    world.image("v2");
    world.step();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 0));
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({"metadata": {
        "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [serde_json::to_value(meta::controlled_by(&old)).unwrap()]}}))
    .unwrap();
    let sets: Vec<_> = world.sets.values().cloned().collect();
    let held = plan(&world.deployment, sets, &[std::sync::Arc::new(pod)], world.now);
    assert!(held.writes.is_empty());
    world.settle();
    assert_eq!((world.size("v1"), world.size("v2")), (0, 2));
}

#[test]
fn history_beyond_the_limit_is_deleted_oldest_first() {
    let mut world = deployed(json!({"replicas": 1, "revisionHistoryLimit": 2}));
    for image in ["v2", "v3", "v4", "v5"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.sizes().into_keys().collect::<Vec<_>>(), ["v3", "v4", "v5"]);
}

#[test]
fn unhealthy_old_pods_go_before_healthy_ones() {
    let mut world = deployed(rolling(3, json!(1), json!(1)));
    world.image("bad");
    world.step();
    // The second version never becomes available.
    for set in world.sets.values_mut() {
        let status = set.status.get_or_insert_default();
        status.replicas = set.spec.as_ref().unwrap().replicas.unwrap();
        if set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0]
            .image
            .as_deref()
            == Some("bad")
        {
            status.available_replicas = Some(0);
        }
    }
    let bad = world.size("bad");
    assert!(bad > 0);
    world.image("good");
    world.step();
    world.step();
    assert_eq!(world.size("bad"), 0, "{:?}", world.sizes());
    assert!(world.size("v1") >= 2);
}

#[test]
fn absurd_numbers_are_survived() {
    let mut world = World::new(rolling(i32::MAX, json!("1000%"), json!("100%")));
    world.image("v1");
    world.step();
    world.pods_ready();
    world.image("v2");
    world.step();
    world.edit(json!({"replicas": -5, "minReadySeconds": i32::MAX, "progressDeadlineSeconds": -1}));
    world.step();
    world.edit(json!({"replicas": i32::MAX, "paused": true}));
    world.step();
    assert_eq!(world.deployment.status.unwrap().observed_generation, world.deployment.metadata.generation);
}
