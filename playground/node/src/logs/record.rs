//! From a container's pipe into its file.

use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// The longest part of a line that is written at once; container runtimes have the same limit.
const LONGEST: usize = 16 * 1024;

/// Writes down what comes through the pipe until everybody who could write to it is gone.
///
/// # Errors
/// The pipe cannot be read in the background.
pub(crate) fn record(reader: PipeReader, file: File) -> io::Result<impl Future<Output = ()> + Send> {
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    Ok(write_down(reader, file))
}

async fn write_down(mut reader: pipe::Receiver, mut file: File) {
    let mut lines = Lines::default();
    let mut block = vec![0; LONGEST];
    loop {
        let read = match reader.read(&mut block).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the output of a container cannot be read any more");
                break;
            }
        };
        let written = lines.push(&block[..read], Timestamp::now());
        if let Err(error) = file.write_all(&written) {
            // It is read all the same: a full pipe would stop the process.
            tracing::debug!(%error, "the output of a container cannot be written down");
        }
    }
    let _ = file.write_all(&lines.end(Timestamp::now()));
}

/// Output on its way to lines.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    /// The log lines that further output completes.
    fn push(&mut self, output: &[u8], now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        for part in output.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                self.flush(&mut out, "F", now);
            }
            while self.begun.len() > LONGEST {
                let rest = self.begun.split_off(LONGEST);
                self.flush(&mut out, "P", now);
                self.begun = rest;
            }
        }
        out
    }

    /// The last line, if it has no end.
    fn end(&mut self, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.begun.is_empty() {
            self.flush(&mut out, "P", now);
        }
        out
    }

    fn flush(&mut self, out: &mut Vec<u8>, tag: &str, now: Timestamp) {
        out.extend_from_slice(format!("{now:.9} stdout {tag} ").as_bytes());
        out.append(&mut self.begun);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[&str]) -> String {
        let mut lines = Lines::default();
        let now = Timestamp::UNIX_EPOCH;
        let mut out: Vec<u8> = parts.iter().flat_map(|part| lines.push(part.as_bytes(), now)).collect();
        out.extend(lines.end(now));
        String::from_utf8(out).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout ", "")
    }

    #[test]
    fn output_is_cut_into_lines_wherever_it_was_cut_before() {
        for (parts, expected) in [
            (&["one\ntwo\n"][..], "F one\nF two\n"),
            (&["o", "ne\n\nt", "wo"], "F one\nF \nP two\n"),
            (&[], ""),
        ] {
            assert_eq!(written(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_written_in_parts() {
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(written(&[&long, "\n"]), format!("P {}\nF x\n", &long[1..]));
    }
}
