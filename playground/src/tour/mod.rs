//! The tour: the whole loop, shown step by step, each with a deadline and a check against the cluster.

mod bad_merge;
mod broken_merge;
mod drift;
mod evidence;
mod first_deploy;
mod merge;
mod told;

use std::path::Path;
use std::time::{Duration, Instant};

use agent::api::{Environment, EnvironmentStatus};
use engine::rollout::Outgoing;
use kube::{Api, Client};

use crate::environment;
use crate::print::Printer;
use crate::repository::{self, Repository};
use crate::shop;
use crate::slack::Slack;
use crate::traffic::Traffic;
use crate::watch::{self, Check, TooLate};

/// Everything that the steps use.
pub struct Stage<'a> {
    /// Where events are printed.
    pub printer: &'a Printer,
    /// The cluster.
    pub client: &'a Client,
    /// The team's repository.
    pub repository: &'a Repository,
    /// The shop's address, through the Ingress.
    pub shop_url: &'a str,
    /// The program `holdfast`, for its command line.
    pub holdfast: &'a Path,
    /// The local Slack; none when messages go to the real one.
    pub slack: Option<&'a Slack>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something did not happen in time.
    #[error(transparent)]
    TooLate(#[from] TooLate),
    /// Something happened that must not.
    #[error("expected {expected}; saw {seen}")]
    Unexpected {
        /// What should have been.
        expected: String,
        /// What was.
        seen: String,
    },
    /// The repository cannot be changed or read.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// The Environment cannot be put in place.
    #[error(transparent)]
    Environment(#[from] environment::Error),
    /// The API server refused a change of the step itself.
    #[error("the API server refused {what}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// An HTTP request of the step itself failed.
    #[error("{what} failed: {source}")]
    Http {
        /// What was asked.
        what: String,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// A program of the step itself failed.
    #[error("{what} failed: {problem}")]
    Program {
        /// What was run.
        what: String,
        /// What it said.
        problem: String,
    },
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {number}, {title}: {source}")]
pub struct Failure {
    /// Its number.
    pub number: usize,
    /// Its title.
    pub title: &'static str,
    /// Why.
    pub source: Error,
}

/// What the tour showed, in figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How long it took.
    pub took: Duration,
    /// From the push of the good version to its first write, where it was seen.
    pub applied: Duration,
    /// The longest that a drift lasted.
    pub drift: Duration,
    /// Share of all requests of the bad merge's time that saw the bad version, between 0 and 1.
    pub exposed: f64,
    /// Requests altogether.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
    /// Failed ones that the bad version did not answer.
    pub failed_otherwise: u64,
}

/// Runs all steps.
///
/// # Errors
///
/// The first step that fails.
pub async fn run(stage: &Stage<'_>) -> Result<(Summary, Traffic), Failure> {
    let begin = Instant::now();
    let mut number = 0;
    let mut step = |title: &'static str| {
        number += 1;
        stage.printer.step(number, title);
        move |source: Error| Failure { number, title, source }
    };

    let failed = step("First deploy: an empty cluster, a branch with a shop in it");
    let traffic = first_deploy::run(stage).await.map_err(failed)?;

    let failed = step("A merge: a new version");
    let applied = merge::run(stage, &traffic).await.map_err(failed)?;

    let failed = step("Drift: somebody changes the cluster by hand");
    let drift = drift::run(stage, &traffic).await.map_err(failed)?;

    let failed = step("A bad merge: a version that fails a share of its requests");
    let (bad, exposed) = bad_merge::run(stage, &traffic).await.map_err(failed)?;

    let failed = step("A broken merge: a commit that does not render");
    broken_merge::run(stage).await.map_err(failed)?;

    let failed = step("Slack: what the team read meanwhile");
    told::run(stage).await.map_err(failed)?;

    let failed = step("Evidence: the audit branch");
    evidence::run(stage).await.map_err(failed)?;

    let tally = traffic.tally();
    let took = begin.elapsed();
    let of_the_bad = tally.by_version.get(&bad).map_or(0, |answers| answers.failed);
    let summary = Summary {
        took,
        applied,
        drift,
        exposed,
        requests: tally.requests,
        failed: tally.failed,
        failed_otherwise: tally.failed.saturating_sub(of_the_bad),
    };
    Ok((summary, traffic))
}

impl Stage<'_> {
    fn environments(&self) -> Api<Environment> {
        Api::namespaced(self.client.clone(), environment::NAMESPACE)
    }

    /// Commits and pushes, and says so.
    fn push(&self, subject: &str) -> Result<repository::Commit, Error> {
        let begin = Instant::now();
        let commit = self.repository.commit_and_push(subject)?;
        self.printer.done(begin.elapsed(), format!("pushed {} “{}”", commit.short(), commit.subject));
        Ok(commit)
    }

    /// Waits until the Environment is Ready at a commit, and says on the way what it is doing: each phase
    /// that is news, with the time since `since`.
    async fn follow(&self, commit: &str, since: Instant, within: Duration) -> Result<(), Error> {
        let mut phase = String::new();
        let expected = format!("Environment {} to be Ready at {}", shop::NAME, short(commit));
        watch::until_one(&self.environments(), shop::NAME, expected, within, |seen| {
            self.tell_phase(seen, commit, since, &mut phase);
            if environment::ready_at(seen, commit) {
                Check::Met(())
            } else {
                Check::Not(environment::described(seen))
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until everything that the Environment has to tell is where `done` says, and returns its status.
    async fn outbox(
        &self,
        expected: &str,
        done: impl Fn(&Outgoing) -> bool,
    ) -> Result<EnvironmentStatus, Error> {
        let within = Duration::from_secs(20);
        let status = watch::until_one(&self.environments(), shop::NAME, expected, within, |seen| {
            let status = seen.and_then(|environment| environment.status.clone());
            let rollout = status.as_ref().and_then(|status| status.rollout().ok().flatten());
            match (status, rollout) {
                (Some(status), Some(rollout)) if rollout.outbox.iter().all(&done) => Check::Met(status),
                (_, Some(rollout)) => {
                    let waiting: Vec<&str> = rollout
                        .outbox
                        .iter()
                        .filter(|outgoing| !done(outgoing))
                        .map(|outgoing| outgoing.transition.message.as_str())
                        .collect();
                    Check::Not(format!("these still wait: {}", waiting.join("; ")))
                }
                _ => Check::Not(environment::described(seen)),
            }
        })
        .await?;
        Ok(status)
    }

    /// Says what an Environment is doing, if that is news and about `commit`.
    fn tell_phase(&self, seen: Option<&Environment>, commit: &str, since: Instant, told: &mut String) {
        let Some(status) = seen.and_then(|environment| environment.status.as_ref()) else { return };
        let Some(phase) = &status.phase else { return };
        let target = status.rollout().ok().flatten().and_then(|rollout| rollout.target);
        let about = target.is_some_and(|release| release.revision.commit == commit);
        if !about || phase == told {
            return;
        }
        told.clone_from(phase);
        let text = match phase.as_str() {
            "Applying" => "the agent has rendered it, checked it and writes it",
            "Converging" => "everything is written; pods are becoming ready",
            "Canary" => "a canary pod takes live traffic beside the old ones; its metrics are compared",
            "Observing" => "the whole release is out and is observed",
            "RollingBack" => "going back to the last settled release",
            // The end of it is the step's own to tell.
            _ => return,
        };
        self.printer.done(since.elapsed(), text);
    }
}

/// The first seven digits of a commit's id.
fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// An expectation that failed.
fn unexpected(expected: impl Into<String>, seen: impl Into<String>) -> Error {
    Error::Unexpected { expected: expected.into(), seen: seen.into() }
}

fn refused(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Refused { what, source: Box::new(source) }
}
