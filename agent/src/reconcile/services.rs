//! What all environments share: the cluster, the sources, the evidence, the metrics.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use engine::kustomize::Cache;
use engine::object::ObjectRef;
use engine::rollout::SourceProblem;
use tokio::sync::watch;

use super::board::Board;
use super::evidence::Judgements;
use crate::api::Environment;
use crate::cluster::Cluster;
use crate::evidence::Evidence;
use crate::measure::Prober;
use crate::secret::Secret;
use crate::source::{Credentials, Reference, SourceSpec, SourceState, Sources};
use crate::telemetry::Telemetry;

/// What the daemon is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kubeconfig file; the usual places otherwise.
    pub kubeconfig: Option<PathBuf>,
    /// Where repositories and evidence are kept.
    pub data_dir: PathBuf,
    /// Address of the web page, metrics, probes and webhooks.
    pub http: SocketAddr,
    /// The namespace whose Environments are followed; all when none.
    pub namespace: Option<String>,
    /// Namespace of the leader election's Lease.
    pub lease_namespace: String,
    /// A directory that takes the place of every repository.
    pub source_dir: Option<PathBuf>,
    /// How long one fetch from Git may take.
    pub fetch_timeout: Duration,
    /// Prometheus for PromQL gates that name no address of their own.
    pub prometheus: Option<String>,
    /// Base address of Slack's API.
    pub slack_api: String,
    /// Bot token for environments that bring none.
    pub slack_token: Option<Secret<String>>,
    /// Channel for environments that name none.
    pub slack_channel: Option<String>,
    /// Incoming webhook for environments that bring no Secret.
    pub slack_webhook: Option<Secret<String>>,
    /// Secret that webhooks of forges are signed with.
    pub webhook_secret: Option<Secret<String>>,
    /// End when standard input closes.
    pub until_stdin_closes: bool,
}

/// What all environments share.
pub struct Services {
    /// The cluster.
    pub cluster: Cluster,
    /// Git repositories and directories.
    pub sources: Sources,
    /// What kustomizations rendered to, for the next environment or commit that includes them.
    pub renders: Cache,
    /// Evidence branches.
    pub evidence: Evidence,
    /// Reads metrics of pods and of Prometheus.
    pub prober: Prober,
    /// The agent's own metrics.
    pub telemetry: Telemetry,
    /// The command line.
    pub options: Options,
    /// Which environment wants which object.
    pub claims: Claims,
    /// What the policies said.
    pub judgements: Judgements,
    /// What the web page shows.
    pub board: Board,
    /// Whether all Environments of the cluster are known.
    pub ready: AtomicBool,
}

impl Services {
    /// Follows the source of an environment, with the credentials that its Secret has now.
    ///
    /// # Errors
    /// A [`SourceProblem`] when the Secret cannot be read or makes no sense.
    pub async fn subscribe(
        &self,
        environment: &Environment,
    ) -> Result<watch::Receiver<SourceState>, SourceProblem> {
        if let Some(directory) = &self.options.source_dir {
            return Ok(self.sources.subscribe_directory(directory));
        }
        let source = &environment.spec.source;
        let invalid = |message: String| SourceProblem {
            reason: "InvalidSpec".to_owned(),
            message,
            commit_at_fault: false,
        };
        let interval = environment.spec.source_interval().map_err(|error| invalid(error.to_string()))?;
        let reference = match (&source.branch, &source.tag, &source.commit) {
            (Some(branch), _, _) => Reference::Branch(branch.clone()),
            (_, Some(range), _) => Reference::Tag(range.clone()),
            (_, _, Some(commit)) => Reference::Commit(commit.clone()),
            (None, None, None) => {
                return Err(invalid("spec.source: set one of branch, tag and commit".to_owned()));
            }
        };
        let credentials = self.credentials(environment).await?;
        Ok(self.sources.subscribe(SourceSpec { url: source.url.clone(), reference, interval, credentials }))
    }

    /// What the Git server of an environment is shown.
    ///
    /// # Errors
    /// A [`SourceProblem`] when the Secret cannot be read or makes no sense.
    pub async fn credentials(&self, environment: &Environment) -> Result<Option<Credentials>, SourceProblem> {
        let Some(reference) = &environment.spec.source.secret_ref else {
            return Ok(None);
        };
        let problem = |message: String| SourceProblem {
            reason: "CredentialsFailed".to_owned(),
            message: format!("spec.source.secretRef {}: {message}", reference.name),
            commit_at_fault: false,
        };
        let data = self
            .cluster
            .secret(environment.namespace(), &reference.name)
            .await
            .map_err(|error| problem(error.to_string()))?;
        Credentials::from_secret(&data).map(Some).map_err(|error| problem(error.to_string()))
    }
}

/// Which environment wants which object: an object that moves from one to another is handed over, never
/// deleted on the way.
#[derive(Debug, Default)]
pub struct Claims {
    /// What the environments have written.
    held: RwLock<HashMap<ObjectRef, String>>,
    /// What they are about to write.
    intended: RwLock<HashMap<ObjectRef, String>>,
}

fn replace(map: &RwLock<HashMap<ObjectRef, String>>, environment: &str, objects: &[ObjectRef]) {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    map.retain(|_, owner| owner != environment);
    map.extend(objects.iter().map(|object| (object.clone(), environment.to_owned())));
}

fn of_another(
    map: &RwLock<HashMap<ObjectRef, String>>,
    object: &ObjectRef,
    environment: &str,
) -> Option<String> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    map.get(object).filter(|owner| *owner != environment).cloned()
}

impl Claims {
    /// The environment is about to want these objects: nobody may delete them meanwhile.
    pub fn intend(&self, environment: &str, objects: &[ObjectRef]) {
        replace(&self.intended, environment, objects);
    }

    /// From now on the environment wants these objects and no others.
    pub fn claim(&self, environment: &str, objects: &[ObjectRef]) {
        replace(&self.held, environment, objects);
    }

    /// The environment wants nothing any more.
    pub fn release(&self, environment: &str) {
        self.intend(environment, &[]);
        self.claim(environment, &[]);
    }

    /// The other environment that wants an object.
    pub fn other(&self, object: &ObjectRef, environment: &str) -> Option<String> {
        of_another(&self.held, object, environment)
    }

    /// The other environment that wants an object, or is about to.
    pub fn next(&self, object: &ObjectRef, environment: &str) -> Option<String> {
        self.other(object, environment).or_else(|| of_another(&self.intended, object, environment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_moves_is_never_nobody_s() {
        let object = ObjectRef {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: Some("shop".into()),
            name: "settings".into(),
        };
        let objects = std::slice::from_ref(&object);
        let claims = Claims::default();
        claims.claim("a", objects);
        claims.intend("b", objects);
        assert_eq!(claims.other(&object, "b").as_deref(), Some("a"));
        claims.claim("a", &[]);
        assert_eq!((claims.other(&object, "a"), claims.next(&object, "a").as_deref()), (None, Some("b")));
        claims.claim("b", objects);
        claims.release("b");
        assert_eq!(claims.next(&object, "a"), None);
    }
}
