//! `holdfast audit`: the evidence of a branch, read from Git alone, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

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
