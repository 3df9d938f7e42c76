//! The agent's log, as an operator's log store would hold it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The log file of an agent, one JSON object a line.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// The log at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every line that is whole and JSON.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.path)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Waits for a line that holds all of `words`, and returns it.
    ///
    /// # Errors
    ///
    /// When there is none `within` the time; the error shows the newest lines.
    pub async fn line_with(&self, words: &[&str], within: Duration) -> anyhow::Result<Value> {
        let begin = Instant::now();
        // A file cannot be awaited; it is read again until the deadline.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let lines = self.lines()?;
            let found = lines.iter().find(|line| {
                let text = line.to_string();
                words.iter().all(|word| text.contains(word))
            });
            if let Some(line) = found {
                return Ok(line.clone());
            }
            if begin.elapsed() > within {
                let newest: Vec<String> = lines.iter().rev().take(10).map(Value::to_string).collect();
                anyhow::bail!(
                    "expected a log line with {words:?} within {within:?}; the newest are\n{}",
                    newest.join("\n")
                );
            }
        }
    }
}
