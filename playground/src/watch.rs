//! Waiting for the cluster: a condition on one object or on a set, checked at every change that the API
//! server reports, until a deadline. Nothing here polls or sleeps.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// What a check finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check<T> {
    /// The condition holds.
    Met(T),
    /// Not yet; what was seen instead, in words.
    Not(String),
}

/// A condition that did not come to hold.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected} within {}; saw {seen}", crate::print::seconds(*.within).trim())]
pub struct TooLate {
    /// What should have happened.
    pub expected: String,
    /// How long it had.
    pub within: Duration,
    /// What was there at the end.
    pub seen: String,
}

/// Objects by `namespace/name`, or by name if they have no namespace.
pub type Objects<K> = BTreeMap<String, K>;

/// Waits until `check` is met by the objects of `api` that `selection` selects.
///
/// # Errors
///
/// [`TooLate`] at the deadline.
pub async fn until<K, T>(
    api: &Api<K>,
    selection: watcher::Config,
    expected: impl Display,
    within: Duration,
    mut check: impl FnMut(&Objects<K>) -> Check<T>,
) -> Result<T, TooLate>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let deadline = Instant::now() + within;
    let mut objects = Objects::new();
    let mut listed = Objects::new();
    let mut seen = "no answer from the API server".to_owned();
    let events = watcher(api.clone(), selection);
    pin_mut!(events);
    loop {
        let event = match tokio::time::timeout_at(deadline, events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return Err(TooLate { expected: expected.to_string(), within, seen }),
            Err(_) => return Err(TooLate { expected: expected.to_string(), within, seen }),
        };
        match event {
            Ok(watcher::Event::Apply(object)) => {
                objects.insert(key(&object), object);
            }
            Ok(watcher::Event::Delete(object)) => {
                objects.remove(&key(&object));
            }
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(key(&object), object);
                continue;
            }
            Ok(watcher::Event::InitDone) => objects = std::mem::take(&mut listed),
            // The watcher begins again by itself.
            Err(error) => {
                seen = format!("an error of the API server: {error}");
                tokio::task::yield_now().await;
                continue;
            }
        }
        match check(&objects) {
            Check::Met(value) => return Ok(value),
            Check::Not(found) => seen = found,
        }
    }
}

/// Waits until `check` is met by the object called `name`; it is given `None` while there is none.
///
/// # Errors
///
/// [`TooLate`] at the deadline.
pub async fn until_one<K, T>(
    api: &Api<K>,
    name: &str,
    expected: impl Display,
    within: Duration,
    mut check: impl FnMut(Option<&K>) -> Check<T>,
) -> Result<T, TooLate>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    until(api, selection, expected, within, |objects| check(objects.values().next())).await
}

fn key<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
