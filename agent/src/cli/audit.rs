//! `holdfast audit`: the evidence of a branch, read from Git alone, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use engine::audit::Record;
use engine::rollout::Reason;

use crate::evidence;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print the records of an evidence branch, oldest first
    Log(BranchArgs),
    /// Verify that no record was changed, left out, cut off or played again
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct BranchArgs {
    /// Evidence branch, such as audit/dev
    branch: String,
    /// Repository; bare or with a work tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    branch: BranchArgs,
    /// Number of the newest record, from the Environment's status: a shortened branch is noticed
    #[arg(long, requires = "digest")]
    sequence: Option<u64>,
    /// Digest of the newest record, from the Environment's status
    #[arg(long, requires = "sequence")]
    digest: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Name of the Environment
    name: String,
    /// Evidence branch; audit/NAME otherwise
    #[arg(long)]
    branch: Option<String>,
    /// Repository; bare or with a work tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
    /// Every transition, not only begins and outcomes
    #[arg(long)]
    all: bool,
}

pub(super) fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let branch = args.branch.unwrap_or_else(|| format!("audit/{}", args.name));
    let mut rows = vec![["WHEN", "WHAT", "REVISION", "AUTHOR", "MESSAGE"].map(str::to_owned)];
    for (commit, bytes) in evidence::read(&args.repository, &branch)? {
        let record = Record::from_stored(&bytes).map_err(|error| anyhow::anyhow!("{commit}: {error}"))?;
        if !(args.all || record.reason.is_outcome() || record.reason == Reason::RolloutStarted) {
            continue;
        }
        let revision = record.release.as_ref().map(|release| &release.revision);
        let author =
            revision.map(|revision| revision.author.split(" <").next().unwrap_or_default().to_owned());
        rows.push([
            record.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            format!("{:?}", record.reason),
            revision.map(engine::rollout::Revision::short).unwrap_or_default(),
            author.unwrap_or_default(),
            record.message,
        ]);
    }
    print!("{}", super::table(&rows));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Log(args) => {
            for (commit, bytes) in evidence::read(&args.repository, &args.branch)? {
                println!("{commit} {}", String::from_utf8_lossy(&bytes));
            }
        }
        AuditCommand::Verify(args) => {
            let records = evidence::read(&args.branch.repository, &args.branch.branch)?;
            let anchor = match (args.sequence, args.digest) {
                (Some(sequence), Some(digest)) => Some((sequence, digest.parse()?)),
                _ => None,
            };
            let verified = engine::audit::verify(records, anchor)?;
            println!("{}: {verified}", args.branch.branch);
        }
    }
    Ok(ExitCode::SUCCESS)
}
