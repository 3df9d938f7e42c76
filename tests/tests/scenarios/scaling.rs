//! Load: more pods while customers come, fewer when they are gone.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use playground::shop;
use playground::watch::{self, Check};
use tests::{Site, World};

/// The architecture's target for scaling up.
const A_MINUTE: Duration = Duration::from_secs(60);
/// A window of some seconds, and a step of 15 s for each pod.
const SHRINKING: Duration = Duration::from_secs(180);

/// The base's autoscalers, which dev leaves out, with a shorter memory of the peak: five minutes are long for a test.
const AUTOSCALED: &str = "  - target:
      kind: HorizontalPodAutoscaler
    patch: |
      - {op: replace, path: /spec/behavior/scaleDown/stabilizationWindowSeconds, value: 10}
";

async fn until_pods(world: &World, within: Duration, wanted: impl Fn(i32) -> bool) -> anyhow::Result<i32> {
    let deployments: Api<Deployment> =
        Api::namespaced(world.client().clone(), &world.namespace(shop::NAMESPACE));
    let pods =
        watch::until_one(&deployments, shop::DEPLOYMENT, "another number of ready pods", within, |seen| {
            let ready = seen.and_then(|deployment| deployment.status.as_ref()?.ready_replicas).unwrap_or(0);
            if wanted(ready) { Check::Met(ready) } else { Check::Not(format!("{ready} ready")) }
        });
    Ok(pods.await?)
}

pub async fn more_customers_bring_more_pods_and_fewer_take_them_away(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    world.repository.edit(shop::KUSTOMIZATION, |text| {
        let (before, _) = text.split_once("  # As many pods as Git says").ok_or("dev has its autoscalers")?;
        Ok(format!("{before}{AUTOSCALED}"))
    })?;
    let commit = world.repository.commit_and_push("Scale dev by its use")?;
    let quiet = world.deploy_shop().await?;
    world.until_ready(shop::NAME, &commit.id).await?;
    drop(quiet);
    until_pods(&world, SHRINKING, |ready| ready == 3).await?;

    let crowd = world.traffic_at(16, 900)?;
    let begin = Instant::now();
    let most = until_pods(&world, A_MINUTE, |ready| ready > 3).await?;
    println!("{most} pods {} after the customers came", tests::took(begin));
    let tally = crowd.tally();
    drop(crowd);
    ensure!(tally.failed == 0, "nobody noticed: {tally}");

    let begin = Instant::now();
    until_pods(&world, SHRINKING, |ready| ready == 3).await?;
    println!("3 pods again {} after they left", tests::took(begin));
    // Git says 3 as well; that the number went up was no drift.
    let autoscalers: Api<HorizontalPodAutoscaler> =
        Api::namespaced(world.client().clone(), &world.namespace(shop::NAMESPACE));
    let scaled = autoscalers.get("backend-hpa").await?.status.and_then(|status| status.last_scale_time);
    ensure!(scaled.is_some(), "the autoscaler did it");
    world.stop().await;
    Ok(())
}
