//! ConfigMaps and Secrets that renders depend on.

use std::time::Duration;

use agent::cluster::{InputKind, InputRef, InputState};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::sync::watch::Receiver;

use super::{PATIENCE, World};

fn value(state: &InputState) -> Option<String> {
    match state {
        InputState::Present(data) => data.get("k").map(|value| String::from_utf8_lossy(value).into_owned()),
        _ => None,
    }
}

async fn until(receiver: &mut Receiver<InputState>, wanted: impl FnMut(&InputState) -> bool) {
    let seen = tokio::time::timeout(PATIENCE, receiver.wait_for(wanted)).await.map(|seen| seen.is_ok());
    assert_eq!(seen, Ok(true), "it stays {:?}", *receiver.borrow());
}

#[tokio::test]
async fn changes_of_what_renders_depend_on_are_told_and_asked_for_once() {
    let world = World::new().await;
    let secret = |value: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "keys", "namespace": "shop"},
            "stringData": {"k": value}
        })
    };
    let input = InputRef { kind: InputKind::Secret, namespace: "shop".into(), name: "keys".into() };
    let mut first = world.cluster.input(&input);
    let mut second = world.cluster.input(&input);
    until(&mut first, |state| *state == InputState::Missing).await;
    world.create(secret("one")).await;
    until(&mut first, |state| value(state).as_deref() == Some("one")).await;
    until(&mut second, |state| value(state).as_deref() == Some("one")).await;
    // Another object of the namespace is nobody's business.
    let mut other = secret("other");
    other["metadata"]["name"] = json!("other");
    world.create(other).await;
    world.edit(&secret("two"), |secret| secret["data"]["k"] = json!("dHdv")).await;
    until(&mut second, |state| value(state).as_deref() == Some("two")).await;
    drop((first, second));
    // Whoever comes after the last one has gone starts anew.
    let mut third = world.cluster.input(&input);
    until(&mut third, |state| value(state).as_deref() == Some("two")).await;
    world.api(&secret("two")).delete("keys", &DeleteParams::default()).await.unwrap();
    until(&mut third, |state| *state == InputState::Missing).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), third.changed()).await.is_err());
}
