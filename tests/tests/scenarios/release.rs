//! Releases that go well.

use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use playground::shop;
use tests::{Site, World};

pub async fn a_first_deploy_and_a_merge_lose_no_request(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    let traffic = world.deploy_shop().await?;
    let pods: Api<Pod> = Api::namespaced(world.client().clone(), &world.namespace(shop::NAMESPACE));
    let pods = pods.list(&ListParams::default().labels(shop::SELECTOR)).await?;
    let mut addresses: Vec<_> = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
    addresses.sort();
    addresses.dedup();
    ensure!(addresses.len() >= 3, "each pod has an address of its own: {addresses:?}");

    let before = traffic.tally();
    let begin = Instant::now();
    let (version, commit) = world.release(Ok)?;
    world.until_ready(shop::NAME, &commit.id).await?;
    println!("push to Ready: {}", tests::took(begin));
    let seen = traffic.tally().since(&before);
    ensure!(seen.failed == 0, "{seen}");
    ensure!(seen.by_version.contains_key(&version), "customers see {version}: {:?}", seen.by_version);

    let rollout = world.rollout(shop::NAME).await?;
    let settled = rollout.settled.context("something settled")?;
    ensure!(settled.revision.commit == commit.id);
    ensure!(
        settled.images.iter().any(|image| image.ends_with(&format!(":{version}"))),
        "{:?}",
        settled.images
    );
    world.stop().await;
    Ok(())
}

pub async fn a_commit_that_changes_nothing_of_it_writes_nothing(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    let _traffic = world.deploy_shop().await?;
    let deployments: Api<Deployment> =
        Api::namespaced(world.client().clone(), &world.namespace(shop::NAMESPACE));
    let before = deployments.get(shop::DEPLOYMENT).await?.metadata.generation;
    let settled = world.rollout(shop::NAME).await?.settled;
    world.repository.write("README.md", "Nothing that is deployed.\n")?;
    world.repository.commit_and_push("Explain the repository")?;
    world.sync(shop::NAME).await?;
    ensure!(world.rollout(shop::NAME).await?.settled == settled);
    ensure!(deployments.get(shop::DEPLOYMENT).await?.metadata.generation == before);
    world.stop().await;
    Ok(())
}
