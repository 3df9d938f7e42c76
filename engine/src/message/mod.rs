//! What people are told, as data: conditions, Kubernetes events, Slack messages.
//!
//! Everything here is derived from the rollout's state and its transitions, in one place, so that no path
//! can be silent.

mod condition;
mod event;
mod slack;
mod story;

pub use condition::{Condition, conditions, delivered, summary};
pub use event::{KubernetesEvent, kubernetes_event};
pub use slack::{blocks, detail, fallback, webhook_text};
pub use story::{Story, Tone};

/// Cuts a text at a character boundary, so that it has at most `bytes` bytes, and shows that it was cut.
pub fn shorten(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
