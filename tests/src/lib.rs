//! End-to-end scenarios, conformance, crash and fault suites, benchmarks.
//!
//! A scenario starts a [`World`]: a Git repository, a Slack and the agent as a process of its own, with an embedded
//! cluster or in namespaces of a [`Shared`] one, apart from every other world, so that scenarios run side by side. It then does
//! what people do (commit, push, edit, kill) and waits by watches, each wait with a deadline.

mod git;
mod kubectl;
mod log;
mod report;
mod site;
mod world;

pub use git::{delete_branch, silent_server};
pub use kubectl::Kubectl;
pub use log::Log;
pub use report::Report;
pub use site::{Kind, Shared};
pub use world::{Options, Site, World, took};

/// Why a suite does not run here, printed so that nobody takes it for passed.
pub fn skipped(suite: &str, reason: &str) {
    eprintln!("SKIPPED {suite}: {reason}");
}
