//! Who owns whom, over all resources of the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, PartialObjectMeta};

use super::decide::{orphans_dependents, waits_for_dependents};
use crate::cache::Change;
use crate::queue::Queue;

/// The metadata of one object of any resource.
pub(crate) type Meta = PartialObjectMeta<DynamicObject>;

/// A resource of the API server.
pub(crate) type Resource = Arc<super::Kind>;

/// An object in the graph.
#[derive(Clone)]
pub(crate) struct Vertex {
    pub resource: Resource,
    pub object: Arc<Meta>,
}

impl Vertex {
    pub fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }
}

/// The graph by uid, with the queue of objects that need a look.
#[derive(Default)]
pub(crate) struct Graph {
    inner: Mutex<Inner>,
    /// Uids of objects to look at.
    pub queue: Arc<Queue<String>>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<String, Vertex>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// Takes over a change and queues everything that it may concern.
    pub fn observe(&self, resource: &Resource, change: &Change<Meta>) {
        let (old, new) = (change.old.as_deref(), change.new.as_ref());
        // Another object under the same name: the old one is gone.
        let replaced = match (old, new) {
            (Some(old), Some(new)) if old.metadata.uid != new.metadata.uid => true,
            (Some(_), None) => true,
            _ => false,
        };
        if let (true, Some(old)) = (replaced, old) {
            self.remove(&old.metadata);
        }
        if let Some(new) = new {
            self.upsert(resource, new);
        }
    }

    fn upsert(&self, resource: &Resource, object: &Arc<Meta>) {
        let meta = &object.metadata;
        let Some(uid) = meta.uid.clone() else { return };
        let mut inner = self.lock();
        let vertex = Vertex { resource: Arc::clone(resource), object: Arc::clone(object) };
        let before = inner.objects.insert(uid.clone(), vertex);
        let owners = owner_uids(meta);
        if let Some(before) = &before {
            for owner in owner_uids(before.meta()).difference(&owners) {
                inner.unlink(owner, &uid);
                // An owner that waits for this dependent need not any more.
                self.queue.add(owner.clone());
            }
        }
        let mut look = waits_for_dependents(meta) || orphans_dependents(meta);
        for owner in &owners {
            inner.dependents.entry(owner.clone()).or_default().insert(uid.clone());
            let known = inner.objects.get(owner);
            look |= known.is_none_or(|owner| waits_for_dependents(owner.meta()));
        }
        // What now waits for its dependents makes them look again.
        if waits_for_dependents(meta) && !before.is_some_and(|before| waits_for_dependents(before.meta())) {
            for dependent in inner.dependents.get(&uid).into_iter().flatten() {
                self.queue.add(dependent.clone());
            }
        }
        drop(inner);
        if look {
            self.queue.add(uid);
        }
    }

    fn remove(&self, meta: &ObjectMeta) {
        let Some(uid) = &meta.uid else { return };
        let mut inner = self.lock();
        inner.objects.remove(uid);
        for owner in owner_uids(meta) {
            inner.unlink(&owner, uid);
            if inner.objects.get(&owner).is_some_and(|owner| waits_for_dependents(owner.meta())) {
                self.queue.add(owner);
            }
        }
        for dependent in inner.dependents.get(uid).into_iter().flatten() {
            self.queue.add(dependent.clone());
        }
    }

    /// The object with that uid.
    pub fn get(&self, uid: &str) -> Option<Vertex> {
        self.lock().objects.get(uid).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Vertex> {
        let inner = self.lock();
        let uids = inner.dependents.get(uid);
        uids.into_iter().flatten().filter_map(|uid| inner.objects.get(uid).cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn owner_uids(meta: &ObjectMeta) -> HashSet<String> {
    meta.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}
