//! One watch of one kind, kept up through errors.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::Value;

use super::Kind;
use super::raw::Raw;
use super::request::chain;
use crate::retry::Backoff;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A list begins: what is not in it when it is complete is gone.
    Restarted,
    /// An object of the list.
    Listed(Value),
    /// The list is complete.
    Synced,
    /// An object was created or changed.
    Applied(Value),
    /// An object was deleted, or is not selected any more: its last state.
    Deleted(Value),
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub kind: Arc<Kind>,
    /// None for all namespaces.
    pub namespace: Option<String>,
    /// A label selector; none for all objects.
    pub labels: Option<String>,
    /// A field selector; none for all objects.
    pub fields: Option<String>,
}

/// Lists and watches until `tell` answers `false` or the future is dropped. Errors are logged and
/// tried again with backoff; kube's watcher resumes where it was, or lists anew after a 410.
pub(crate) async fn watch(client: Client, watched: Watched, mut tell: impl FnMut(Seen) -> bool + Send) {
    let resource = watched.kind.api_resource();
    let api: Api<Raw> = match &watched.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let mut config = watcher::Config::default();
    if let Some(labels) = &watched.labels {
        config = config.labels(labels);
    }
    if let Some(fields) = &watched.fields {
        config = config.fields(fields);
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let stream = watcher(api, config);
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let seen = match event {
            Ok(watcher::Event::Init) => Seen::Restarted,
            Ok(watcher::Event::InitApply(object)) => Seen::Listed(complete(object, &watched.kind)),
            Ok(watcher::Event::InitDone) => Seen::Synced,
            Ok(watcher::Event::Apply(object)) => Seen::Applied(complete(object, &watched.kind)),
            Ok(watcher::Event::Delete(object)) => Seen::Deleted(complete(object, &watched.kind)),
            Err(error) => {
                let delay = backoff.next_delay();
                // One broken watch is an everyday event; several in a row are not.
                if backoff.attempts() > 3 {
                    tracing::warn!(kind = %watched.kind.gvk.group_kind(), error = chain(&error), "cannot watch");
                } else {
                    tracing::debug!(kind = %watched.kind.gvk.group_kind(), error = chain(&error), "watch broken");
                }
                tokio::time::sleep(delay).await;
                continue;
            }
        };
        if !matches!(seen, Seen::Restarted) {
            backoff.reset();
        }
        if !tell(seen) {
            return;
        }
    }
}

/// Items of a list come without `apiVersion` and `kind`; everything behind this expects them.
fn complete(object: Raw, kind: &Kind) -> Value {
    let mut value = object.value;
    if let Some(map) = value.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| Value::String(kind.gvk.api_version()));
        map.entry("kind").or_insert_with(|| Value::String(kind.gvk.kind.clone()));
    }
    value
}
