//! Watching of repositories and directories on this machine, so that a push is seen at once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// A watch on a repository's references. Dropping it ends the watch.
pub(crate) struct ReferenceWatch {
    _watcher: RecommendedWatcher,
    references: PathBuf,
    /// Device and inode of the watched directory: a repository that is deleted and made again under the
    /// same name is another one, which the old watch does not see.
    identity: (u64, u64),
}

impl ReferenceWatch {
    /// Rings `bell` whenever a reference of the repository at `path` changes.
    ///
    /// # Errors
    /// Those of the file system: no such repository, or no inotify watch left.
    pub(crate) fn new(path: &Path, bell: Arc<Notify>) -> Result<Self, notify::Error> {
        let git = git_directory(path);
        let references = git.join("refs");
        let identity = identity(&references).ok_or_else(notify::Error::path_not_found)?;
        let (root, packed, head) = (references.clone(), git.join("packed-refs"), git.join("HEAD"));
        let mut watcher =
            notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
                Ok(event) => {
                    let concerns = |path: &PathBuf| {
                        let lock = path.extension().is_some_and(|extension| extension == "lock");
                        !lock && (path.starts_with(&root) || *path == packed || *path == head)
                    };
                    if event.need_rescan() || event.paths.iter().any(concerns) {
                        bell.notify_one();
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a file watch reports an error; the source is read again");
                    bell.notify_one();
                }
            })?;
        watcher.watch(&references, RecursiveMode::Recursive)?;
        // For packed-refs and HEAD, which are replaced by renames and so cannot be watched themselves.
        watcher.watch(&git, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher, references, identity })
    }

    /// Whether the directory that is watched is still the one under that name.
    pub(crate) fn is_current(&self) -> bool {
        identity(&self.references) == Some(self.identity)
    }
}

/// Watches every directory below `path` and rings `bell` on any change outside of `.git`.
///
/// # Errors
/// Those of the file system: no such directory, or no inotify watch left.
pub(crate) fn watch_directory(path: &Path, bell: Arc<Notify>) -> Result<RecommendedWatcher, notify::Error> {
    let root = path.to_path_buf();
    let mut watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| {
        let concerns = |path: &PathBuf| {
            path.strip_prefix(&root)
                .is_ok_and(|inside| !inside.components().any(|part| part.as_os_str() == ".git"))
        };
        match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if !event.need_rescan() && !event.paths.iter().any(concerns) => {}
            _ => bell.notify_one(),
        }
    })?;
    watcher.watch(path, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// The directory with the references: `path` itself for a bare repository, `path/.git` for a clone, or
/// where the file `.git` of a linked worktree points to.
fn git_directory(path: &Path) -> PathBuf {
    git2::Repository::open(path)
        .map_or_else(|_| path.to_path_buf(), |repository| repository.commondir().to_path_buf())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
