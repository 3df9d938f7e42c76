//! Stories in Slack's words: Block Kit and mrkdwn.
//!
//! Formats after <https://api.slack.com/reference/block-kit/blocks> and
//! <https://api.slack.com/reference/surfaces/formatting>.

use serde_json::{Value, json};

use super::shorten;
use super::story::{Story, Tone};
use crate::gate::GateReport;
use crate::rollout::Release;

/// The blocks of a message: what, who and why, what serves, what next.
pub fn blocks(story: &Story) -> Value {
    let mut fields = Vec::new();
    if let Some(release) = &story.release {
        fields.push(field("Revision", &revision(release)));
        if !release.revision.author.is_empty() {
            fields.push(field("Author", &escape(author(&release.revision.author))));
        }
    }
    let serving =
        story.serving.as_ref().map_or("nothing yet".to_owned(), |serving| escape(&serving.revision.short()));
    fields.push(field("Serving now", &serving));
    fields.push(field("Next", &escape(&story.next)));

    let mut blocks = vec![
        json!({"type": "section", "text": mrkdwn(&format!("{} *{}* {}", sign(story.tone), escape(story.name()), escape(&story.headline)))}),
        json!({"type": "section", "text": mrkdwn(&shorten(&escape(&story.message), 2900))}),
        json!({"type": "section", "fields": fields}),
    ];
    if !story.gates.is_empty() {
        let gates: Vec<String> = story.gates.iter().map(gate).collect();
        blocks.push(json!({"type": "section", "text": mrkdwn(&shorten(&gates.join("\n"), 2900))}));
    }
    let digest = story.release.as_ref().map(|release| release.digest.short()).unwrap_or_default();
    let context = format!("{} · by {} · bundle {digest}", escape(&story.environment), escape(&story.actor));
    blocks.push(json!({"type": "context", "elements": [mrkdwn(&context)]}));
    Value::Array(blocks)
}

/// What notifications and readers without blocks show.
pub fn fallback(story: &Story) -> String {
    let revision = story.release.as_ref().map(|release| release.revision.short()).unwrap_or_default();
    escape(&shorten(&format!("{} {}: {revision} {}", story.name(), story.headline, story.message), 2900))
}

/// A line for the message's thread: when, and what happened.
pub fn detail(story: &Story) -> String {
    shorten(&format!("`{}` {}", story.at.strftime("%H:%M:%S"), escape(&story.message)), 2900)
}

/// The whole story as one text, for webhooks.
pub fn webhook_text(story: &Story) -> String {
    let serving = story.serving.as_ref().map_or("nothing yet".to_owned(), |serving| serving.revision.short());
    escape(&shorten(
        &format!(
            "{} {} {}: {}. Serving now: {serving}. Next: {}",
            sign(story.tone),
            story.name(),
            story.headline,
            story.message,
            story.next
        ),
        2900,
    ))
}

fn sign(tone: Tone) -> &'static str {
    match tone {
        Tone::Moving => ":hourglass_flowing_sand:",
        Tone::Good => ":white_check_mark:",
        Tone::Undone => ":leftwards_arrow_with_hook:",
        Tone::Bad => ":rotating_light:",
    }
}

fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text})
}

fn field(name: &str, value: &str) -> Value {
    mrkdwn(&shorten(&format!("*{name}*\n{value}"), 1900))
}

fn revision(release: &Release) -> String {
    format!("`{}` {}", escape(&release.revision.short()), escape(&release.revision.subject))
}

/// The name without the mail address.
fn author(author: &str) -> &str {
    author.split(" <").next().unwrap_or(author)
}

fn gate(report: &GateReport) -> String {
    let limit = match (report.min, report.max) {
        (Some(min), Some(max)) => format!(", allowed {min} to {max}"),
        (Some(min), None) => format!(", at least {min}"),
        (None, Some(max)) => format!(", at most {max}"),
        (None, None) => String::new(),
    };
    escape(&format!(
        "gate {}: {} ({} samples passed, {} failed{limit})",
        report.name, report.verdict, report.passed, report.failed
    ))
}

/// The three characters that mean something to Slack. User-written text can therefore mention nobody.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
