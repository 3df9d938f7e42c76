//! Kubernetes events about Environments.

use serde_json::json;

use super::error::Error;
use super::lease::micro_time;
use super::request::{Call, Target};
use super::{Cluster, Kind};
use crate::api::Environment;

/// The longest note that the API takes, in characters.
const LONGEST_NOTE: usize = 1024;

/// Something that happened to an Environment, for people who ask `kubectl describe` or `kubectl events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentNotice {
    /// What tells it from the environment's other events, such as the number of the transition: telling
    /// the same one again does nothing.
    pub key: String,
    /// Whether somebody should look.
    pub warning: bool,
    /// Why, as a word in CamelCase.
    pub reason: String,
    /// What was done, as a word in CamelCase.
    pub action: String,
    /// In a sentence.
    pub note: String,
}

impl Cluster {
    /// Writes an event (`events.k8s.io/v1`) about an Environment.
    ///
    /// # Errors
    /// When the cluster cannot be written to.
    pub async fn tell(&self, environment: &Environment, notice: &EnvironmentNotice) -> Result<(), Error> {
        let now = micro_time();
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": event_name(environment, &notice.key),
                "namespace": environment.namespace(),
            },
            "eventTime": now,
            "type": if notice.warning { "Warning" } else { "Normal" },
            "reason": clipped(&notice.reason, 128),
            "action": clipped(&notice.action, 128),
            "note": clipped(&notice.note, LONGEST_NOTE),
            "reportingController": "holdfast.dev/agent",
            "reportingInstance": clipped(self.identity(), 128),
            "regarding": {
                "apiVersion": "holdfast.dev/v1alpha1",
                "kind": "Environment",
                "namespace": environment.namespace(),
                "name": environment.name(),
                "uid": environment.metadata.uid,
                "resourceVersion": environment.metadata.resource_version,
            },
        });
        let kind = Kind::known("events.k8s.io/v1", "Event", "events");
        let target = Target::collection(&kind, Some(environment.namespace()));
        match self.call(Call::create(target, &event)).await {
            Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A name that follows from what is told, so that telling it twice makes one event.
fn event_name(environment: &Environment, key: &str) -> String {
    let uid = environment.metadata.uid.as_deref().unwrap_or_default();
    let told = engine::object::Digest::of_bytes(format!("{uid}/{key}").as_bytes());
    let name: String = environment.name().chars().take(200).collect();
    format!("{name}.{}", told.short())
}

fn clipped(text: &str, most: usize) -> String {
    // The API counts bytes.
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most - '…'.len_utf8());
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_fit() {
        assert_eq!(clipped("short", 10), "short");
        let long = clipped(&"ü".repeat(1000), LONGEST_NOTE);
        assert!(long.len() <= LONGEST_NOTE && long.ends_with('…'));
    }

    #[test]
    fn an_event_has_one_name() {
        let environment = Environment::test("dev");
        assert_eq!(event_name(&environment, "7"), event_name(&environment, "7"));
        assert_ne!(event_name(&environment, "7"), event_name(&environment, "8"));
    }
}
