//! The task of a directory source: reads the directory again whenever something in it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::rollout::Revision;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::watch::watch_directory;
use super::{DirTree, Snapshot, SourceError, SourceState, SourcesConfig, worker};
use crate::retry::Backoff;

/// An editor writes a file in several steps; the directory is read once it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(30);
/// The longest that a directory which is never quiet is waited for.
const RESTLESS: u32 = 20;
/// How often it is read even if no change is reported: file watches can be lost.
const SAFETY_NET: Duration = Duration::from_secs(60);

/// How often it is read if it cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(2);

/// A directory that is being followed.
pub(super) struct Handle {
    sender: Arc<watch::Sender<SourceState>>,
    bell: Arc<Notify>,
    /// Set to false, under the lock, when the task ends.
    alive: Arc<Mutex<bool>>,
}

impl Handle {
    /// Another subscriber, unless the task has ended.
    pub(super) fn subscribe(&self) -> Option<watch::Receiver<SourceState>> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.then(|| self.sender.subscribe())
    }

    /// Reads the directory now; false if the task has ended.
    pub(super) fn poke(&self) -> bool {
        self.bell.notify_one();
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to follow a directory.
pub(super) fn start(path: PathBuf, config: Arc<SourcesConfig>) -> (Handle, watch::Receiver<SourceState>) {
    let (sender, receiver) = watch::channel(SourceState::Pending);
    let handle = Handle { sender: Arc::new(sender), bell: Arc::default(), alive: Arc::new(Mutex::new(true)) };
    let (sender, bell, alive) =
        (Arc::clone(&handle.sender), Arc::clone(&handle.bell), Arc::clone(&handle.alive));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = follow(&path, &sender, &bell, &config) => {}
                () = sender.closed() => {}
            }
            let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                *alive = false;
                return;
            }
        }
    });
    (handle, receiver)
}

async fn follow(
    path: &Path,
    sender: &watch::Sender<SourceState>,
    bell: &Arc<Notify>,
    config: &SourcesConfig,
) {
    let mut backoff = Backoff::new(config.retry_first, config.retry_last);
    let mut watcher = None;
    let mut tree: Option<Arc<DirTree>> = None;
    loop {
        if watcher.is_none() && config.watch {
            watcher = watch_directory(path, Arc::clone(bell)).ok();
        }
        let (root, previous) = (path.to_path_buf(), tree.clone());
        let scanned = tokio::task::spawn_blocking(move || DirTree::scan(&root, previous.as_deref())).await;
        let scanned = scanned.unwrap_or_else(|error| {
            let detail = error.to_string();
            Err(SourceError::DirectoryUnreadable { path: path.display().to_string(), detail })
        });
        let wait = match scanned {
            Ok(scanned) => {
                let scanned = Arc::new(scanned);
                let snapshot = Snapshot { revision: revision(path, &scanned), tree: scanned.clone() };
                tree = Some(scanned);
                worker::set(sender, Ok(snapshot));
                backoff.reset();
                if watcher.is_some() { SAFETY_NET } else { UNWATCHED }
            }
            Err(error) => {
                // The directory may come back as another one, which the old watch would not see.
                watcher = None;
                worker::set(sender, Err((error, None)));
                backoff.next_delay()
            }
        };
        if timeout(wait, bell.notified()).await.is_ok() {
            for _ in 0..RESTLESS {
                if timeout(QUIET, bell.notified()).await.is_err() {
                    break;
                }
            }
        }
    }
}

fn revision(path: &Path, tree: &DirTree) -> Revision {
    Revision {
        commit: format!("dir:{}", tree.digest()),
        reference: path.display().to_string(),
        tree: tree.digest().to_owned(),
        author: String::new(),
        subject: "local directory".to_owned(),
        signer: None,
        forced: false,
    }
}
