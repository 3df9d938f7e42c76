//! Slack: what people were told, and that they were told of each outcome.

use std::time::Instant;

use super::{Error, Stage, unexpected};
use crate::print::counted;
use crate::slack::{Message, conversation};

/// Messages and replies that are shown.
const SHOWN: usize = 12;
/// What people must have been told, as words of the messages, and what each means.
const NEWS: [(&str, &str); 3] = [
    ("settled", "a release that settled"),
    ("rolled back", "the bad release's rollback"),
    ("kustomization.yaml", "the broken commit's file"),
];

pub(super) async fn run(stage: &Stage<'_>) -> Result<(), Error> {
    let Some(slack) = stage.slack else {
        stage
            .printer
            .note("the messages are in the real Slack, where SLACK_CHANNEL or SLACK_WEBHOOK_URL says");
        return Ok(());
    };
    let begin = Instant::now();
    stage.outbox("everything to be delivered to Slack", |outgoing| outgoing.notified).await?;
    let messages = slack.messages();
    if let Some(missing) = missing(&messages) {
        let expected = format!("a message about {missing}");
        return Err(unexpected(expected, conversation(&messages, SHOWN)));
    }
    let threads = messages.iter().filter(|message| message.thread_ts.is_none()).count();
    let edits: u32 = messages.iter().map(|message| message.edits).sum();
    stage.printer.done(
        begin.elapsed(),
        format!(
            "{}, updated in place {edits} times, with {} in their threads",
            counted(threads, "message"),
            counted(messages.len() - threads, "detail")
        ),
    );
    stage.printer.block(conversation(&messages, SHOWN));
    Ok(())
}

/// News that nobody was told.
fn missing(messages: &[Message]) -> Option<&'static str> {
    let told: Vec<String> =
        messages.iter().map(|message| format!("{} {}", message.text, message.blocks)).collect();
    NEWS.into_iter()
        .find(|(words, _)| !told.iter().any(|text| text.to_lowercase().contains(words)))
        .map(|(_, meaning)| meaning)
}
