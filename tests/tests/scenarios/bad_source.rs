//! Repositories and branches in trouble: the cluster keeps what it had, the condition says what and where, and
//! the other environments go on.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use playground::repository::{BRANCH, Repository};
use serde_json::{Value, json};
use tests::{Options, Site, World};

const PATIENCE: Duration = Duration::from_secs(30);

/// A world in which `app` and `other` are deployed.
async fn deployed(site: Site) -> anyhow::Result<World> {
    let options = Options { agent: vec!["--fetch-timeout".into(), "3s".into()] };
    let world = World::with_folders(&site, &["app", "other"], options).await?;
    for name in ["app", "other"] {
        let object = world.small_environment(name);
        playground::environment::apply(world.client(), &object).await?;
        world.until_ready(name, &world.repository.tip()?.id).await?;
    }
    Ok(world)
}

/// Changes the specification of `app`, as a person with `kubectl edit` does.
async fn change(world: &World, spec: Value) -> anyhow::Result<()> {
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    world.environments().patch("app", &by_hand, &Patch::Merge(json!({"spec": spec}))).await?;
    Ok(())
}

/// The three places where trouble is told, and what must not have changed.
async fn told_and_kept(world: &World, words: &[&str]) -> anyhow::Result<()> {
    let message = world.until_told("app", words).await?;
    println!("{message}");
    world.until_event("app", words).await?;
    world.log().line_with(words, PATIENCE).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("app"));
    let data = maps.get("app").await?.data.unwrap_or_default();
    ensure!(data.get("value").map(String::as_str) == Some("1"), "the cluster keeps what it had: {data:?}");
    Ok(())
}

/// `other` still follows its branch.
async fn other_goes_on(world: &World) -> anyhow::Result<()> {
    let text = world.repository.read("other/config.yaml")?;
    world.repository.write("other/config.yaml", &text.replace("\"1\"", "\"2\""))?;
    let commit = world.repository.commit_and_push("Change other")?;
    world.until_ready("other", &commit.id).await
}

pub async fn repositories_that_are_missing_empty_unreachable_or_silent(site: Site) -> anyhow::Result<()> {
    let world = deployed(site).await?;

    let missing = playground::repository::file_url(&world.folder().join("nowhere.git"));
    change(&world, json!({"source": {"url": missing}})).await?;
    told_and_kept(&world, &["nowhere.git"]).await?;

    let empty = Repository::empty(&world.folder().join("empty.git"), &world.folder().join("empty"))?;
    change(&world, json!({"source": {"url": empty.url()}})).await?;
    told_and_kept(&world, &["empty.git", "empty"]).await?;

    // A port that was free a moment ago: the connection is refused.
    let closed = playground::agent_process::free_address()?.to_string();
    change(&world, json!({"source": {"url": format!("http://{closed}/shop.git")}})).await?;
    told_and_kept(&world, &[&closed]).await?;

    let (silent, _server) = tests::silent_server().await?;
    let silent = silent.to_string();
    change(&world, json!({"source": {"url": format!("http://{silent}/shop.git")}})).await?;
    told_and_kept(&world, &[&silent]).await?;
    other_goes_on(&world).await?;

    // Everything is well again as soon as the source is.
    change(&world, json!({"source": {"url": world.repository.url()}})).await?;
    world.until_well("app").await?;
    world.stop().await;
    Ok(())
}

pub async fn a_path_that_is_not_there(site: Site) -> anyhow::Result<()> {
    let world = deployed(site).await?;
    change(&world, json!({"source": {"path": "elsewhere"}})).await?;
    told_and_kept(&world, &["elsewhere"]).await?;
    other_goes_on(&world).await?;
    world.stop().await;
    Ok(())
}

pub async fn a_branch_that_vanished_and_came_back_rewritten(site: Site) -> anyhow::Result<()> {
    let world = deployed(site).await?;
    let first = world.repository.tip()?;
    tests::delete_branch(world.repository.bare(), BRANCH)?;
    told_and_kept(&world, &[BRANCH]).await?;

    // Another history under the same name: it is followed, and recorded as rewritten.
    world.repository.push(false)?;
    world.until_well("app").await?;
    let text = world.repository.read("app/config.yaml")?;
    world.repository.write("app/config.yaml", &text.replace("\"1\"", "\"2\""))?;
    let second = world.repository.commit_and_push("Two")?;
    world.until_ready("app", &second.id).await?;
    world.repository.reset(&first.id)?;
    world.repository.write("app/config.yaml", &text.replace("\"1\"", "\"3\""))?;
    let rewritten = world.repository.commit("Two, rewritten")?;
    world.repository.push(true)?;
    world.until_ready("app", &rewritten.id).await?;
    let rollout = world.rollout("app").await?;
    ensure!(rollout.settled.is_some_and(|settled| settled.revision.forced), "the force-push is recorded");
    world.stop().await;
    Ok(())
}
