//! The custom resource and the installation as an API server sees them.

use agent::api::{Environment, install};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::World;

#[tokio::test]
async fn an_api_server_accepts_the_installation() {
    let world = World::new().await;
    for manifest in install::manifests("ghcr.io/dhakacart/holdfast:v1").unwrap() {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("holdfast").force().validation_strict();
        let applied = world.api(&manifest).patch(name, &params, &Patch::Apply(&manifest)).await;
        assert!(applied.is_ok(), "{} {name}: {applied:?}", manifest["kind"]);
    }
}

#[tokio::test]
async fn the_schema_fills_in_what_is_left_out() {
    let world = World::new().await;
    let least = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "Environment",
        "metadata": {"name": "dev", "namespace": "shop"},
        "spec": {
            "source": {"url": "git@example.org:acme/shop.git", "branch": "main"},
            "rollout": {"gates": [{"name": "g", "query": {"promql": "up"}, "max": 1}]}
        }
    });
    let stored = world.create(least.clone()).await;
    let spec = &stored["spec"];
    assert_eq!((&spec["source"]["path"], &spec["source"]["interval"]), (&json!("."), &json!("30s")));
    assert_eq!(
        (&spec["prune"], &spec["drift"], &spec["conflicts"]),
        (&json!(true), &json!("Correct"), &json!("Take"))
    );
    assert_eq!(spec["deletionBudget"], json!({"objects": 10, "percent": 25}));
    assert_eq!(
        (&spec["rollout"]["readyTimeout"], &spec["rollout"]["canary"]["pods"]),
        (&json!("5m"), &json!(0))
    );
    assert_eq!(spec["rollout"]["gates"][0]["failures"], json!({"of": 5, "at": 3}));
    // The agent reads the same with and without a server's help.
    let mut read: Environment = serde_json::from_value(least).unwrap();
    let filled: Environment = serde_json::from_value(stored).unwrap();
    read.metadata = filled.metadata.clone();
    assert_eq!(read, filled);
}

#[tokio::test]
async fn the_schema_refuses_what_makes_no_sense() {
    let world = World::new().await;
    let gate = |change: Value| {
        let mut gate = json!({"name": "g", "query": {"promql": "up"}, "max": 1});
        for (key, value) in change.as_object().unwrap() {
            gate[key] = value.clone();
        }
        if gate["max"].is_null() {
            gate.as_object_mut().unwrap().shift_remove("max");
        }
        json!({"rollout": {"gates": [gate]}})
    };
    let source = |source: Value| json!({"source": source});
    let table = [
        (
            source(json!({"url": "https://example.org/r", "branch": "a", "commit": "b".repeat(40)})),
            "exactly one of branch",
        ),
        (source(json!({"url": "https://example.org/r"})), "exactly one of branch"),
        (source(json!({"url": "/etc/passwd", "branch": "a"})), "spec.source.url"),
        (
            source(json!({"url": "https://example.org/r", "branch": "a", "path": "../x"})),
            "inside the repository",
        ),
        (
            source(json!({"url": "https://example.org/r", "branch": "a", "interval": "30"})),
            "spec.source.interval",
        ),
        (json!({"drift": "Sometimes"}), "spec.drift"),
        (json!({"deletionBudget": {"percent": 101}}), "spec.deletionBudget.percent"),
        (gate(json!({"max": null})), "max or min"),
        (gate(json!({"min": 2})), "no value can pass"),
        (
            gate(
                json!({"query": {"promql": "up", "scrape": {"port": 1, "ratio": {"part": "a", "whole": "b"}}}}),
            ),
            "promql and scrape",
        ),
        (gate(json!({"failures": {"of": 2, "at": 3}})), "must not be larger"),
        (gate(json!({"duration": "forever"})), "duration"),
        (json!({"rollout": {"windows": [{"for": "1h"}]}}), "allow and deny"),
    ];
    let environments: Api<DynamicObject> = world.api(&json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "Environment",
        "metadata": {"name": "bad", "namespace": "shop"}
    }));
    for (change, expected) in table {
        let mut spec = json!({"source": {"url": "https://example.org/r", "branch": "main"}});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let bad = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "Environment",
            "metadata": {"name": "bad", "namespace": "shop"}, "spec": spec
        });
        let bad: DynamicObject = serde_json::from_value(bad).unwrap();
        let error = environments.create(&PostParams::default(), &bad).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}
