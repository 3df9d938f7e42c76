//! One watch of one kind, kept up through errors.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::Value;

use super::Kind;
use super::kinds::group_version_path;
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
    /// The cluster does not have the kind any more, and so no object of it: the watch has ended.
    Unserved,
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub kind: Arc<Kind>,
    /// None for all namespaces.
    pub namespace: Option<String>,
    /// A label selector; none for all objects.
    pub labels: Option<String>,
    /// Whether the watch ends with the kind, rather than wait for it to be served (again).
    pub ends_with_kind: bool,
    /// A field selector; none for all objects.
    pub fields: Option<String>,
}

/// Lists and watches until `tell` answers `false`, the kind is gone where the watch ends with it, or the future is dropped.
/// Errors are logged and tried again with backoff; kube's watcher resumes where it was, or lists anew after a 410.
pub(crate) async fn watch(client: Client, watched: Watched, mut tell: impl FnMut(Seen) -> bool + Send) {
    let resource = watched.kind.api_resource();
    let api: Api<Raw> = match &watched.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
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
            Err(error)
                if watched.ends_with_kind
                    && is_not_found(&error)
                    && !is_served(&client, &watched.kind).await =>
            {
                Seen::Unserved
            }
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
        let over = matches!(seen, Seen::Unserved);
        if !tell(seen) || over {
            return;
        }
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error)
    | watcher::Error::WatchStartFailed(error)
    | watcher::Error::WatchFailed(error)) = error
    else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether discovery lists the kind; a collection can be missing for a moment while it is. A server that does not
/// answer has said nothing against it.
async fn is_served(client: &Client, kind: &Kind) -> bool {
    let Ok(path) = group_version_path(&kind.gvk.group, &kind.gvk.version) else { return false };
    let Ok(request) = http::Request::get(path).body(Vec::new()) else { return true };
    match client.request::<Value>(request).await {
        Ok(list) => {
            let mut resources = list["resources"].as_array().into_iter().flatten();
            resources.any(|resource| resource["name"] == kind.plural.as_str())
        }
        Err(kube::Error::Api(status)) => status.code != 404,
        Err(_) => true,
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
