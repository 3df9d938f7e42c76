//! Evidence: what ran when and why, from Git alone.

use std::time::{Duration, Instant};

use agent::api::AuditTip;
use tokio::process::Command;

use super::{Error, Stage, unexpected};
use crate::print::counted;
use crate::repository::Commit;
use crate::shop;

const DEADLINE: Duration = Duration::from_secs(15);
/// Commits that are shown.
const SHOWN: usize = 25;

pub(super) async fn run(stage: &Stage<'_>) -> Result<(), Error> {
    let begin = Instant::now();
    let branch = format!("audit/{}", shop::NAME);
    let (log, tip) = pushed(stage, &branch).await?;
    stage.printer.done(
        begin.elapsed(),
        format!(
            "{} on branch {branch}, pushed by the agent: git log --oneline {branch}",
            counted(log.len(), "commit")
        ),
    );
    stage.printer.block(
        log.iter()
            .take(SHOWN)
            .map(|commit| format!("{} {}", commit.short(), commit.subject))
            .collect::<Vec<_>>()
            .join("\n"),
    );

    let begin = Instant::now();
    let said = verify(stage, &branch, &tip).await?;
    stage.printer.done(begin.elapsed(), format!("holdfast audit verify {branch}: {said}"));
    Ok(())
}

/// Waits until the branch in the team's repository holds the newest record that the Environment knows.
async fn pushed(stage: &Stage<'_>, branch: &str) -> Result<(Vec<Commit>, AuditTip), Error> {
    let status = stage.outbox("everything to be on record", |outgoing| outgoing.recorded).await?;
    let expected = format!("the newest record on branch {branch} of the repository");
    let tip = status.audit.ok_or_else(|| unexpected("an anchor in the status", "none"))?;
    // A branch of a local repository cannot be watched: it is read.
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let seen = match stage.repository.log(branch, 10_000) {
            Ok(log) if log.iter().any(|commit| commit.id == tip.commit) => return Ok((log, tip)),
            Ok(log) => counted(log.len(), "commit"),
            Err(error) => error.to_string(),
        };
        if begin.elapsed() > DEADLINE {
            return Err(unexpected(expected, seen));
        }
    }
}

/// Has `holdfast` verify the branch, and returns what it says.
async fn verify(stage: &Stage<'_>, branch: &str, anchor: &AuditTip) -> Result<String, Error> {
    let mut command = Command::new(stage.holdfast);
    command.args(["audit", "verify", branch, "--repository"]).arg(stage.repository.bare());
    // The anchor in the Environment's status: with it a shortened branch would be noticed.
    command.args(["--sequence", &anchor.sequence.to_string(), "--digest", &anchor.digest]);
    let failed =
        |problem: String| Error::Program { what: format!("holdfast audit verify {branch}"), problem };
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        let said = text(&output.stdout);
        Ok(said.strip_prefix(&format!("{branch}: ")).unwrap_or(&said).to_owned())
    } else {
        Err(failed(text(&output.stderr)))
    }
}
