//! What an environment waits for in other environments.

use engine::rollout::{DoorProblem, HoldReason};

use super::services::Services;
use crate::api::{Environment, EnvironmentReference};

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
