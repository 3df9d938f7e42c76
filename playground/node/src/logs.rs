//! The output of containers: one file for the present run and one for the run before.
//!
//! A process writes to its file itself, so its output costs the node nothing and survives it. The time of a line is
//! therefore not known.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::context::safe;

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

/// The last bytes of a file as text; none if there are none.
pub(crate) fn tail(path: &Path, bytes: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.is_empty())
}

/// Which part of a container's output is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container's run ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// The output of a node's containers. It needs the node's state folder only, so it can exist before the node.
#[derive(Clone, Debug)]
pub struct Logs {
    root: PathBuf,
}

/// Bytes handed out at a time.
const BLOCK: usize = 64 * 1024;
/// How often a followed file is looked at. Only as long as somebody follows it.
const LOOK: Duration = Duration::from_millis(50);

impl Logs {
    /// The output of the node with this state folder.
    pub fn new(root: impl Into<PathBuf>) -> Logs {
        Logs { root: root.into() }
    }

    /// The output of a container, as it is and, when followed, as it comes.
    ///
    /// # Errors
    /// A sentence that says why there is none: the container has not started, or had no earlier run.
    pub fn open(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Bytes>, String> {
        let current = path(&self.root, namespace, pod, container);
        let path = if options.previous { previous(&current) } else { current.clone() };
        let mut file = File::open(&path).map_err(|error| match (error.kind(), options.previous) {
            (io::ErrorKind::NotFound, true) => {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            }
            (io::ErrorKind::NotFound, false) => {
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start")
            }
            _ => format!("the log of container \"{container}\" in pod \"{pod}\" cannot be read: {error}"),
        })?;
        let start = match options.tail_lines {
            Some(lines) => tail_offset(&mut file, lines),
            None => Ok(0),
        };
        start
            .and_then(|start| file.seek(SeekFrom::Start(start)))
            .map_err(|error| format!("the log of container \"{container}\" cannot be read: {error}"))?;
        let follow = (options.follow && !options.previous).then(|| running(&current));
        let state = (file, options.limit_bytes.unwrap_or(u64::MAX), follow);
        Ok(stream::unfold(state, |(mut file, left, follow)| async move {
            loop {
                // Asked before the file is read, so that the last words are not missed.
                let running = follow.as_ref().is_some_and(|path| path.exists());
                let mut block = Vec::new();
                let size = left.min(BLOCK as u64);
                match file.by_ref().take(size).read_to_end(&mut block) {
                    Ok(0) if size > 0 && running => tokio::time::sleep(LOOK).await,
                    Ok(0) | Err(_) => return None,
                    Ok(read) => {
                        let left = left.saturating_sub(read as u64);
                        return Some((Bytes::from(block), (file, left, follow)));
                    }
                }
            }
        })
        .boxed())
    }
}

/// Where the last lines of a file begin.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let (mut end, mut found) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = start + index as u64;
            // The end of the last line does not begin another one.
            if *byte == b'\n' && position + 1 < length {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (PathBuf, Logs) {
        let root = std::env::temp_dir().join(format!("logs-{name}-{}", std::process::id()));
        let file = path(&root, "dev", "p", "c");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        let logs = Logs::new(&root);
        (root, logs)
    }

    async fn read(logs: &Logs, options: LogOptions) -> String {
        let blocks: Vec<Bytes> = logs.open("dev", "p", "c", options).unwrap().collect().await;
        String::from_utf8(blocks.concat()).unwrap()
    }

    #[tokio::test]
    async fn the_end_of_a_log_is_cut_by_lines_and_bytes() {
        let (root, logs) = written("tail", "one\ntwo\nthree\n");
        let with = |tail_lines, limit_bytes| LogOptions { tail_lines, limit_bytes, ..LogOptions::default() };
        for (options, expected) in [
            (with(None, None), "one\ntwo\nthree\n"),
            (with(Some(0), None), ""),
            (with(Some(1), None), "three\n"),
            (with(Some(2), None), "two\nthree\n"),
            (with(Some(9), None), "one\ntwo\nthree\n"),
            (with(Some(2), Some(5)), "two\nt"),
        ] {
            assert_eq!(read(&logs, options).await, expected, "{options:?}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn a_followed_log_ends_with_its_run() {
        let (root, logs) = written("follow", "one\n");
        let file = path(&root, "dev", "p", "c");
        let mark = Running::mark(&file);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = logs.open("dev", "p", "c", options).unwrap();
        assert_eq!(stream.next().await.unwrap(), "one\n");
        let mut more = OpenOptions::new().append(true).open(&file).unwrap();
        io::Write::write_all(&mut more, b"two\n").unwrap();
        assert_eq!(stream.next().await.unwrap(), "two\n");
        drop(mark);
        assert_eq!(stream.next().await, None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_missing_log_is_explained() {
        let logs = Logs::new("/nonexistent");
        let message = logs.open("dev", "p", "c", LogOptions::default()).err().unwrap();
        assert_eq!(message, "container \"c\" in pod \"p\" is waiting to start");
    }
}
