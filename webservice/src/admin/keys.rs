//! Keys that administrators' tokens are signed with: a file from a Secret, read again when it changes.
//!
//! Each line is `name secret`, the secret in base64url without padding, at least 32 bytes. All keys verify and the
//! first one signs, so a key is rotated by putting a new line on top, and taking the old one away once its last
//! token has expired.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// Why a file of keys cannot be used. Its contents are not quoted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not to be read.
    #[error("the file of keys {path} cannot be read: {source}; check ADMIN_KEYS_FILE and the Secret's mount")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a key.
    #[error(
        "{path}:{line}: a line must be a name and a secret of at least 32 bytes in base64url without padding, \
         for example from `openssl rand 32 | basenc --base64url | tr -d =`"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// No key at all.
    #[error("the file of keys {0} holds no key; add a line with a name and a secret")]
    Empty(PathBuf),
}

/// One key.
#[derive(Clone)]
pub struct Key {
    /// Its name, the `kid` of tokens.
    pub name: String,
    /// The secret, ready for use.
    pub secret: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What tells one state of a file from another. Secrets are mounted as links that are switched over.
type Stamp = (Option<SystemTime>, u64, u64);

/// The keys of a file, up to date.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    current: RwLock<(Option<Stamp>, Arc<[Key]>)>,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or holds something else than keys.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let state = (stamp(path), read(path)?);
        Ok(Self { path: path.to_owned(), current: RwLock::new(state) })
    }

    /// The keys as the file has them now. A file that became unusable is reported once for each of its states, and
    /// the keys from before stay in use: a mistake in a rotation must not lock everybody out.
    pub fn current(&self) -> Arc<[Key]> {
        let now = stamp(&self.path);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == now {
                return Arc::clone(&current.1);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != now {
            current.0 = now;
            match read(&self.path) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), "the keys of administrators' tokens were read again");
                    current.1 = keys;
                }
                Err(error) => {
                    tracing::error!(%error, "the earlier keys of administrators' tokens stay in use")
                }
            }
        }
        Arc::clone(&current.1)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

fn read(path: &Path) -> Result<Arc<[Key]>, KeyError> {
    let text =
        fs::read_to_string(path).map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = parse(line).ok_or_else(|| KeyError::Line { path: path.to_owned(), line: index + 1 })?;
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(KeyError::Empty(path.to_owned()));
    }
    Ok(keys.into())
}

fn parse(line: &str) -> Option<Key> {
    let (name, secret) = line.split_once(char::is_whitespace)?;
    let secret = URL_SAFE_NO_PAD.decode(secret.trim()).ok()?;
    (name.len() <= 64 && secret.len() >= 32)
        .then(|| Key { name: name.to_owned(), secret: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\n";
    const B: &str = "b QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\n";

    fn names(keys: &Keys) -> Vec<String> {
        keys.current().iter().map(|key| key.name.clone()).collect()
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, A).unwrap();
        let keys = Keys::open(&path).unwrap();
        assert_eq!(names(&keys), ["a"]);
        fs::write(&path, format!("# rotated\n{B}\n{A}")).unwrap();
        assert_eq!(names(&keys), ["b", "a"]);
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(names(&keys), ["b", "a"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(&keys), ["b", "a"]);
        fs::write(&path, B).unwrap();
        assert_eq!(names(&keys), ["b"]);
    }

    #[test]
    fn an_unusable_file_is_named_with_its_line_and_never_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert!(matches!(Keys::open(&path), Err(KeyError::Unreadable { .. })));
        fs::write(&path, "\n").unwrap();
        assert!(matches!(Keys::open(&path), Err(KeyError::Empty(_))));
        fs::write(&path, format!("{A}short c2hvcnQ")).unwrap();
        let message = Keys::open(&path).unwrap_err().to_string();
        assert!(message.contains("keys:2:") && !message.contains("c2hvcnQ"), "{message}");
        assert!(!format!("{:?}", parse(A.trim()).unwrap()).contains("QUFB"));
    }
}
