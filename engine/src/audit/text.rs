//! Records as Git shows them.

use std::collections::BTreeSet;

use super::Record;
use crate::gate::Verdict;
use crate::rollout::{Reason, Release};

/// The message of the commit that holds a record: what `git log` of the audit branch reads like.
///
/// The trailers can be read with `git interpret-trailers`. Texts of others, such as the subject of a
/// source commit, cannot add lines to it.
pub fn commit_message(record: &Record) -> String {
    let mut out = subject(record);
    out.push_str("\n\n");
    if !record.message.is_empty() {
        out.push_str(&wrapped(&one_line(&record.message, 2000), 76));
        out.push_str("\n\n");
    }
    let mut trailer = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{key}: {}\n", one_line(value, 400)));
        }
    };
    trailer("Environment", &record.environment);
    trailer("Record", &record.sequence.to_string());
    if let Some(previous) = &record.previous {
        trailer("Previous-Record", &previous.to_string());
    }
    if let Some(release) = &record.release {
        trailer("Bundle", &release.digest.to_string());
        trailer("Source-Commit", &release.revision.commit);
        trailer("Source-Subject", &release.revision.subject);
        trailer("Source-Author", &release.revision.author);
        trailer("Source-Signer", release.revision.signer.as_deref().unwrap_or_default());
    }
    for gate in &record.gates {
        match &gate.verdict {
            verdict @ (Verdict::Running | Verdict::Passed) => {
                trailer("Gate", &format!("{} {verdict}", gate.name))
            }
            // The message names the gate itself.
            verdict => trailer("Gate", &verdict.to_string()),
        }
    }
    for violation in &record.policies.violations {
        trailer("Policy", &violation.to_string());
    }
    trailer("Actor", &record.actor);
    trailer("Agent-Version", &record.agent_version);
    out
}

/// The line that a source commit is annotated with.
pub fn note_line(record: &Record) -> String {
    let digest = record.release.as_ref().map(|release| release.digest.short()).unwrap_or_default();
    let line = format!(
        "{} {} {} {digest} by {} (record {})",
        record.at,
        record.environment,
        words(record.reason),
        record.actor,
        record.sequence
    );
    one_line(&line, 400)
}

/// `prod: settled main@1a2b3c4d5e6f (v1.2.3)`
fn subject(record: &Record) -> String {
    let name = record.environment.rsplit('/').next().unwrap_or_default();
    let mut out = format!("{name}: {}", words(record.reason));
    if let Some(release) = &record.release {
        out.push_str(&format!(" {}", named(release)));
        let serving = record.serving.as_ref().filter(|serving| serving.digest != release.digest);
        if let (Reason::RolledBack, Some(serving)) = (record.reason, serving) {
            out.push_str(&format!(" to {}", named(serving)));
        }
    }
    one_line(&out, 120)
}

fn named(release: &Release) -> String {
    match version(release) {
        Some(version) => format!("{} ({version})", release.revision.short()),
        None => release.revision.short(),
    }
}

/// The tag of the release's images, if all that have one agree.
fn version(release: &Release) -> Option<&str> {
    let tag = |image: &'_ String| -> Option<(usize, usize)> {
        let end = image.find('@').unwrap_or(image.len());
        let start = image[..end].rfind(':')? + 1;
        (!image[start..end].contains('/')).then_some((start, end))
    };
    let tags: BTreeSet<&str> =
        release.images.iter().filter_map(|image| tag(image).map(|(start, end)| &image[start..end])).collect();
    let mut tags = tags.into_iter();
    tags.next().filter(|_| tags.next().is_none())
}

/// `RolledBack` as `rolled back`.
fn words(reason: Reason) -> String {
    let mut out = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// A text of others on one line, and not a long one.
fn one_line(text: &str, bytes: usize) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { ' ' } else { c })
        .collect();
    let clean = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    if clean.len() <= bytes {
        return clean;
    }
    format!("{}…", &clean[..clean.floor_char_boundary(bytes)])
}

/// Breaks a text between words.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}
