//! The steps that are known to differ, and why (`EXCEPTIONS.txt`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is no exception.
    #[error("{path}:{line}: a line is `SECTION`, or `SCENARIO STEP REASON` below one: {text}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line.
        line: usize,
        /// The line.
        text: String,
    },
}

/// Steps by scenario and index, each with its reason.
pub type Steps = BTreeMap<(String, usize), String>;

/// Reads the exceptions of one kind of server: its section, as `[embedded]`, and the lines below.
///
/// # Errors
/// When the file cannot be read or has another form.
pub fn read(path: &Path, section: &str) -> Result<Steps, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text, section).map_err(|(line, text)| Error::Line { path: path.to_owned(), line, text })
}

fn parse(text: &str, section: &str) -> Result<Steps, (usize, String)> {
    let mut out = Steps::new();
    let mut current = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            current = Some(name);
            continue;
        }
        let malformed = || (number + 1, line.to_owned());
        let (scenario, rest) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
        let (step, reason) = rest.trim().split_once(char::is_whitespace).ok_or_else(malformed)?;
        let step = step.parse().map_err(|_| malformed())?;
        if current.ok_or_else(malformed)? == section {
            out.insert((scenario.to_owned(), step), reason.trim().to_owned());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_apart_and_reasons_are_needed() {
        let text = "# why\n[embedded]\na 3 it is so\n[real]\na  4  the version itself\n";
        let real = parse(text, "real").unwrap();
        assert_eq!(real.into_iter().collect::<Vec<_>>(), [(("a".into(), 4), "the version itself".into())]);
        assert_eq!(parse("[real]\na 4\n", "real").unwrap_err().0, 2);
        assert_eq!(parse("a 4 no section\n", "real").unwrap_err().0, 1);
    }
}
