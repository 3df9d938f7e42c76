//! Releases that go badly.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use playground::shop;
use tests::{Site, World};

async fn image(world: &World) -> anyhow::Result<String> {
    let deployments: Api<Deployment> =
        Api::namespaced(world.client().clone(), &world.namespace(shop::NAMESPACE));
    let spec = deployments.get(shop::DEPLOYMENT).await?.spec.context("a specification")?;
    let pod = spec.template.spec.context("a pod's specification")?;
    pod.containers.first().and_then(|container| container.image.clone()).context("an image")
}

pub async fn a_version_that_fails_requests_is_undone_and_blocked(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    let traffic = world.deploy_shop().await?;
    let good = image(&world).await?;
    let before = traffic.tally();
    let (version, commit) = world.release(|text| shop::with_fault(&text, 50))?;
    world.until_phase(shop::NAME, "RolledBack").await?;
    ensure!(image(&world).await? == good);

    let seen = traffic.tally().since(&before);
    let bad = seen.by_version.get(&version).copied().unwrap_or_default();
    ensure!(bad.failed > 0, "the canary took traffic: {seen}");
    ensure!(seen.failed == bad.failed, "nobody else failed: {seen}");
    ensure!(seen.share_of(&version) < 0.5, "most customers never saw it: {:?}", seen.by_version);

    let rollout = world.rollout(shop::NAME).await?;
    ensure!(
        rollout.blocked.iter().any(|blocked| blocked.revision.commit == commit.id),
        "{:?}",
        rollout.blocked
    );
    world.until_event(shop::NAME, &["error-rate"]).await?;
    world.log().line_with(&["error-rate"], std::time::Duration::from_secs(10)).await?;

    // An unrelated commit does not smuggle the blocked bundle back.
    world.repository.write("README.md", "unrelated\n")?;
    world.repository.commit_and_push("Unrelated")?;
    world.sync(shop::NAME).await?;
    world.until_told(shop::NAME, &["waits", "failed"]).await?;
    ensure!(image(&world).await? == good);

    // A different bundle lifts nothing and needs no permission: it is simply deployed.
    let (_, fixed) = world.release(|text| Ok(shop::without_fault(&text)))?;
    world.until_ready(shop::NAME, &fixed.id).await?;
    world.stop().await;
    Ok(())
}

pub async fn a_version_that_never_gets_ready_is_undone(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    world.apply_dev(|object| object["spec"]["rollout"]["readyTimeout"] = "20s".into()).await?;
    let traffic = world.traffic()?;
    world.until_ready(shop::NAME, &world.repository.tip()?.id).await?;
    let good = image(&world).await?;
    let before = traffic.tally();
    // There is no program for this image: the pods wait with ImagePullBackOff.
    world.release(|text| {
        Ok(text.replace(
            "  - name: ghcr.io/dhakacart/backend\n",
            "  - name: ghcr.io/dhakacart/backend\n    newName: ghcr.io/dhakacart/nowhere\n",
        ))
    })?;
    world.until_phase(shop::NAME, "RolledBack").await?;
    ensure!(image(&world).await? == good);
    let seen = traffic.tally().since(&before);
    ensure!(seen.failed == 0, "{seen}");
    world.until_told(shop::NAME, &["nowhere"]).await?;
    world.stop().await;
    Ok(())
}
