//! The logs of pods for `kubectl logs`: the node writes files, the API server asks for bytes.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apiserver::{LogRequest, LogStream, PodLogs};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// How often a followed log is looked at: a file cannot be awaited.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// The most that is looked through for the last lines of a log.
const TAIL: u64 = 8 * 1024 * 1024;

/// The log files of a node.
#[derive(Debug, Clone)]
pub struct NodeLogs {
    root: PathBuf,
}

impl NodeLogs {
    /// The logs of the node with this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl PodLogs for NodeLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, String>> {
        let current = node::log_path(&self.root, &request.namespace, &request.pod, &request.container);
        let path = if request.previous { node::previous_log_path(&current) } else { current };
        async move {
            let missing = |_| {
                let run = if request.previous { "previous run of " } else { "" };
                format!("{run}container \"{}\" in pod \"{}\" has no log", request.container, request.pod)
            };
            if request.timestamps || request.since_seconds.is_some() {
                return Err("the playground's node does not record when a line was written; \
                            ask without timestamps and since"
                    .to_owned());
            }
            let file = begin(&path, request.tail_lines).await.map_err(missing)?;
            let limit = request.limit_bytes.unwrap_or(u64::MAX);
            Ok(read(file, path, request.follow && !request.previous, limit))
        }
        .boxed()
    }
}

/// Opens a log where its last `lines` begin.
async fn begin(path: &Path, lines: Option<u64>) -> io::Result<File> {
    let mut file = File::open(path).await?;
    let Some(lines) = lines else { return Ok(file) };
    let length = file.metadata().await?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from)).await?;
    let mut end = Vec::new();
    (&mut file).take(TAIL).read_to_end(&mut end).await?;
    let skipped = u64::try_from(last_lines(&end, lines)).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(from.saturating_add(skipped))).await?;
    Ok(file)
}

/// Where the last `lines` lines of a text begin.
fn last_lines(text: &[u8], lines: u64) -> usize {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    let breaks = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let index = usize::try_from(lines - 1).unwrap_or(usize::MAX);
    breaks.map(|(at, _)| at + 1).nth(index).unwrap_or(0)
}

/// The bytes of a log from here on; with `follow` until the file is replaced or gone.
fn read(file: File, path: PathBuf, follow: bool, limit: u64) -> LogStream {
    stream::unfold((file, path, limit), move |(mut file, path, left)| async move {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        loop {
            // What cannot be read ends the log, as its end does.
            let read = if chunk.is_empty() { 0 } else { file.read(&mut chunk).await.unwrap_or(0) };
            if read > 0 {
                chunk.truncate(read);
                let left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
                return Some((Bytes::from(chunk), (file, path, left)));
            }
            if chunk.is_empty() || !follow || !same(&file, &path).await {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    })
    .boxed()
}

/// Whether the open file is still the one at its path: a restarted container writes to another.
#[cfg(unix)]
async fn same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(there)) => open.ino() == there.ino() && open.dev() == there.dev(),
        _ => false,
    }
}

/// Whether there is still a file at the path.
#[cfg(not(unix))]
async fn same(_: &File, path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(follow: bool, tail_lines: Option<u64>, limit_bytes: Option<u64>) -> LogRequest {
        LogRequest {
            namespace: "n".into(),
            pod: "p".into(),
            container: "c".into(),
            follow,
            previous: false,
            timestamps: false,
            tail_lines,
            since_seconds: None,
            limit_bytes,
        }
    }

    async fn all(stream: LogStream) -> String {
        let bytes: Vec<Bytes> = stream.collect().await;
        String::from_utf8(bytes.concat()).unwrap()
    }

    #[test]
    fn the_last_lines_are_found() {
        for (text, lines, begin) in [
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc", 2, 2),
            ("a\nb\n", 9, 0),
            ("a\n", 0, 2),
            ("", 3, 0),
            ("\n\n", 1, 1),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), begin, "{text:?} {lines}");
        }
    }

    #[tokio::test]
    async fn a_log_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = node::log_path(folder.path(), "n", "p", "c");
        let logs = NodeLogs::new(folder.path());
        let error = logs.open(request(false, None, None)).await.map(|_| ()).unwrap_err();
        assert_eq!(error, "container \"c\" in pod \"p\" has no log");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(all(logs.open(request(false, None, None)).await.unwrap()).await, "a\nb\nc\n");
        assert_eq!(all(logs.open(request(false, Some(2), None)).await.unwrap()).await, "b\nc\n");
        assert_eq!(all(logs.open(request(false, None, Some(3))).await.unwrap()).await, "a\nb");
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_until_its_file_is_replaced() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = node::log_path(folder.path(), "n", "p", "c");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "a\n").unwrap();
        let mut stream = NodeLogs::new(folder.path()).open(request(true, None, None)).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), "a\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"b\n").unwrap();
        assert_eq!(stream.next().await.unwrap(), "b\n");
        std::fs::remove_file(&path).unwrap();
        assert!(stream.next().await.is_none());
    }
}
