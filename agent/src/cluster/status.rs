//! The one writer of an Environment's status, and the fence against a second one.

use engine::object::Digest;
use serde_json::{Value, json};

use super::Cluster;
use super::environments::environment_kind;
use super::error::Error;
use super::request::{Call, Target};
use crate::api::{Environment, EnvironmentStatus};

/// Writes the status of one Environment.
///
/// Each write names the resource version that it is based on. When somebody else changed the object in
/// the meantime the stored rollout decides: if it is the one that this writer knows, the change was
/// somewhere else (a person edited the specification) and the write is repeated on top of it; if not,
/// another agent works on the environment and this one must stop.
#[derive(Debug)]
pub struct StatusWriter {
    namespace: String,
    name: String,
    uid: Option<String>,
    spec: Value,
    resource_version: String,
    /// The status as it is stored, as far as this writer knows.
    status: EnvironmentStatus,
    /// Digests of the rollouts that may be stored: the last one written, and those whose writing was
    /// not confirmed.
    known: Vec<Option<Digest>>,
    /// Whether a write succeeded: before that, what was read may be older than what is stored, and only a
    /// write finds out.
    confirmed: bool,
}

impl StatusWriter {
    /// Takes over from what the Environment holds.
    pub fn new(environment: &Environment) -> Self {
        let status = environment.status.clone().unwrap_or_default();
        Self {
            namespace: environment.namespace().to_owned(),
            name: environment.name().to_owned(),
            uid: environment.metadata.uid.clone(),
            spec: serde_json::to_value(&environment.spec).unwrap_or_default(),
            resource_version: environment.metadata.resource_version.clone().unwrap_or_default(),
            known: vec![status.rollout.as_ref().map(Digest::of)],
            confirmed: false,
            status,
        }
    }

    /// The status as it was last written or read.
    pub fn status(&self) -> &EnvironmentStatus {
        &self.status
    }

    /// Stores a status. Storing what is stored already does nothing.
    ///
    /// # Errors
    /// [`Error::Superseded`] when another agent has written a rollout; [`Error::NotFound`] when the
    /// Environment is gone or was made anew; [`Error::NotLeader`].
    pub async fn write(&mut self, cluster: &Cluster, status: EnvironmentStatus) -> Result<(), Error> {
        if self.confirmed && status == self.status && self.known.len() == 1 {
            return Ok(());
        }
        let kind = environment_kind();
        let digest = status.rollout.as_ref().map(Digest::of);
        if !self.known.contains(&digest) {
            self.known.push(digest);
        }
        loop {
            let body = json!({
                "apiVersion": "holdfast.dev/v1alpha1",
                "kind": "Environment",
                "metadata": {
                    "name": self.name,
                    "namespace": self.namespace,
                    "uid": self.uid,
                    "resourceVersion": self.resource_version,
                },
                "spec": self.spec,
                "status": status,
            });
            let target = Target::object(&kind, Some(&self.namespace), &self.name);
            match cluster.call(Call::update(target.subresource("status"), &body)).await {
                Ok(stored) => {
                    self.resource_version = resource_version(&stored);
                    self.confirmed = true;
                    // The server's own form of the rollout is what a later look is compared with.
                    let stored =
                        stored.get("status").and_then(|status| status.get("rollout")).map(Digest::of);
                    self.known = vec![stored];
                    if stored != digest {
                        self.known.push(digest);
                    }
                    self.status = status;
                    return Ok(());
                }
                Err(Error::Conflict { .. }) => {
                    let current = cluster.call(Call::get(target)).await?;
                    self.rebase(&current)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on from what is stored now, if it is still this writer's.
    fn rebase(&mut self, current: &Value) -> Result<(), Error> {
        let key = || format!("{}/{}", self.namespace, self.name);
        if self.uid.as_deref() != current["metadata"]["uid"].as_str() {
            return Err(Error::NotFound {
                what: format!("Environment.holdfast.dev {}", key()),
                message: "it was deleted and made anew".to_owned(),
            });
        }
        let stored = current.get("status").and_then(|status| status.get("rollout")).map(Digest::of);
        if !self.known.contains(&stored) {
            return Err(Error::Superseded(key()));
        }
        self.resource_version = resource_version(current);
        self.spec = current["spec"].clone();
        Ok(())
    }
}

fn resource_version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}
