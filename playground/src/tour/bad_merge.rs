//! A bad merge: a version that fails a share of its requests is caught by its canary and undone.

use std::time::{Duration, Instant};

use super::{Error, Stage, merge, unexpected};
use crate::print::grouped;
use crate::traffic::{Traffic, share};
use crate::watch::{self, Check};
use crate::{environment, shop};

const DEADLINE: Duration = Duration::from_secs(60);
/// The share of requests that the bad version fails.
const PERCENT: u8 = 40;

/// Returns the bad version, and the share of requests, between 0 and 1, that saw it.
pub(super) async fn run(stage: &Stage<'_>, traffic: &Traffic) -> Result<(String, f64), Error> {
    let good = shop::version(&stage.repository.read(shop::KUSTOMIZATION)?).unwrap_or_default().to_owned();
    let version = merge::release(stage, |text, version| {
        shop::with_fault(&shop::with_version(text, version)?, PERCENT)
    })?;
    let before = traffic.tally();
    let commit = stage.push(&format!("Release {version}, faster than ever"))?;
    let begin = Instant::now();
    stage.printer.note(format!("nobody knows yet that {version} fails {PERCENT} % of its requests"));

    let why = rolled_back(stage, &commit.id, begin).await?;
    stage.printer.done(begin.elapsed(), format!("rolled back: {why}"));
    merge::image(stage, &good).await?;
    let blocked = blocked(stage, &commit.id).await?;
    stage.printer.done(
        begin.elapsed(),
        format!(
            "{good} serves again; bundle {blocked} is blocked, so the next look at Git does not bring it back"
        ),
    );

    let seen = traffic.tally().since(&before);
    let exposed = seen.share_of(&version);
    let bad = seen.by_version.get(&version).copied().unwrap_or_default();
    stage.printer.note(format!(
        "{} of {} requests failed ({:.1} %); {:.1} % of the traffic ever saw {version}",
        grouped(seen.failed),
        grouped(seen.requests),
        share(seen.failed, seen.requests) * 100.0,
        exposed * 100.0
    ));
    if bad.requests == 0 {
        return Err(unexpected(format!("the canary of {version} to take traffic"), seen.to_string()));
    }
    if seen.failed > bad.failed {
        let expected = format!("no failed request but those of {version}");
        return Err(unexpected(expected, seen.to_string()));
    }
    Ok((version, exposed))
}

/// Waits until the commit is rolled back, and returns why.
async fn rolled_back(stage: &Stage<'_>, commit: &str, begin: Instant) -> Result<String, Error> {
    let mut phase = String::new();
    let expected = format!("Environment {} to be rolled back", shop::NAME);
    let why = watch::until_one(&stage.environments(), shop::NAME, expected, DEADLINE, |seen| {
        stage.tell_phase(seen, commit, begin, &mut phase);
        let rollout = seen.and_then(|environment| environment.status.as_ref()?.rollout().ok().flatten());
        match rollout {
            Some(rollout)
                if rollout.phase == engine::rollout::Phase::RolledBack
                    && rollout.target.as_ref().is_some_and(|target| target.revision.commit == commit) =>
            {
                Check::Met(rollout.failure.map(|failure| failure.message).unwrap_or_default())
            }
            _ => Check::Not(environment::described(seen)),
        }
    })
    .await?;
    Ok(why)
}

/// Waits until the commit's bundle is blocked, and returns its digest, shortened.
async fn blocked(stage: &Stage<'_>, commit: &str) -> Result<String, Error> {
    let expected = "the failed bundle to be blocked";
    let digest = watch::until_one(&stage.environments(), shop::NAME, expected, DEADLINE, |seen| {
        let rollout = seen.and_then(|environment| environment.status.as_ref()?.rollout().ok().flatten());
        let blocked = rollout.and_then(|rollout| {
            rollout
                .blocked
                .iter()
                .find(|blocked| blocked.revision.commit == commit)
                .map(|blocked| blocked.digest.short())
        });
        blocked.map_or_else(|| Check::Not(environment::described(seen)), Check::Met)
    })
    .await?;
    Ok(digest)
}
