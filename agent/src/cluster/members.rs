//! The watches behind the index of members, and those who want to know of changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use engine::object::{GroupKind, ObjectRef};
use engine::plan::{Live, Marks, PART_OF};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::error::Error;
use super::index::{ChangeKind, MemberChange, Members};
use super::watch::{Seen, Watched};
use super::{Cluster, Kind};

/// The index, its watches and its readers. Dropping it ends the watches.
#[derive(Debug, Default)]
pub(crate) struct MemberWatch {
    shared: Arc<Shared>,
    watches: Mutex<HashMap<GroupKind, AbortHandle>>,
}

#[derive(Debug, Default)]
struct Shared {
    index: Mutex<Members>,
    readers: Mutex<HashMap<String, Vec<Weak<Mailbox>>>>,
    progress: Notify,
}

/// Changes on their way to one reader. Several of one object become one: a slow reader holds no more than
/// its environment has members.
#[derive(Debug, Default)]
struct Mailbox {
    changes: Mutex<BTreeMap<ObjectRef, ChangeKind>>,
    notify: Notify,
}

impl Drop for MemberWatch {
    fn drop(&mut self) {
        for watch in locked(&self.watches).values() {
            watch.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves whole values behind: every change is one insert or remove.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn tell(&self, changes: Vec<MemberChange>) {
        let mut readers = locked(&self.readers);
        for change in changes {
            let Some(mailboxes) = readers.get_mut(&change.part_of) else { continue };
            mailboxes.retain(|mailbox| {
                let Some(mailbox) = mailbox.upgrade() else { return false };
                let mut waiting = locked(&mailbox.changes);
                let kind = waiting.entry(change.object.clone()).or_insert(change.kind);
                // What comes last is how it is now, but a change of health must not hide a drift.
                if change.kind != ChangeKind::HealthChanged {
                    *kind = change.kind;
                }
                mailbox.notify.notify_one();
                true
            });
            if mailboxes.is_empty() {
                readers.remove(&change.part_of);
            }
        }
    }
}

/// Receives the changes of one environment's members.
#[derive(Debug)]
pub struct Subscription {
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    /// Waits for changes and takes all that there are: one for each object, the last one of it.
    pub async fn next(&mut self) -> Vec<(ObjectRef, ChangeKind)> {
        loop {
            let changes = std::mem::take(&mut *locked(&self.mailbox.changes));
            if !changes.is_empty() {
                return changes.into_iter().collect();
            }
            self.mailbox.notify.notified().await;
        }
    }
}

impl Cluster {
    /// Watches the members of these kinds, of all environments, from now on. Kinds that are watched
    /// already stay so.
    pub fn watch_kinds(&self, kinds: impl IntoIterator<Item = Arc<Kind>>) {
        let members = &self.inner.members;
        let mut watches = locked(&members.watches);
        for kind in kinds {
            let group_kind = kind.gvk.group_kind();
            if !kind.watchable || watches.contains_key(&group_kind) {
                continue;
            }
            let shared = members.shared.clone();
            let of = group_kind.clone();
            let watched = Watched {
                kind,
                namespace: None,
                labels: Some(PART_OF.to_owned()),
                fields: None,
                ends_with_kind: true,
            };
            let ended = Arc::downgrade(&self.inner);
            let watch = super::watch::watch(self.client().clone(), watched, move |seen| {
                if matches!(seen, Seen::Unserved)
                    && let Some(inner) = ended.upgrade()
                {
                    // It may come back, as another version perhaps; whoever needs it asks again.
                    tracing::info!(kind = %of, "the cluster does not have this kind any more");
                    inner.kinds.forget(&of.group);
                    locked(&inner.members.watches).remove(&of);
                }
                let changes = locked(&shared.index).apply(&of, seen);
                shared.progress.notify_waiters();
                shared.tell(changes);
                true
            });
            watches.insert(group_kind, tokio::spawn(watch).abort_handle());
        }
    }

    /// Watches the members of these kinds. Kinds that the cluster does not have, or not yet, are left
    /// out: they have no members.
    ///
    /// # Errors
    /// When the API server cannot be asked for its kinds.
    pub async fn watch_group_kinds(&self, kinds: impl IntoIterator<Item = &GroupKind>) -> Result<(), Error> {
        for kind in kinds {
            if let Some(kind) = self.kind_of_group(kind).await? {
                self.watch_kinds([kind]);
            }
        }
        Ok(())
    }

    /// Waits until all members of the watched kinds among these are listed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when that takes longer than `patience`; the log has the watch's errors.
    pub async fn synced(&self, kinds: &BTreeSet<GroupKind>, patience: Duration) -> Result<(), Error> {
        let shared = &self.inner.members.shared;
        let missing = || {
            let watches = locked(&self.inner.members.watches);
            let index = locked(&shared.index);
            let waits = |kind: &&GroupKind| watches.contains_key(*kind) && !index.is_synced(kind);
            kinds.iter().filter(waits).map(ToString::to_string).collect::<Vec<_>>()
        };
        let wait = async {
            loop {
                let progress = shared.progress.notified();
                tokio::pin!(progress);
                progress.as_mut().enable();
                if missing().is_empty() {
                    return;
                }
                progress.await;
            }
        };
        tokio::time::timeout(patience, wait).await.map_err(|_| Error::Unavailable {
            verb: "list".to_owned(),
            what: format!("the members of kinds {}", missing().join(", ")),
            attempts: 1,
            message: format!("they were not complete after {patience:?}; may the agent list and watch them?"),
        })
    }

    /// Tells of changes of an environment's members, from now on.
    pub fn subscribe(&self, marks: &Marks) -> Subscription {
        let shared = &self.inner.members.shared;
        locked(&shared.index).know(marks);
        let mailbox = Arc::new(Mailbox::default());
        locked(&shared.readers).entry(marks.part_of.clone()).or_default().push(Arc::downgrade(&mailbox));
        Subscription { mailbox }
    }

    /// Reads the index. The closure must be short: the watches wait meanwhile.
    pub fn members<T>(&self, read: impl FnOnce(&Members) -> T) -> T {
        read(&locked(&self.inner.members.shared.index))
    }

    /// What is remembered of an environment's members.
    pub fn members_of(&self, marks: &Marks) -> Vec<Live> {
        self.members(|index| index.of(&marks.part_of).map(|member| member.live.clone()).collect())
    }

    /// Takes the answer to a write into the index at once, so that nobody plans with what was before.
    pub(crate) fn remember(&self, value: &Value) {
        let shared = &self.inner.members.shared;
        let changes = locked(&shared.index).put(value);
        shared.tell(changes);
    }

    /// Tells the readers of an environment that the readiness of a member may have changed.
    pub(crate) fn tell_health(&self, part_of: &str, object: &ObjectRef) {
        let change = MemberChange {
            part_of: part_of.to_owned(),
            object: object.clone(),
            kind: ChangeKind::HealthChanged,
        };
        self.inner.members.shared.tell(vec![change]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, kind: ChangeKind) -> MemberChange {
        let object =
            ObjectRef { group: String::new(), kind: "ConfigMap".into(), namespace: None, name: name.into() };
        MemberChange { part_of: "set".into(), object, kind }
    }

    #[tokio::test]
    async fn a_reader_gets_the_last_word_on_each_object() {
        use ChangeKind::{Deleted, Drifted, HealthChanged, Written};
        let shared = Shared::default();
        let mailbox = Arc::new(Mailbox::default());
        locked(&shared.readers).insert("set".into(), vec![Arc::downgrade(&mailbox)]);
        let mut subscription = Subscription { mailbox };
        shared.tell(vec![
            change("a", Drifted),
            change("a", HealthChanged),
            change("b", Deleted),
            change("b", Written),
        ]);
        let told: Vec<_> =
            subscription.next().await.into_iter().map(|(object, kind)| (object.name, kind)).collect();
        assert_eq!(told, [("a".to_owned(), Drifted), ("b".to_owned(), Written)]);
        drop(subscription);
        shared.tell(vec![change("a", Drifted)]);
        assert!(locked(&shared.readers).is_empty());
    }
}
