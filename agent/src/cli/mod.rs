//! The command line of the one binary: `holdfast`.
//!
//! Exit codes as kubectl users expect: 0 done, 1 an error, 2 wrong usage (and, for `diff`, 1 means that
//! there are differences).

mod audit;
mod compare;
mod daemon;
mod explain;
mod install;
mod local;
mod remote;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Merge to deploy: keeps Kubernetes equal to a Git branch, proves every rollout, undoes the bad ones.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: reconcile every Environment of the cluster
    Agent(daemon::AgentArgs),
    /// Print what a folder renders to
    Render(local::RenderArgs),
    /// Render folders and check them against the policies, as the agent would
    Check(local::CheckArgs),
    /// Show what deploying a folder would change in the cluster; exit code 1 if anything
    Diff(compare::DiffArgs),
    /// Show what was deployed, when, and what became of it, from Git alone
    History(audit::HistoryArgs),
    /// Print the manifests that install Holdfast in a cluster
    Install(install::InstallArgs),
    /// Show Environments: what serves, where the rollout is, what next
    Status(remote::StatusArgs),
    /// Ask for a reconciliation now
    Sync(remote::TargetArgs),
    /// Stop reconciling an Environment; what runs keeps running
    Suspend(remote::TargetArgs),
    /// Reconcile an Environment again
    Resume(remote::TargetArgs),
    /// Let the release that waits at the door pass, deletions included
    Approve(remote::ApproveArgs),
    /// Deploy the newest release again although it failed before
    Retry(remote::TargetArgs),
    /// Go back to the last settled release
    Rollback(remote::TargetArgs),
    /// Read and verify the evidence in Git
    #[command(subcommand)]
    Audit(audit::AuditCommand),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

/// Which cluster is talked to.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// Kubeconfig file; otherwise $KUBECONFIG, ~/.kube/config or the Pod's own service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the Environments
    #[arg(short, long, default_value = "holdfast-system")]
    namespace: String,
}

impl Cli {
    /// Runs the command and says how the process ends.
    ///
    /// # Errors
    /// A sentence for the user, with its causes.
    pub fn run(self) -> anyhow::Result<std::process::ExitCode> {
        crate::tls::install();
        match self.command {
            Command::Agent(args) => daemon::run(args),
            Command::Render(args) => local::render(args),
            Command::Check(args) => local::check(args),
            Command::Diff(args) => compare::diff(args),
            Command::History(args) => audit::history(args),
            Command::Install(args) => install::run(args),
            Command::Status(args) => remote::status(args),
            Command::Sync(args) => remote::sync(args),
            Command::Suspend(args) => remote::suspend(args, true),
            Command::Resume(args) => remote::suspend(args, false),
            Command::Approve(args) => remote::approve(args),
            Command::Retry(args) => remote::retry(args),
            Command::Rollback(args) => remote::rollback(args),
            Command::Audit(command) => audit::run(command),
        }
    }
}

/// Rows with aligned columns, the first one the heading. The last column is as wide as it likes.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let rows =
            [["NAME", "MESSAGE"], ["dev", ""], ["staging", "settled"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "NAME      MESSAGE\ndev\nstaging   settled\n");
    }
}
