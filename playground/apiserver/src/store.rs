//! The objects, their one revision counter, and the history that watches are fed from.

use crate::time;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A stored object. It is serialised once.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name`, or `name` for objects without a namespace.
    pub key: String,
    /// Its resourceVersion.
    pub revision: u64,
    /// When it was stored.
    pub written: Timestamp,
    /// The object in its storage version.
    pub value: Value,
    /// The same as JSON.
    pub json: Bytes,
}

impl Object {
    fn new(key: &str, revision: u64, mut value: Value) -> Object {
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            metadata.insert("resourceVersion".into(), revision.to_string().into());
        }
        let json = Bytes::from(serde_json::to_vec(&value).unwrap_or_default());
        Object { key: key.into(), revision, written: time::now(), value, json }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It came into being.
    Added,
    /// It changed.
    Modified,
    /// It is gone; the event's object is its last state.
    Deleted,
}

/// One entry of the history.
#[derive(Debug)]
pub struct Event {
    /// Revision at which it happened.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// The object after the change.
    pub object: Arc<Object>,
    /// The object before it.
    pub previous: Option<Arc<Object>>,
}

/// Events that are remembered per resource, for watches that start in the past.
const HISTORY: usize = 4096;

/// Events that wait for one slow watcher before it is cut off (it will list and watch again).
const BACKLOG: usize = 16_384;

#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<String, Arc<Object>>,
    history: VecDeque<Arc<Event>>,
    /// Revision of the youngest event that is no longer in the history.
    forgotten: u64,
    watchers: Vec<mpsc::Sender<Arc<Event>>>,
}

/// Why a write was not stored.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is an object with this key.
    #[error("the object exists; read it and update it")]
    Exists,
    /// The object changed or vanished since it was read.
    #[error("the object changed since it was read; read it again")]
    Changed,
}

/// The state behind a watch from a revision.
#[derive(Debug)]
pub struct Feed {
    /// Events since the revision that was asked for.
    pub past: Vec<Arc<Event>>,
    /// Events from now on.
    pub future: mpsc::Receiver<Arc<Event>>,
    /// Current objects, when the watch starts with them.
    pub objects: Vec<Arc<Object>>,
    /// Current revision.
    pub revision: u64,
}

/// The revision asked for is older than the history.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("too old resource version: {wanted} ({oldest})")]
pub struct TooOld {
    /// Revision that was asked for.
    pub wanted: u64,
    /// Oldest revision from which a watch can start.
    pub oldest: u64,
}

/// All objects of all resources.
#[derive(Debug)]
pub struct Store {
    revision: u64,
    tables: HashMap<String, Table>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Store {
        Store { revision: 1, tables: HashMap::new() }
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub fn get(&self, table: &str, key: &str) -> Option<Arc<Object>> {
        self.tables.get(table)?.objects.get(key).cloned()
    }

    /// Objects whose key starts with `prefix`, from `start` on, in order of their keys.
    pub fn range<'a>(
        &'a self,
        table: &str,
        prefix: &'a str,
        start: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = if start > prefix { start } else { prefix }.to_owned();
        self.tables
            .get(table)
            .into_iter()
            .flat_map(move |t| t.objects.range(from.clone()..))
            .map(|(_, object)| object)
            .take_while(move |object| object.key.starts_with(prefix))
    }

    /// Objects as `range` gives them, as they were at an earlier revision: what happened since is undone.
    pub fn range_at(
        &self,
        table: &str,
        prefix: &str,
        start: &str,
        revision: u64,
    ) -> Result<Vec<Arc<Object>>, TooOld> {
        let Some(changed) = self.tables.get(table) else { return Ok(Vec::new()) };
        if revision < changed.forgotten {
            return Err(TooOld { wanted: revision, oldest: changed.forgotten });
        }
        let mut then: HashMap<&str, Option<&Arc<Object>>> = HashMap::new();
        for event in changed.history.iter().rev().take_while(|e| e.revision > revision) {
            then.insert(&event.object.key, event.previous.as_ref());
        }
        let unchanged = self.range(table, prefix, start).filter(|o| !then.contains_key(o.key.as_str()));
        let wanted = |o: &&Arc<Object>| o.key.starts_with(prefix) && o.key.as_str() >= start;
        let changed = then.values().flatten().copied().filter(wanted);
        let mut objects: Vec<Arc<Object>> = unchanged.chain(changed).cloned().collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The oldest revision at which a resource can still be seen.
    pub fn oldest(&self, table: &str) -> u64 {
        self.tables.get(table).map_or(0, |t| t.forgotten)
    }

    /// Forgets the history, as etcd does at its compactions: watches and pages from earlier revisions are refused.
    pub fn compact(&mut self) {
        let revision = self.revision;
        for table in self.tables.values_mut() {
            table.history.clear();
            table.forgotten = revision;
        }
    }

    /// Stores a new object.
    pub fn create(&mut self, table: &str, key: &str, value: Value) -> Result<Arc<Object>, Error> {
        if self.get(table, key).is_some() {
            return Err(Error::Exists);
        }
        let object = Arc::new(Object::new(key, self.revision + 1, value));
        self.record(table, Change::Added, object.clone(), None);
        Ok(object)
    }

    /// Replaces an object that is still at `expected`.
    pub fn update(
        &mut self,
        table: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<Arc<Object>, Error> {
        let previous = self.get(table, key).filter(|o| o.revision == expected).ok_or(Error::Changed)?;
        let object = Arc::new(Object::new(key, self.revision + 1, value));
        self.record(table, Change::Modified, object.clone(), Some(previous));
        Ok(object)
    }

    /// Removes an object that is still at `expected`.
    pub fn delete(&mut self, table: &str, key: &str, expected: u64) -> Result<Arc<Object>, Error> {
        let previous = self.get(table, key).filter(|o| o.revision == expected).ok_or(Error::Changed)?;
        let object = Arc::new(Object::new(key, self.revision + 1, previous.value.clone()));
        self.record(table, Change::Deleted, object.clone(), Some(previous));
        Ok(object)
    }

    fn record(&mut self, table: &str, change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) {
        self.revision += 1;
        if !self.tables.contains_key(table) {
            self.tables.insert(table.to_owned(), Table::default());
        }
        let Some(table) = self.tables.get_mut(table) else { return };
        if change == Change::Deleted {
            table.objects.remove(&object.key);
        } else {
            table.objects.insert(object.key.clone(), object.clone());
        }
        let event = Arc::new(Event { revision: self.revision, change, object, previous });
        table.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
        table.history.push_back(event);
        if table.history.len() > HISTORY
            && let Some(oldest) = table.history.pop_front()
        {
            table.forgotten = oldest.revision;
        }
    }

    /// Opens a watch: from a revision, or (`None`) with the current objects first.
    pub fn watch(&mut self, table: &str, from: Option<u64>) -> Result<Feed, TooOld> {
        let revision = self.revision;
        let table = self.tables.entry(table.to_owned()).or_default();
        let mut past = Vec::new();
        let mut objects = Vec::new();
        match from {
            Some(wanted) if wanted < table.forgotten => {
                return Err(TooOld { wanted, oldest: table.forgotten });
            }
            Some(wanted) => past.extend(table.history.iter().filter(|e| e.revision > wanted).cloned()),
            None => objects.extend(table.objects.values().cloned()),
        }
        let (sender, future) = mpsc::channel(BACKLOG);
        table.watchers.retain(|w| !w.is_closed());
        table.watchers.push(sender);
        Ok(Feed { past, future, objects, revision })
    }

    /// Ends all watches of a resource that is no longer served.
    pub fn close(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Ends all watches, so that connections can be closed.
    pub fn close_watches(&mut self) {
        for table in self.tables.values_mut() {
            table.watchers.clear();
        }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[test]
    fn writes_need_the_revision_that_was_read() {
        let mut store = Store::new();
        let first = store.create("t", "n/a", object("a")).unwrap();
        assert_eq!(store.create("t", "n/a", object("a")).unwrap_err(), Error::Exists);
        let second = store.update("t", "n/a", first.revision, object("a")).unwrap();
        assert_eq!(store.update("t", "n/a", first.revision, object("a")).unwrap_err(), Error::Changed);
        assert_eq!(second.value["metadata"]["resourceVersion"], second.revision.to_string());
        assert_eq!(store.delete("t", "n/a", second.revision).unwrap().revision, store.revision());
        assert!(store.get("t", "n/a").is_none());
    }

    #[test]
    fn the_past_is_seen_until_it_is_compacted() {
        let mut store = Store::new();
        for key in ["n/a", "n/b", "o/c"] {
            store.create("t", key, object(key)).unwrap();
        }
        let then = store.revision();
        let names = |store: &Store, revision| -> Vec<String> {
            store.range_at("t", "n/", "", revision).unwrap().iter().map(|o| o.key.clone()).collect()
        };
        let a = store.get("t", "n/a").unwrap();
        let changed = store.update("t", "n/a", a.revision, object("changed")).unwrap();
        store.delete("t", "n/a", changed.revision).unwrap();
        store.create("t", "n/0", object("0")).unwrap();
        assert_eq!(names(&store, then), ["n/a", "n/b"]);
        assert_eq!(store.range_at("t", "n/", "", then).unwrap()[0].revision, a.revision);
        assert_eq!(names(&store, store.revision()), ["n/0", "n/b"]);
        assert_eq!(store.range_at("t", "n/", "n/a\0", then).unwrap().len(), 1);
        store.compact();
        assert!(store.range_at("t", "n/", "", then).is_err());
        assert!(store.watch("t", Some(then)).is_err());
        assert_eq!(names(&store, store.revision()), ["n/0", "n/b"]);
    }

    #[test]
    fn a_watch_starts_in_the_past_or_is_too_old() {
        let mut store = Store::new();
        let first = store.create("t", "a", object("a")).unwrap();
        for _ in 0..HISTORY {
            let now = store.get("t", "a").unwrap();
            store.update("t", "a", now.revision, object("a")).unwrap();
        }
        assert_eq!(store.watch("t", Some(first.revision)).unwrap().past.len(), HISTORY);
        assert!(store.watch("t", Some(first.revision - 1)).is_err());
        assert_eq!(store.watch("t", None).unwrap().objects.len(), 1);
        store.create("t", "b/c", object("c")).unwrap();
        assert_eq!(store.range("t", "b/", "").count(), 1);
    }
}
