//! What an environment waits for in other environments.

use std::sync::Arc;
use std::time::Duration;

use engine::object::Digest;
use engine::rollout::{DoorProblem, HoldReason, Rollout};
use jiff::{SignedDuration, Timestamp};

use super::candidate::{self, Candidate};
use super::materials::{Materials, Supplies};
use super::services::Services;
use crate::api::{Environment, EnvironmentReference};

/// How long the cluster may take to give what the render of another environment needs.
const SUPPLIED_WITHIN: Duration = Duration::from_secs(10);

impl Environment {
    /// Whether this environment waits for one of that namespace and name before it deploys.
    pub(super) fn waits_for(&self, other: &Environment) -> bool {
        let is = |namespace: Option<&str>, name: &str| {
            namespace.unwrap_or(self.namespace()) == other.namespace() && name == other.name()
        };
        let depends = self.spec.depends_on.iter().any(|on| is(on.namespace.as_deref(), &on.name));
        let after = self.spec.rollout.after.iter().any(|after| is(after.namespace.as_deref(), &after.name));
        depends || after
    }
}

/// A problem that goes away when an environment of that namespace changes. This agent sees it change, unless it
/// follows another namespace only: then it has to look again.
pub(super) fn waits(services: &Services, namespace: &str, message: String) -> DoorProblem {
    let unseen = services.options.namespace.as_deref().is_some_and(|followed| followed != namespace);
    DoorProblem { reason: HoldReason::AwaitsEnvironment, message, transient: unseen, again_at: None }
}

/// Reads another environment.
pub(super) async fn read(
    services: &Services,
    own: &Environment,
    namespace: Option<&str>,
    name: &str,
) -> Result<Environment, DoorProblem> {
    let namespace = namespace.unwrap_or(own.namespace());
    match services.cluster.environment(namespace, name).await {
        Ok(Some(other)) => Ok(other.as_ref().clone()),
        Ok(None) => {
            let message = format!("it waits for the environment {namespace}/{name}, which does not exist");
            Err(waits(services, namespace, message))
        }
        Err(error) => {
            let message = format!("it waits for the environment {namespace}/{name}: {error}");
            Err(DoorProblem { transient: true, ..waits(services, namespace, message) })
        }
    }
}

/// `spec.dependsOn`: every environment that this one builds on is Ready, as its newest specification asks.
pub(super) async fn dependencies_ready(services: &Services, own: &Environment) -> Result<(), DoorProblem> {
    for EnvironmentReference { name, namespace } in &own.spec.depends_on {
        let other = read(services, own, namespace.as_deref(), name).await?;
        if let Some(why) = unready(&other) {
            let message = format!("it waits for the environment {}, which is not ready: {why}", other.key());
            return Err(waits(services, other.namespace(), message));
        }
    }
    Ok(())
}

/// Why an environment does not count as ready.
fn unready(other: &Environment) -> Option<String> {
    let Some(status) = &other.status else { return Some("nothing is known of it yet".to_owned()) };
    if status.observed_generation != other.metadata.generation {
        return Some("its newest specification was not looked at yet".to_owned());
    }
    match status.condition("Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone()),
        None => Some("it has not said so yet".to_owned()),
    }
}

/// `spec.rollout.after`: what this commit means for each of these environments has settled there, and has been there for
/// the time of the soak.
///
/// Environments of different overlays never have equal bundles, and a status names the commit that brought a bundle, not
/// the newest one. So the commit is rendered for the other environment too, and its digest is looked for there: an
/// unrelated commit in between neither hides what has settled nor counts as settled.
pub(super) async fn settled_before(
    services: &Arc<Services>,
    own: &Environment,
    candidate: &Candidate,
) -> Result<(), DoorProblem> {
    for after in &own.spec.rollout.after {
        let other = read(services, own, after.namespace.as_deref(), &after.name).await?;
        let refused = |message: String| waits(services, other.namespace(), message);
        if other.spec.source.url != own.spec.source.url {
            let message = format!(
                "it comes after {}, which follows another repository: both must follow the same one",
                other.key()
            );
            return Err(refused(message));
        }
        let soak = match &after.soak {
            Some(soak) => {
                soak.parse().map_err(|error| refused(format!("spec.rollout.after: soak: {error}")))?
            }
            None => Duration::ZERO,
        };
        let digest = digest_there(services, &other, candidate).await.map_err(|message| {
            // What the render there needs may come without a change of the Environment.
            DoorProblem { transient: true, ..refused(message) }
        })?;
        let rollout = other.status.as_ref().and_then(|status| status.rollout().ok().flatten());
        let soaked = soaked(&other.key(), rollout.as_ref(), digest, soak, Timestamp::now());
        soaked.map_err(|(message, again_at)| DoorProblem { again_at, ..refused(message) })?;
    }
    Ok(())
}

