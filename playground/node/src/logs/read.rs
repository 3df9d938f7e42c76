//! From a container's file to whoever asks for its output.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use super::{Line, path, previous, running};

/// Which part of a container's output is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container's run ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Put its time before each line.
    pub timestamps: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was said since then.
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// The output of a node's containers. It needs the node's state folder only, so it can exist before the node.
#[derive(Clone, Debug)]
pub struct Logs {
    root: PathBuf,
}

/// Bytes read at a time.
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
        let state = (file, Output::new(options), follow);
        Ok(stream::unfold(state, |(mut file, mut output, follow)| async move {
            loop {
                if output.left == 0 {
                    return None;
                }
                // Asked before the file is read, so that the last words are not missed.
                let running = follow.as_ref().is_some_and(|path| path.exists());
                let mut block = Vec::new();
                match file.by_ref().take(BLOCK as u64).read_to_end(&mut block) {
                    Ok(0) if running => tokio::time::sleep(LOOK).await,
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {
                        let bytes = output.push(&block);
                        if !bytes.is_empty() {
                            return Some((Bytes::from(bytes), (file, output, follow)));
                        }
                    }
                }
            }
        })
        .boxed())
    }
}

/// Log lines on their way to output.
struct Output {
    timestamps: bool,
    since: Option<Timestamp>,
    left: u64,
    /// The beginning of a log line whose end was not read yet.
    begun: Vec<u8>,
    /// Whether the last line's text goes on in the next.
    goes_on: bool,
}

impl Output {
    fn new(options: LogOptions) -> Output {
        Output {
            timestamps: options.timestamps,
            since: options.since,
            left: options.limit_bytes.unwrap_or(u64::MAX),
            begun: Vec::new(),
            goes_on: false,
        }
    }

    fn push(&mut self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in block.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if self.begun.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.begun);
                self.line(&line, &mut out);
            }
        }
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX);
        out.truncate(allowed);
        self.left = self.left.saturating_sub(out.len() as u64);
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else { return };
        if let Some(since) = self.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.timestamps && !self.goes_on {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.goes_on = !line.whole;
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
    use super::super::{Running, tail};
    use super::*;
    use std::fs::{self, OpenOptions};

    const ONE: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n";
    const TWO: &str = "2026-01-01T00:00:02.000000000Z stdout F two\n";
    const THREE: &str =
        "2026-01-01T00:00:03.000000000Z stdout P thr\n2026-01-01T00:00:03.500000000Z stdout F ee\n";

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
    async fn parts_are_cut_out_by_lines_bytes_and_time() {
        let (root, logs) = written("parts", &[ONE, TWO, THREE].concat());
        let all = LogOptions::default();
        let second = "2026-01-01T00:00:02Z".parse().unwrap();
        for (options, expected) in [
            (all, "one\ntwo\nthree\n"),
            (LogOptions { tail_lines: Some(0), ..all }, ""),
            (LogOptions { tail_lines: Some(3), ..all }, "two\nthree\n"),
            (LogOptions { tail_lines: Some(9), ..all }, "one\ntwo\nthree\n"),
            (LogOptions { limit_bytes: Some(5), ..all }, "one\nt"),
            (LogOptions { since: Some(second), ..all }, "two\nthree\n"),
            (
                LogOptions { timestamps: true, since: Some(second), ..all },
                "2026-01-01T00:00:02.000000000Z two\n2026-01-01T00:00:03.000000000Z three\n",
            ),
        ] {
            assert_eq!(read(&logs, options).await, expected, "{options:?}");
        }
        assert_eq!(tail(&path(&root, "dev", "p", "c"), 8).unwrap(), "o\nthree\n");
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn a_followed_log_ends_with_its_run() {
        let (root, logs) = written("follow", ONE);
        let file = path(&root, "dev", "p", "c");
        let mark = Running::mark(&file);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = logs.open("dev", "p", "c", options).unwrap();
        assert_eq!(stream.next().await.unwrap(), "one\n");
        let mut more = OpenOptions::new().append(true).open(&file).unwrap();
        // A line counts once it is whole.
        io::Write::write_all(&mut more, &TWO.as_bytes()[..10]).unwrap();
        io::Write::write_all(&mut more, &TWO.as_bytes()[10..]).unwrap();
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
