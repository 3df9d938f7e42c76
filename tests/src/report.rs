//! The table of scenarios and the clusters that they ran on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::Kind;

/// Outcomes by scenario and cluster. Runs on different clusters add to the same table through a file.
#[derive(Debug, Default)]
pub struct Report {
    rows: Mutex<BTreeMap<String, BTreeMap<Kind, Outcome>>>,
}

/// How a scenario ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    passed: bool,
    took: Duration,
}

impl Report {
    /// Adds how a scenario ended on a cluster.
    pub fn add(&self, scenario: &str, cluster: Kind, passed: bool, took: Duration) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(scenario.to_owned()).or_default().insert(cluster, Outcome { passed, took });
    }

    /// Adds what a file holds that is not older than `since`; what is there already stays.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, file: &Path, since: SystemTime) -> std::io::Result<()> {
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.modified()? >= since => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let text = std::fs::read_to_string(file)?;
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let mut fields = line.split('\t');
            let (Some(scenario), Some(Ok(cluster)), Some(passed), Some(Ok(took))) = (
                fields.next(),
                fields.next().map(str::parse::<Kind>),
                fields.next().map(|word| word == "passed"),
                fields.next().map(str::parse),
            ) else {
                continue;
            };
            let outcome = Outcome { passed, took: Duration::from_millis(took) };
            rows.entry(scenario.to_owned()).or_default().entry(cluster).or_insert(outcome);
        }
        Ok(())
    }

    /// Writes everything to a file for the next run.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (scenario, outcomes) in rows.iter() {
            for (cluster, outcome) in outcomes {
                let word = if outcome.passed { "passed" } else { "failed" };
                let _ = writeln!(text, "{scenario}\t{cluster}\t{word}\t{}", outcome.took.as_millis());
            }
        }
        std::fs::write(file, text)
    }

    /// The table, a column for each cluster that anything ran on.
    pub fn table(&self) -> String {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clusters: Vec<Kind> = rows.values().flat_map(|outcomes| outcomes.keys().copied()).collect();
        clusters.sort();
        clusters.dedup();
        let width = rows.keys().map(String::len).max().unwrap_or(0).max("scenario".len());
        let mut text = format!("{:width$}", "scenario");
        for cluster in &clusters {
            let _ = write!(text, "  {cluster:>15}");
        }
        text.push('\n');
        for (scenario, outcomes) in rows.iter() {
            let _ = write!(text, "{scenario:width$}");
            for cluster in &clusters {
                let cell = outcomes.get(cluster).map_or_else(String::new, |outcome| {
                    let word = if outcome.passed { "passed" } else { "FAILED" };
                    format!("{word} {:6.1} s", outcome.took.as_secs_f64())
                });
                let _ = write!(text, "  {cell:>15}");
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_to_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scenarios.tsv");
        let first = Report::default();
        first.add("drift::corrected", Kind::Embedded, true, Duration::from_millis(1240));
        first.write(&file).unwrap();
        let second = Report::default();
        second.add("drift::corrected", Kind::ControlPlane, false, Duration::from_millis(5000));
        second.read(&file, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            second.table(),
            "scenario                 embedded    control-plane\n\
             drift::corrected  passed    1.2 s  FAILED    5.0 s\n"
        );
        let later = Report::default();
        later.read(&file, SystemTime::now() + Duration::from_secs(60)).unwrap();
        assert_eq!(later.table(), "scenario\n", "what is older than the program is not its own");
    }
}
