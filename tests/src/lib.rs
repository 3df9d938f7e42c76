//! End-to-end scenarios, conformance, crash and fault suites, benchmarks.
//!
//! A scenario starts a [`World`]: a cluster, a Git repository, a Slack and the agent as a process of its own,
//! all on this machine and apart from every other world, so that scenarios run side by side. It then does
//! what people do (commit, push, edit, kill) and waits by watches, each wait with a deadline.

mod git;
mod kubectl;
mod log;
mod world;

pub use git::{delete_branch, silent_server};
pub use kubectl::Kubectl;
pub use log::Log;
pub use world::{Options, World, small_environment, took};

/// Why a suite does not run here, printed so that nobody takes it for passed.
pub fn skipped(suite: &str, reason: &str) {
    eprintln!("SKIPPED {suite}: {reason}");
}
