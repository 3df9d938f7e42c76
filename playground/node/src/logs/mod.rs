//! The output of containers: one file for the present run and one for the run before.
//!
//! A line is written as container runtimes write it: `TIME STREAM TAG TEXT`, where the tag is `F` for a whole line and `P`
//! for a part of one that goes on in the next (<https://kubernetes.io/docs/concepts/cluster-administration/logging/>). A
//! process writes to a pipe, both of its streams to the same, so that their order is kept.

mod read;
mod record;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::context::safe;

pub use read::{LogOptions, Logs};
pub(crate) use record::record;

/// Where a container's output goes.
pub(crate) fn path(root: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    pod_folder(root, namespace, pod).join(format!("{}.log", safe(container)))
}

/// Where the output of the run before is kept.
fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.log")
}

/// The file that exists while the container runs, for those who follow its output.
fn running(path: &Path) -> PathBuf {
    path.with_extension("running")
}

/// Opens the file for a new run; `keep` keeps the old one as that of the run before.
pub(crate) fn create(path: &Path, keep: bool) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if keep && path.exists() {
        fs::rename(path, previous(path))?;
    } else {
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(previous(path));
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Shows that a container runs, until it is dropped.
pub(crate) struct Running {
    path: PathBuf,
}

impl Running {
    /// Marks the run that writes to this file.
    pub fn mark(log: &Path) -> Running {
        let path = running(log);
        if let Err(error) = fs::write(&path, "") {
            tracing::debug!(%error, "a log cannot be followed");
        }
        Running { path }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The logs of pods that are gone. The last ones are kept, for that is where one looks after a failure.
#[derive(Default)]
pub(crate) struct Graveyard {
    folders: Mutex<VecDeque<PathBuf>>,
}

/// Pods whose logs outlive them.
const REMEMBERED: usize = 100;

impl Graveyard {
    /// Keeps a gone pod's logs, and gives up those of the pod that went longest ago. `lives` says whether a folder
    /// belongs to a living pod again.
    pub fn bury(&self, folder: PathBuf, lives: impl Fn(&Path) -> bool) {
        let given_up = {
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.retain(|known| *known != folder);
            folders.push_back(folder);
            if folders.len() > REMEMBERED { folders.pop_front() } else { None }
        };
        if let Some(folder) = given_up.filter(|folder| !lives(folder))
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::debug!(%error, folder = %folder.display(), "old logs could not be removed");
        }
    }
}

/// The folder with the logs of a pod.
pub(crate) fn pod_folder(root: &Path, namespace: &str, pod: &str) -> PathBuf {
    root.join("logs").join(safe(namespace)).join(safe(pod))
}

/// The end of what a container has said, without times; none if it said nothing.
pub(crate) fn tail(path: &Path, bytes: usize) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Times and tags take room, too.
    file.seek(SeekFrom::Start(length.saturating_sub(16 * bytes as u64))).ok()?;
    let mut written = Vec::new();
    file.read_to_end(&mut written).ok()?;
    let mut text = Vec::new();
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = Line::parse(line) else { continue };
        text.extend_from_slice(line.text);
        if line.whole {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(bytes);
    Some(String::from_utf8_lossy(&text[start..]).into_owned()).filter(|text| !text.is_empty())
}

/// A line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    /// Whether the text ends here, with a newline.
    whole: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line, with or without its newline; none for what is no line of a log.
    fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let (_stream, tag) = (parts.next()?, parts.next()?);
        let whole = match tag {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Line { time, whole, text: parts.next()? })
    }
}
