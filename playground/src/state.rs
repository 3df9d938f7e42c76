//! The folder `.playground`: everything that one run leaves on disk, and the lock that keeps two runs apart.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What goes wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another playground runs in the same checkout.
    #[error(
        "another playground{} is running here (it holds {}): use that one, or end it first",
        pid.as_ref().map(|pid| format!(", process {pid},")).unwrap_or_default(),
        lock.display()
    )]
    Busy {
        /// Process id of the other one, if it had time to write it down.
        pid: Option<u32>,
        /// The lock file.
        lock: PathBuf,
    },
    /// No checkout of this repository was found.
    #[error(
        "no checkout of Holdfast with `environments/` and `policies/` was found in {} or above it: \
         start the playground inside the repository",
        from.display()
    )]
    NoCheckout {
        /// Where the search began.
        from: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Finds the checkout: the nearest folder, from `from` upward, that holds `environments/` and `policies/`;
/// failing that, the one that this program was compiled in.
///
/// # Errors
///
/// When there is none.
pub fn checkout(from: &Path) -> Result<PathBuf, Error> {
    let compiled_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    from.ancestors()
        .chain(compiled_in)
        .find(|folder| folder.join("environments").is_dir() && folder.join("policies").is_dir())
        .map(Path::to_owned)
        .ok_or_else(|| Error::NoCheckout { from: from.to_owned() })
}

/// The folder of one run. It is locked as long as the value lives, and by nothing else: the lock is the
/// kernel's and ends with the process, however that ends.
#[derive(Debug)]
pub struct State {
    root: PathBuf,
    _lock: File,
}

impl State {
    /// Takes the folder for this run. What an earlier run left, a person's edits among it, is kept as
    /// `previous` until the next start, and everything else begins empty.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another run holds it, [`Error::Io`] when the file system refuses.
    pub fn claim(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let root = root.canonicalize().map_err(Error::io("resolve", root))?;
        let path = root.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The number is a courtesy; without it the sentence is still true.
                let _ = lock.take(16).read_to_string(&mut pid);
                return Err(Error::Busy { pid: pid.trim().parse().ok(), lock: path });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        set_previous_aside(&root)?;
        let state = Self { root, _lock: lock };
        let logs = state.logs();
        fs::create_dir_all(&logs).map_err(Error::io("create", &logs))?;
        Ok(state)
    }

    /// The folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file that only this user can read.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write_private(&self, name: &str, content: &str) -> Result<PathBuf, Error> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(Error::io("write", &path))?;
        Ok(path)
    }
}

/// Moves what an earlier run left into `previous`, replacing what was there.
fn set_previous_aside(root: &Path) -> Result<(), Error> {
    let previous = root.join("previous");
    let mut left = Vec::new();
    for entry in fs::read_dir(root).map_err(Error::io("read", root))? {
        let entry = entry.map_err(Error::io("read", root))?;
        if entry.file_name() != "lock" && entry.file_name() != "previous" {
            left.push(entry);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    match fs::remove_dir_all(&previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &previous)(error));
        }
        _ => {}
    }
    fs::create_dir(&previous).map_err(Error::io("create", &previous))?;
    for entry in left {
        let from = entry.path();
        fs::rename(&from, previous.join(entry.file_name())).map_err(Error::io("move", &from))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = State::claim(folder.path()).unwrap();
        let error = State::claim(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Busy { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(held);
        State::claim(folder.path()).unwrap();
    }

    #[test]
    fn what_an_earlier_run_left_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = State::claim(folder.path()).unwrap();
        first.write_private("notes", "mine").unwrap();
        drop(first);
        let second = State::claim(folder.path()).unwrap();
        assert!(!second.path("notes").exists());
        assert_eq!(fs::read_to_string(second.path("previous/notes")).unwrap(), "mine");
        second.write_private("notes", "newer").unwrap();
        drop(second);
        let third = State::claim(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(third.path("previous/notes")).unwrap(), "newer");
        assert!(!third.path("previous/previous").exists());
    }

    #[test]
    fn the_checkout_is_found_from_a_folder_inside_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("environments/dev")).unwrap();
        fs::create_dir_all(root.join("policies")).unwrap();
        assert_eq!(checkout(&root.join("environments/dev")).unwrap(), root);
    }
}
