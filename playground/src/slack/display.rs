//! Messages as a person sees them in the channel.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::Message;

/// The channel from top to bottom: each message with its thread below it, at most `limit` messages and
/// `limit` replies each, the newest ones.
pub fn conversation(messages: &[Message], limit: usize) -> String {
    let mut out = String::new();
    let top: Vec<&Message> = messages.iter().filter(|message| message.thread_ts.is_none()).collect();
    let mut channel = None;
    for message in &top[top.len().saturating_sub(limit)..] {
        if channel != Some(&message.channel) {
            channel = Some(&message.channel);
            let name = message.channel.trim_start_matches('#');
            let _ = writeln!(out, "#{name}");
        }
        entry(&mut out, message, "  ", &time(message));
        let replies: Vec<&Message> = messages
            .iter()
            .filter(|reply| {
                reply.thread_ts.as_deref() == Some(message.ts.as_str()) && reply.channel == message.channel
            })
            .collect();
        let from = replies.len().saturating_sub(limit);
        if from > 0 {
            let _ = writeln!(out, "    ↳ {from} earlier replies");
        }
        for reply in &replies[from..] {
            // Its place says when; details carry their own time as well.
            entry(&mut out, reply, "    ↳ ", "");
        }
    }
    out
}

/// When a message was posted, in UTC.
fn time(message: &Message) -> String {
    message.posted.to_zoned(TimeZone::UTC).strftime("%H:%M:%S  ").to_string()
}

fn entry(out: &mut String, message: &Message, margin: &str, time: &str) {
    let edited = match message.edits {
        0 => String::new(),
        1 => " (edited)".to_owned(),
        times => format!(" (edited {times} times)"),
    };
    let body = body(message);
    let mut lines = body.lines();
    let _ = writeln!(out, "{margin}{time}{}{edited}", lines.next().unwrap_or_default());
    let indent = " ".repeat(margin.chars().count() + time.len());
    for line in lines {
        let _ = writeln!(out, "{indent}{line}");
    }
}

/// What the channel shows: the blocks if there are any, otherwise the text.
fn body(message: &Message) -> String {
    let shown: Vec<String> = message
        .blocks
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|block| {
            let listed = |name: &str| block.get(name).and_then(Value::as_array).into_iter().flatten();
            // A field is a name with its value below; side by side it takes one line.
            let fields = listed("fields").filter_map(words).map(|field| field.replacen('\n', ": ", 1));
            let others = block.get("text").into_iter().chain(listed("elements")).filter_map(words);
            others.chain(fields).collect::<Vec<_>>()
        })
        .collect();
    if shown.is_empty() { readable(&message.text) } else { shown.join("\n") }
}

/// The text of a text object, or of an element that holds one (a button).
fn words(object: &Value) -> Option<String> {
    let text = match object.get("text")? {
        Value::String(text) => text,
        nested => nested.get("text")?.as_str()?,
    };
    Some(readable(text))
}

/// Slack's mrkdwn as plain words: links by their label, emphasis without its marks, emoji as themselves,
/// entities resolved (<https://docs.slack.dev/messaging/formatting-message-text>).
pub fn readable(mrkdwn: &str) -> String {
    let mut out = String::with_capacity(mrkdwn.len());
    let mut rest = mrkdwn;
    while let Some(at) = rest.find(['<', ':', '*']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let mark = &from[..1];
        let closing = if mark == "<" { ">" } else { mark };
        let inner = from[1..].split_once(closing);
        rest = match inner {
            Some((link, after)) if mark == "<" && !link.contains('\n') => {
                out.push_str(link.rsplit_once('|').map_or(link, |(_, label)| label));
                after
            }
            Some((name, after)) if mark == ":" && emoji(name).is_some() => {
                out.push_str(emoji(name).unwrap_or_default());
                after
            }
            Some((strong, after))
                if mark == "*"
                    && !strong.is_empty()
                    && !strong.contains('\n')
                    && !strong.starts_with(' ') =>
            {
                out.push_str(strong);
                after
            }
            _ => {
                out.push_str(mark);
                &from[1..]
            }
        };
    }
    out.push_str(rest);
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// The emoji that deployments use.
fn emoji(name: &str) -> Option<&'static str> {
    Some(match name {
        "white_check_mark" | "heavy_check_mark" => "✅",
        "x" => "❌",
        "warning" => "⚠️",
        "rocket" => "🚀",
        "leftwards_arrow_with_hook" => "↩️",
        "rewind" => "⏪",
        "hourglass_flowing_sand" | "hourglass" => "⏳",
        "no_entry" => "⛔",
        "no_entry_sign" => "🚫",
        "octagonal_sign" => "🛑",
        "baby_chick" | "hatched_chick" | "bird" => "🐤",
        "mag" => "🔍",
        "wrench" => "🔧",
        "rotating_light" => "🚨",
        "arrows_counterclockwise" => "🔄",
        "large_blue_circle" => "🔵",
        "large_green_circle" => "🟢",
        "red_circle" => "🔴",
        "large_yellow_circle" => "🟡",
        "raised_hand" | "hand" => "✋",
        "double_vertical_bar" => "⏸️",
        "information_source" => "ℹ️",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn mrkdwn_becomes_words() {
        for (mrkdwn, words) in [
            ("*dev* is live", "dev is live"),
            ("2 * 3 * 4", "2 * 3 * 4"),
            ("see <http://a/b|the commit>", "see the commit"),
            ("see <http://a/b>", "see http://a/b"),
            (":rocket: at 10:42:01", "🚀 at 10:42:01"),
            ("a &lt;b&gt; &amp;amp;", "a <b> &amp;"),
            ("open < and : and *", "open < and : and *"),
            ("", ""),
        ] {
            assert_eq!(readable(mrkdwn), words);
        }
    }

    #[test]
    fn threads_stand_below_their_message() {
        let message = |ts: &str, thread: Option<&str>, text: &str| Message {
            channel: "#deploys".into(),
            ts: ts.into(),
            thread_ts: thread.map(str::to_owned),
            text: text.into(),
            blocks: Value::Null,
            edits: 0,
            posted: Timestamp::UNIX_EPOCH,
        };
        let mut first = message("1.0", None, "unused");
        first.edits = 2;
        first.blocks = json!([
            {"type": "section", "text": {"type": "mrkdwn", "text": "*dev* is live\nmain@1"}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "by ada"}]},
        ]);
        let shown =
            conversation(&[first, message("2.0", None, "next"), message("3.0", Some("1.0"), "canary")], 10);
        let expected = "#deploys\n  00:00:00  dev is live\n            main@1\n            by ada\n    \
                        ↳ canary\n  00:00:00  next\n"
            .replace("dev is live\n", "dev is live (edited 2 times)\n");
        assert_eq!(shown, expected);
    }
}