/// What the candidate's commit renders to for another environment.
async fn digest_there(
    services: &Arc<Services>,
    other: &Environment,
    candidate: &Candidate,
) -> Result<Digest, String> {
    let key = other.key();
    let materials = tokio::time::timeout(SUPPLIED_WITHIN, supplied(services, other))
        .await
        .map_err(|_| format!("it comes after {key}, whose keys and values cannot be read"))?
        .map_err(|message| format!("it comes after {key}: {message}"))?;
    let (snapshot, spec, services) = (candidate.snapshot.clone(), other.spec.clone(), Arc::clone(services));
    let rendered = tokio::task::spawn_blocking(move || {
        candidate::candidate(&snapshot, &spec, &materials, None, &services.renders)
    });
    match rendered.await {
        Ok(Ok(rendered)) => Ok(rendered.candidate().release.digest),
        Ok(Err(problem)) => {
            Err(format!("it comes after {key}, for which it does not render: {}", problem.message))
        }
        Err(_) => Err(format!("it comes after {key}, for which the renderer failed")),
    }
}

async fn supplied(services: &Services, other: &Environment) -> Result<Materials, String> {
    let mut supplies = Supplies::follow(&services.cluster, other);
    loop {
        match supplies.materials(&other.spec).map_err(|problem| problem.message)? {
            Some(materials) => return Ok(materials),
            None => supplies.changed().await,
        }
    }
}

/// Whether a bundle has settled in another environment for long enough; if not, why, and when it will have.
fn soaked(
    key: &str,
    rollout: Option<&Rollout>,
    digest: Digest,
    soak: Duration,
    now: Timestamp,
) -> Result<(), (String, Option<Timestamp>)> {
    let settled = rollout.and_then(|rollout| Some((rollout, rollout.settled.as_ref()?)));
    let Some((rollout, settled)) = settled.filter(|(_, settled)| settled.digest == digest) else {
        let failed = rollout.and_then(|rollout| rollout.block_on(&digest));
        let message = match failed {
            Some(failed) => format!("it failed in {key}: {}", failed.message),
            None => format!("it has not settled in {key} yet"),
        };
        return Err((message, None));
    };
    if !rollout.progress.is_empty() && !rollout.phase.in_progress() {
        return Err((format!("{key} has it, and is not well: {}", rollout.progress), None));
    }
    let since = rollout.settled_at.unwrap_or(rollout.since);
    let until = since.checked_add(SignedDuration::try_from(soak).unwrap_or(SignedDuration::MAX));
    match until {
        Ok(until) if until <= now => Ok(()),
        Ok(until) => {
            let message = format!(
                "{} has to be settled in {key} until {until} before it goes out here",
                settled.revision.short()
            );
            Err((message, Some(until)))
        }
        Err(_) => Err((format!("the soak in {key} never ends"), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rollout::{Blocked, Release, Revision};

    #[test]
    fn a_soak_counts_from_when_the_bundle_settled() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let digest = Digest::of_bytes(b"b");
        let revision = Revision { commit: "abc".into(), reference: "main".into(), ..Revision::default() };
        let release = Release { digest, revision: revision.clone(), images: Vec::new(), objects: 1 };
        let mut rollout = Rollout::new("holdfast-system/staging", at("2026-01-01T00:00:00Z"));
        let soak = Duration::from_secs(1800);
        let look = |rollout: &Rollout, now| soaked("staging", Some(rollout), digest, soak, at(now));
        let (message, again) = look(&rollout, "2026-01-01T01:00:00Z").unwrap_err();
        assert_eq!((message.as_str(), again), ("it has not settled in staging yet", None));

        rollout.settled = Some(release);
        rollout.settled_at = Some(at("2026-01-01T01:00:00Z"));
        let (message, again) = look(&rollout, "2026-01-01T01:29:59Z").unwrap_err();
        assert_eq!(again, Some(at("2026-01-01T01:30:00Z")), "{message}");
        assert_eq!(look(&rollout, "2026-01-01T01:30:00Z"), Ok(()));
        rollout.progress = "2 of 3 pods are ready".to_owned();
        assert!(look(&rollout, "2026-01-01T01:30:00Z").unwrap_err().0.contains("2 of 3"));

        rollout.settled = None;
        rollout.blocked.push(Blocked {
            digest,
            revision,
            message: "errors".into(),
            at: at("2026-01-01T02:00:00Z"),
        });
        assert_eq!(look(&rollout, "2026-01-01T03:00:00Z").unwrap_err().0, "it failed in staging: errors");
    }
}
