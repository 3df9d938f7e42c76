//! A local copy of one resource, kept current by a watch.
//!
//! Why not `kube::runtime::reflector`: a controller must see its own writes at its next look, or it creates
//! a second pod for the first one's place. Here the answer to a write is put into the copy at once
//! ([`Store::assume`]) and compared with the watch by resourceVersion, which needs the version of each list.
//! Resource versions of one resource are comparable as integers since Kubernetes 1.35 (KEP-5504).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::Error;

/// One difference between the copy before and after: an addition has no `old`, a deletion has no `new`.
#[derive(Debug)]
pub struct Change<K> {
    /// The object as it was known.
    pub old: Option<Arc<K>>,
    /// The object as it is now.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The states of the object on both sides of the change.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }

    /// The newest known state: the last one of a deleted object.
    pub fn last(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The copy. Cheap to read; every method locks for a moment only.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct Inner<K> {
    /// By namespace ("" for cluster-wide kinds) and name.
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    /// The newest resourceVersion that the list or the watch delivered.
    seen: u64,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Store {
            inner: RwLock::new(Inner { objects: BTreeMap::new(), seen: 0 }),
            handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Resource> Store<K> {
    /// Calls `handler` on every change, in order, on the thread that made it. It must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(handler));
    }

    /// The object of that name; `namespace` is empty for cluster-wide kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().objects.get(namespace)?.get(name).cloned()
    }

    /// All objects of a namespace, in order of their names.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read().objects.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    /// All objects, in order of namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().flat_map(|names| names.values().cloned()).collect()
    }

    /// Waits until the first list is complete.
    pub async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`, so the wait ends only when it is true.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Puts the answer to a write of this process into the copy, unless the watch has overtaken it.
    pub fn assume(&self, object: K) {
        let (namespace, name) = key(&object);
        let version = version(&object);
        let change = {
            let mut inner = self.write();
            let old = inner.objects.get(&namespace).and_then(|names| names.get(&name)).cloned();
            let known = old.as_deref().map(self::version);
            // Not known and not newer than the watch: it was deleted meanwhile.
            if version <= known.unwrap_or(inner.seen) {
                return;
            }
            let new = Arc::new(object);
            inner.objects.entry(namespace).or_default().insert(name, Arc::clone(&new));
            Change { old, new: Some(new) }
        };
        self.tell(&[change]);
    }

    /// Forgets an object that the server says is not there, if it is still the one with this uid.
    pub fn forget(&self, namespace: &str, name: &str, uid: Option<&str>) {
        let change = {
            let mut inner = self.write();
            let Some(names) = inner.objects.get_mut(namespace) else { return };
            if names.get(name).is_none_or(|known| known.meta().uid.as_deref() != uid) {
                return;
            }
            Change { old: names.remove(name), new: None }
        };
        self.tell(&[change]);
    }

    /// Takes over a complete list made at version `listed`.
    pub(crate) fn replace(&self, items: Vec<K>, listed: u64) {
        let mut changes = Vec::new();
        {
            let mut inner = self.write();
            let mut before = std::mem::take(&mut inner.objects);
            for item in items {
                let (namespace, name) = key(&item);
                let old = before.get_mut(&namespace).and_then(|names| names.remove(&name));
                let keep = match &old {
                    Some(old) if version(old.as_ref()) > version(&item) => Arc::clone(old),
                    _ => Arc::new(item),
                };
                if old.as_ref().is_none_or(|old| version(old.as_ref()) != version(keep.as_ref())) {
                    changes.push(Change { old, new: Some(Arc::clone(&keep)) });
                }
                inner.objects.entry(namespace).or_default().insert(name, keep);
            }
            for (namespace, names) in before {
                for (name, old) in names {
                    // Written after the list was made: the watch will confirm it.
                    if version(old.as_ref()) > listed {
                        inner.objects.entry(namespace.clone()).or_default().insert(name, old);
                    } else {
                        changes.push(Change { old: Some(old), new: None });
                    }
                }
            }
            inner.seen = inner.seen.max(listed);
        }
        self.tell(&changes);
        self.synced.send_replace(true);
    }

    /// Takes over one event of the watch.
    pub(crate) fn observe(&self, object: K, deleted: bool) {
        let (namespace, name) = key(&object);
        let version = version(&object);
        let change = {
            let mut inner = self.write();
            inner.seen = inner.seen.max(version);
            let names = inner.objects.entry(namespace.clone()).or_default();
            let known = names.get(&name).map(|known| self::version(known.as_ref()));
            let overtaken = if deleted { known > Some(version) } else { known >= Some(version) };
            if overtaken {
                return;
            }
            if deleted {
                let old = names.remove(&name);
                if names.is_empty() {
                    inner.objects.remove(&namespace);
                }
                // The event carries the last state, which may be newer than the known one.
                if old.is_none() {
                    return;
                }
                Change { old: Some(Arc::new(object)), new: None }
            } else {
                let new = Arc::new(object);
                Change { old: names.insert(name, Arc::clone(&new)), new: Some(new) }
            }
        };
        self.tell(&[change]);
    }

    fn tell(&self, changes: &[Change<K>]) {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            for handler in handlers.iter() {
                handler(change);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

const PAGE: u32 = 500;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps `store` equal to the server until the future is dropped: lists, then watches, and lists anew only
/// when the server says that the watch's version is gone.
///
/// # Errors
/// [`Error::Refused`] if the server denies the first list; every other failure is tried again with back-off.
pub async fn follow<K>(api: Api<K>, store: Arc<Store<K>>) -> Result<(), Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut pause = FIRST_PAUSE;
    let mut listed = false;
    loop {
        match list(&api).await {
            Ok((items, version)) => {
                store.replace(items, version.parse().unwrap_or(0));
                pause = FIRST_PAUSE;
                listed = true;
                follow_from(&api, &store, version).await;
            }
            Err(source) => {
                if let kube::Error::Api(status) = &source
                    && !listed
                    && matches!(status.code, 401 | 403)
                {
                    return Err(Error::Refused { resource: api.resource_url().to_owned(), source });
                }
                tracing::debug!(resource = api.resource_url(), error = %source, "list failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn list<K>(api: &Api<K>) -> Result<(Vec<K>, String), kube::Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut items = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((items, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// Watches from `version` until that version is gone.
async fn follow_from<K>(api: &Api<K>, store: &Store<K>, mut version: String)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match api.watch(&WatchParams::default().timeout(290), &version).await {
            Ok(events) => {
                let mut events = std::pin::pin!(events);
                loop {
                    match events.next().await {
                        Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                            pause = FIRST_PAUSE;
                            advance(&mut version, &object);
                            store.observe(object, false);
                        }
                        Some(Ok(WatchEvent::Deleted(object))) => {
                            pause = FIRST_PAUSE;
                            advance(&mut version, &object);
                            store.observe(object, true);
                        }
                        Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                            version = bookmark.metadata.resource_version;
                        }
                        Some(Ok(WatchEvent::Error(status))) => break Some(kube::Error::Api(status)),
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                }
            }
            Err(error) => Some(error),
        };
        match failure {
            Some(kube::Error::Api(status)) if status.code == 410 => return,
            // A resource that went away: the next list says so.
            Some(kube::Error::Api(status)) if status.code == 404 => return,
            Some(error) => tracing::debug!(resource = api.resource_url(), %error, "watch ended"),
            None => {}
        }
        // Also after a regular end, so that a server that ends each watch at once is not flooded.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn advance<K: Resource>(version: &mut String, object: &K) {
    if let Some(newer) = &object.meta().resource_version {
        version.clone_from(newer);
    }
}

/// Runs [`follow`] for a typed resource of all namespaces.
pub fn follow_all<K>(client: kube::Client, store: Arc<Store<K>>) -> impl Future<Output = Result<(), Error>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    follow(Api::all(client), store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    fn object(name: &str, version: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("default".to_owned()),
                resource_version: Some(version.to_string()),
                uid: Some(format!("uid-{name}")),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn names(store: &Store<ConfigMap>) -> Vec<String> {
        store.in_namespace("default").iter().filter_map(|object| object.metadata.name.clone()).collect()
    }

    #[test]
    fn an_own_write_is_seen_at_once_and_confirmed_without_a_second_change() {
        let store = Store::<ConfigMap>::default();
        let changes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&changes);
        store.on_change(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        store.replace(vec![], 5);
        store.assume(object("a", 6));
        assert_eq!(names(&store), ["a"]);
        store.observe(object("a", 6), false);
        assert_eq!(changes.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[test]
    fn a_write_that_the_watch_saw_deleted_does_not_come_back() {
        let store = Store::<ConfigMap>::default();
        store.replace(vec![], 5);
        store.observe(object("a", 6), false);
        store.observe(object("a", 7), true);
        store.assume(object("a", 6));
        assert!(names(&store).is_empty());
    }

    #[test]
    fn a_late_list_keeps_what_was_written_after_it() {
        let store = Store::<ConfigMap>::default();
        store.replace(vec![object("a", 4)], 5);
        store.assume(object("b", 8));
        store.replace(vec![object("a", 4)], 7);
        assert_eq!(names(&store), ["a", "b"]);
        store.replace(vec![object("a", 4)], 9);
        assert_eq!(names(&store), ["a"]);
    }

    #[test]
    fn an_older_event_does_not_undo_a_newer_write() {
        let store = Store::<ConfigMap>::default();
        store.replace(vec![object("a", 4)], 5);
        store.assume(object("a", 9));
        store.observe(object("a", 7), false);
        assert_eq!(store.get("default", "a").unwrap().metadata.resource_version.as_deref(), Some("9"));
    }
}
