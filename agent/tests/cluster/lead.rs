//! Leader election.

use std::time::Duration;

use agent::cluster::{Election, LeaseTimes};
use tokio::sync::oneshot;

use crate::{PATIENCE, World};

fn quick() -> LeaseTimes {
    LeaseTimes {
        lease: Duration::from_secs(1),
        renew_deadline: Duration::from_millis(600),
        retry: Duration::from_millis(50),
    }
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

#[tokio::test]
async fn one_leads_and_another_takes_over() {
    let world = World::new().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let (election, first) = Election::new("holdfast-system", "holdfast", "a", quick());
    let running = tokio::spawn(election.run(world.cluster.clone(), async { drop(stopped.await) }));
    in_time("the first leads", first.acquired()).await;

    let (election, second) = Election::new("holdfast-system", "holdfast", "b", quick());
    let (_keep, kept) = oneshot::channel::<()>();
    tokio::spawn(election.run(world.another_agent().await, async { drop(kept.await) }));
    // Longer than the lease: the first one renews it.
    let waited = tokio::time::timeout(quick().lease * 2, second.acquired()).await;
    assert!(waited.is_err() && first.is_leader() && !second.is_leader());

    // An orderly end hands over at once.
    stop.send(()).unwrap();
    running.await.unwrap();
    assert!(!first.is_leader());
    in_time("the second leads", second.acquired()).await;
}

#[tokio::test]
async fn a_leader_that_vanished_is_replaced_only_after_its_own_term() {
    let world = World::new().await;
    let (election, first) = Election::new("holdfast-system", "holdfast", "a", quick());
    let running = tokio::spawn(election.run(world.cluster.clone(), std::future::pending()));
    in_time("the first leads", first.acquired()).await;
    let (election, second) = Election::new("holdfast-system", "holdfast", "b", quick());
    tokio::spawn(election.run(world.another_agent().await, std::future::pending()));
    running.abort();
    in_time("the first stops", first.lost()).await;
    assert!(!second.is_leader(), "two leaders at once");
    in_time("the second leads", second.acquired()).await;
    assert!(!first.is_leader());
}
