//! Environments that wait for others.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;
use tests::{Options, Site, World};

pub async fn prod_gets_what_staging_has_had_for_a_while_and_waits_for_what_it_builds_on(
    site: Site,
) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["staging", "prod", "base"], Options::default()).await?;
    let mut prod = world.small_environment("prod");
    prod["spec"]["dependsOn"] = json!([{"name": "base"}]);
    prod["spec"]["rollout"] = json!({"after": [{"name": "staging", "soak": "2s"}]});
    playground::environment::apply(world.client(), &prod).await?;
    world.until_told("prod", &["waits for the environment", "base", "does not exist"]).await?;
    playground::environment::apply(world.client(), &world.small_environment("base")).await?;
    world.until_told("prod", &["waits for the environment", "staging", "does not exist"]).await?;
    playground::environment::apply(world.client(), &world.small_environment("staging")).await?;
    let first = world.repository.tip()?;
    world.until_ready("prod", &first.id).await?;

    // One commit for both: prod follows when staging has had it for the soak.
    for name in ["staging", "prod"] {
        world.repository.edit(&format!("{name}/config.yaml"), |text| Ok(text.replace("\"1\"", "\"2\"")))?;
    }
    let second = world.repository.commit_and_push("Change both")?;
    world.until_told("prod", &["settled", "staging", "until"]).await?;
    let begin = Instant::now();
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("prod"));
    let data = maps.get("prod").await?.data.unwrap_or_default();
    ensure!(data.get("value").map(String::as_str) == Some("1"), "prod waits: {data:?}");
    world.until_ready("prod", &second.id).await?;
    println!("prod followed {} after it was seen waiting", tests::took(begin));
    let settled = world.rollout("staging").await?.settled_at.context("staging settled")?;
    let followed = world.rollout("prod").await?.settled_at.context("prod settled")?;
    let soaked = followed.duration_since(settled).unsigned_abs();
    ensure!(soaked >= Duration::from_secs(2), "prod came {soaked:?} after staging");

    // What does not come to staging does not come to prod.
    world.repository.edit("prod/config.yaml", |text| Ok(text.replace("\"2\"", "\"3\"")))?;
    world.repository.write("staging/broken.yaml", "kind: [\n")?;
    world.repository.commit_and_push("Break staging")?;
    world.until_told("prod", &["staging", "does not render", "staging/broken.yaml:"]).await?;
    world.repository.remove("staging/broken.yaml")?;
    let third = world.repository.commit_and_push("Mend staging")?;
    // Staging has had what this commit gives it for long.
    world.until_ready("prod", &third.id).await?;
    world.stop().await;
    Ok(())
}
