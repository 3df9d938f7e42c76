//! Metrics that say nothing: only evidence convicts, and only evidence promotes.

use anyhow::ensure;
use playground::shop;
use serde_json::json;
use tests::{Site, World};

/// Deploys with good gates, then has the gate ask for `scrape`, releases, and expects the canary to hold.
async fn holds(site: Site, scrape: serde_json::Value) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    let traffic = world.deploy_shop().await?;
    world
        .apply_dev(|object| {
            let gate = &mut object["spec"]["rollout"]["gates"][0];
            gate["query"]["scrape"] = scrape;
            gate["duration"] = json!("2s");
        })
        .await?;
    let before = traffic.tally();
    let (_, commit) = world.release(Ok)?;
    let message = world
        .until(shop::NAME, "a canary that holds because its gates cannot decide", |seen| {
            let ready = seen.and_then(|environment| environment.status.as_ref()?.condition("Reconciling"));
            match ready {
                Some(condition) if condition.reason == "Undecided" => {
                    playground::watch::Check::Met(condition.message.clone())
                }
                _ => playground::watch::Check::Not(playground::environment::described(seen)),
            }
        })
        .await?;
    println!("{message}");
    world.until_event(shop::NAME, &["error-rate"]).await?;
    let rollout = world.rollout(shop::NAME).await?;
    ensure!(rollout.target.is_some_and(|target| target.revision.commit == commit.id));
    ensure!(rollout.blocked.is_empty(), "nothing is convicted without evidence: {:?}", rollout.blocked);
    ensure!(traffic.tally().since(&before).failed == 0);
    world.stop().await;
    Ok(())
}

pub async fn pods_without_metrics_hold_the_canary(site: Site) -> anyhow::Result<()> {
    holds(
        site,
        json!({
            "port": 5000, "path": "/nothing-here",
            "ratio": {"part": "http_requests_total{code=~\"5..\"}", "whole": "http_requests_total"},
        }),
    )
    .await
}

pub async fn a_share_of_nothing_holds_the_canary(site: Site) -> anyhow::Result<()> {
    // Nothing is ever counted by these names: 0 / 0 is NaN, and NaN is no evidence.
    holds(
        site,
        json!({
            "port": 5000, "path": "/metrics",
            "ratio": {"part": "no_such_total{code=~\"5..\"}", "whole": "no_such_total"},
        }),
    )
    .await
}
