//! An agent that is killed in the middle.

use anyhow::ensure;
use playground::shop;
use tests::{Site, World};

pub async fn a_killed_agent_finishes_a_good_rollout_after_its_restart(site: Site) -> anyhow::Result<()> {
    let mut world = World::with_shop(&site).await?;
    let traffic = world.deploy_shop().await?;
    let before = traffic.tally();
    let (version, commit) = world.release(Ok)?;
    world.until_phase(shop::NAME, "Canary").await?;
    world.kill_agent().await?;
    world.start_agent().await?;
    world.until_ready(shop::NAME, &commit.id).await?;
    let seen = traffic.tally().since(&before);
    ensure!(seen.failed == 0, "{seen}");
    ensure!(seen.by_version.contains_key(&version));
    told_once(&world, &version)?;
    world.stop().await;
    Ok(())
}

pub async fn a_killed_agent_undoes_a_bad_rollout_after_its_restart(site: Site) -> anyhow::Result<()> {
    let mut world = World::with_shop(&site).await?;
    let _traffic = world.deploy_shop().await?;
    let (_, commit) = world.release(|text| shop::with_fault(&text, 60))?;
    world.until_phase(shop::NAME, "Canary").await?;
    world.kill_agent().await?;
    world.start_agent().await?;
    world.until_phase(shop::NAME, "RolledBack").await?;
    let rollout = world.rollout(shop::NAME).await?;
    ensure!(
        rollout.blocked.iter().any(|blocked| blocked.revision.commit == commit.id),
        "{:?}",
        rollout.blocked
    );
    world.stop().await;
    Ok(())
}

/// One message per rollout, killed or not: the restarted agent goes on with the message that is there.
fn told_once(world: &World, version: &str) -> anyhow::Result<()> {
    let messages = world.slack.messages();
    let about = messages
        .iter()
        .filter(|message| message.thread_ts.is_none())
        .filter(|message| {
            format!("{} {}", message.text, message.blocks).contains(&format!("Release {version}"))
        })
        .count();
    ensure!(
        about == 1,
        "{about} messages about {version}:\n{}",
        playground::slack::conversation(&messages, 50)
    );
    Ok(())
}
