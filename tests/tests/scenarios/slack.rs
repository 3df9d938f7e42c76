//! A Slack in trouble: nothing waits for it, and no outcome is lost.

use std::time::Duration;

use anyhow::{Context, ensure};
use playground::slack::{Fault, Message};
use tests::{Options, Site, World};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a message whose text or blocks hold all of `words`.
async fn message_with(world: &World, words: &[&str]) -> anyhow::Result<Message> {
    let mut changes = world.slack.changes();
    let wait = async {
        loop {
            changes.borrow_and_update();
            let found = world.slack.messages().into_iter().find(|message| {
                let text = format!("{} {}", message.text, message.blocks);
                words.iter().all(|word| text.contains(word))
            });
            if let Some(message) = found {
                return Ok(message);
            }
            changes.changed().await.context("the endpoint is gone")?;
        }
    };
    let shown = || playground::slack::conversation(&world.slack.messages(), 50);
    tokio::time::timeout(PATIENCE, wait)
        .await
        .with_context(|| format!("no message with {words:?}:\n{}", shown()))?
}

pub async fn refusals_and_rate_limits_delay_messages_and_nothing_else(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let faults = [Fault::RateLimited(1), Fault::Broken, Fault::RateLimited(1)];
    world.slack.fail_next(faults);
    let object = world.small_environment("app");
    playground::environment::apply(world.client(), &object).await?;
    world.until_ready("app", &world.repository.tip()?.id).await?;
    let message = message_with(&world, &["settled"]).await?;
    ensure!(message.channel == "#deploys");
    world.stop().await;
    Ok(())
}

pub async fn a_refusal_is_told_where_people_look_next(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    // Enough of them for every attempt during the test.
    world.slack.fail_next(std::iter::repeat_n(Fault::NotOk("channel_not_found".into()), 1000));
    let object = world.small_environment("app");
    playground::environment::apply(world.client(), &object).await?;
    world.until_ready("app", &world.repository.tip()?.id).await?;
    let message = world.until_told("app", &["channel_not_found"]).await?;
    println!("{message}");
    world.log().line_with(&["channel_not_found"], PATIENCE).await?;
    ensure!(world.slack.messages().is_empty());
    world.stop().await;
    Ok(())
}
