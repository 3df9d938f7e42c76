//! From a transition to its evidence record.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use engine::audit::{Context, PolicyEvidence};
use engine::object::Digest;
use engine::rollout::Transition;
use tokio::sync::watch;

use super::services::Services;
use crate::api::{AuditTip, Environment};
use crate::evidence::{EvidenceTarget, Progress};
use crate::secret::Secret;

/// What the policies said about the bundles that were checked lately, by environment and bundle.
#[derive(Debug, Default)]
pub struct Judgements(RwLock<HashMap<(String, Digest), PolicyEvidence>>);

impl Judgements {
    /// More than this many are not kept: they belong to releases that are long out.
    const KEPT: usize = 10_000;

    /// Keeps a judgement until its transitions are recorded.
    pub fn keep(&self, environment: &str, digest: Digest, evidence: PolicyEvidence) {
        let mut judgements = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if judgements.len() >= Self::KEPT {
            judgements.clear();
        }
        judgements.insert((environment.to_owned(), digest), evidence);
    }

    fn of(&self, environment: &str, digest: Digest) -> PolicyEvidence {
        let judgements = self.0.read().unwrap_or_else(PoisonError::into_inner);
        judgements.get(&(environment.to_owned(), digest)).cloned().unwrap_or_default()
    }
}

/// Records a transition on the environment's evidence branch: safe on this machine when this returns, and
/// on its way to the repository. Recording it again does no harm.
///
/// # Errors
/// A sentence; the caller tries again.
pub async fn record(
    services: &Services,
    environment: &Environment,
    transition: &Transition,
    anchor: Option<&AuditTip>,
) -> Result<(AuditTip, watch::Receiver<Progress>), String> {
    let target = target(services, environment).await?;
    let digest = transition.release.as_ref().map(|release| release.digest);
    let context = Context {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        policies: digest.map(|digest| services.judgements.of(&environment.key(), digest)).unwrap_or_default(),
    };
    let anchor = match anchor {
        Some(tip) => {
            let digest = tip.digest.parse().map_err(|error| format!("status.audit.digest: {error}"))?;
            Some((tip.sequence, digest))
        }
        None => None,
    };
    let written = services
        .evidence
        .append(&target, transition, &context, anchor)
        .await
        .map_err(|error| format!("branch {}: {error}", target.branch))?;
    let progress = services.evidence.progress(&target).map_err(|error| error.to_string())?;
    let tip =
        AuditTip { sequence: written.sequence, digest: written.digest.to_string(), commit: written.commit };
    Ok((tip, progress))
}

/// How far the records of an environment have come, and every change of that.
///
/// # Errors
/// A sentence, when the target cannot be known now.
pub async fn progress(
    services: &Services,
    environment: &Environment,
) -> Result<watch::Receiver<Progress>, String> {
    let target = target(services, environment).await?;
    services.evidence.progress(&target).map_err(|error| error.to_string())
}

async fn target(services: &Services, environment: &Environment) -> Result<EvidenceTarget, String> {
    let credentials = services.credentials(environment).await.map_err(|problem| problem.message)?;
    let reference = environment.spec.audit.as_ref().and_then(|audit| audit.signing_key_ref.as_ref());
    let signing_key = match reference {
        None => None,
        Some(reference) => {
            let data = services
                .cluster
                .secret(environment.namespace(), &reference.name)
                .await
                .map_err(|error| format!("spec.audit.signingKeyRef {}: {error}", reference.name))?;
            let key = ["identity", "ssh-privatekey", "key"].iter().find_map(|key| data.get(*key));
            let key = key.and_then(|key| String::from_utf8(key.clone()).ok());
            let missing =
                || format!("Secret {} has no SSH key under `identity` or `ssh-privatekey`", reference.name);
            Some(Secret::new(key.ok_or_else(missing)?))
        }
    };
    Ok(EvidenceTarget {
        url: environment.spec.source.url.clone(),
        credentials,
        branch: environment.audit_branch(),
        environment: environment.key(),
        signing_key,
    })
}
