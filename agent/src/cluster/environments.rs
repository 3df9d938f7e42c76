//! The Environments of the cluster, as they come and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::watch::{Seen, Watched};
use super::{Cluster, Kind};
use crate::api::Environment;

/// What happened to an Environment.
#[derive(Debug)]
pub enum EnvironmentEvent {
    /// It is there, or was changed; status writes of this agent come back as such too.
    Applied(Box<Environment>),
    /// It is there but cannot be read: it is older than its schema, or newer than this agent.
    Invalid {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it, with the field named.
        message: String,
    },
    /// It is gone.
    Deleted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// All Environments of the cluster have been told.
    Synced,
}

impl Cluster {
    /// Watches the Environments of a namespace, or of all. The watch ends when the receiver is dropped.
    pub fn environments(&self, namespace: Option<&str>) -> mpsc::Receiver<EnvironmentEvent> {
        let (sender, receiver) = mpsc::channel(64);
        let (raw_sender, mut raw) = mpsc::unbounded_channel();
        let watched = Watched {
            kind: Arc::new(environment_kind()),
            namespace: namespace.map(str::to_owned),
            labels: None,
            ends_with_kind: false,
            fields: None,
        };
        let watch =
            super::watch::watch(self.client().clone(), watched, move |seen| raw_sender.send(seen).is_ok());
        tokio::spawn(async move {
            let fold = async {
                let mut known = Known::default();
                while let Some(seen) = raw.recv().await {
                    for event in known.fold(seen) {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                () = watch => {}
                () = fold => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }
}

pub(crate) fn environment_kind() -> Kind {
    Kind::known("holdfast.dev/v1alpha1", "Environment", "environments")
}

/// Which Environments there are, so that those that vanished during a broken watch are noticed.
#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<(String, String)>,
    listed: BTreeSet<(String, String)>,
}

impl Known {
    fn fold(&mut self, seen: Seen) -> Vec<EnvironmentEvent> {
        match seen {
            Seen::Restarted => {
                self.listed.clear();
                Vec::new()
            }
            Seen::Listed(value) => {
                let name = name_of(&value);
                self.names.insert(name.clone());
                self.listed.insert(name);
                vec![read(value)]
            }
            Seen::Synced => {
                let gone: Vec<_> = self.names.difference(&self.listed).cloned().collect();
                self.names = std::mem::take(&mut self.listed);
                let gone =
                    gone.into_iter().map(|(namespace, name)| EnvironmentEvent::Deleted { namespace, name });
                gone.chain([EnvironmentEvent::Synced]).collect()
            }
            // This watch outlives the kind: an agent may be there before its CustomResourceDefinition.
            Seen::Unserved => Vec::new(),
            Seen::Applied(value) => {
                self.names.insert(name_of(&value));
                vec![read(value)]
            }
            Seen::Deleted(value) => {
                let (namespace, name) = name_of(&value);
                self.names.remove(&(namespace.clone(), name.clone()));
                vec![EnvironmentEvent::Deleted { namespace, name }]
            }
        }
    }
}

fn name_of(value: &Value) -> (String, String) {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn read(value: Value) -> EnvironmentEvent {
    let (namespace, name) = name_of(&value);
    match serde_json::from_value(value) {
        Ok(environment) => EnvironmentEvent::Applied(Box::new(environment)),
        Err(error) => EnvironmentEvent::Invalid { namespace, name, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn environment(name: &str) -> Value {
        serde_json::to_value(Environment::test(name)).unwrap()
    }

    fn words(events: Vec<EnvironmentEvent>) -> Vec<String> {
        let word = |event| match event {
            EnvironmentEvent::Applied(environment) => format!("+{}", environment.name()),
            EnvironmentEvent::Invalid { name, .. } => format!("?{name}"),
            EnvironmentEvent::Deleted { name, .. } => format!("-{name}"),
            EnvironmentEvent::Synced => "synced".to_owned(),
        };
        events.into_iter().map(word).collect()
    }

    #[test]
    fn what_vanished_while_the_watch_was_broken_is_told() {
        let mut known = Known::default();
        let mut told = Vec::new();
        let seen = [
            Seen::Restarted,
            Seen::Listed(environment("dev")),
            Seen::Listed(environment("prod")),
            Seen::Synced,
            Seen::Applied(environment("staging")),
            Seen::Restarted,
            Seen::Listed(environment("dev")),
            Seen::Synced,
            Seen::Deleted(environment("dev")),
        ];
        for event in seen {
            told.extend(words(known.fold(event)));
        }
        assert_eq!(
            told,
            ["+dev", "+prod", "synced", "+staging", "+dev", "-prod", "-staging", "synced", "-dev"]
        );
    }

    #[test]
    fn one_that_cannot_be_read_does_not_hide_the_others() {
        let mut bad = environment("bad");
        bad["spec"]["drift"] = json!("Sometimes");
        let events = Known::default().fold(Seen::Applied(bad));
        assert!(matches!(&events[..], [EnvironmentEvent::Invalid { name, message, .. }]
            if name == "bad" && message.contains("Sometimes")));
    }
}
