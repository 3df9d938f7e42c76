//! Readiness of any object, from what its status says.
//!
//! The rules are those of kstatus
//! (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>), with known gaps
//! closed: a Job that has started is not done, and a load balancer needs an address.

mod canary;
mod conditions;
mod pod;
mod workload;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use canary::canary_ready;
pub use pod::{Problem, pod_problem};

/// How ready an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health")]
pub enum Health {
    /// It does what its specification says.
    Ready,
    /// It is on its way; time may bring it there.
    Progressing {
        /// The reason as a word in CamelCase.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// It will not become ready by waiting.
    Failed {
        /// The reason as a word in CamelCase.
        reason: String,
        /// In a sentence.
        message: String,
    },
}

impl Health {
    /// On its way.
    pub fn progressing(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Progressing { reason: reason.into(), message: clipped(message.into()) }
    }

    /// Failed.
    pub fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), message: clipped(message.into()) }
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Progressing { reason, message } => write!(f, "progressing ({reason}): {message}"),
            Self::Failed { reason, message } => write!(f, "failed ({reason}): {message}"),
        }
    }
}

/// How ready an object is, from the object as the API server has it.
///
/// A kind that nothing is known about, and whose status says nothing, is ready as soon as it exists.
pub fn of(object: &Value) -> Health {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Health::progressing("Terminating", "it is being deleted");
    }
    if let Some(stale) = conditions::not_observed(object) {
        return stale;
    }
    let api_version = text(&object["apiVersion"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, text(&object["kind"])) {
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("batch", "Job") => workload::job(object),
        ("", "ReplicationController") => workload::replica_set(object),
        ("", "Pod") => pod::pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "Service") => service(object),
        ("", "Namespace") => namespace(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => conditions::definition(object),
        ("apiregistration.k8s.io", "APIService") => conditions::must_be_true(object, "Available"),
        // Controllers that always say how it went, a moment after the object was made: until then nothing is known, and
        // an environment that depends on theirs must not go ahead.
        ("external-secrets.io", "ExternalSecret" | "SecretStore" | "ClusterSecretStore")
        | ("cert-manager.io", "Certificate" | "Issuer" | "ClusterIssuer") => {
            conditions::must_be_true(object, "Ready")
        }
        (group, _) if group.ends_with(".services.k8s.aws") => conditions::aws(object),
        // Their conditions speak of what they watch, not of themselves.
        ("autoscaling", _) | ("networking.k8s.io", _) | ("policy", _) | ("batch", "CronJob") => Health::Ready,
        _ => conditions::standard(object),
    }
}

fn claim(object: &Value) -> Health {
    match text(&object["status"]["phase"]) {
        "Bound" => Health::Ready,
        "Lost" => Health::failed("ClaimLost", "the volume that it was bound to is gone"),
        phase => Health::progressing("NotBound", format!("its phase is {}, not Bound", or_none(phase))),
    }
}

fn service(object: &Value) -> Health {
    let addressed =
        object["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|list| !list.is_empty());
    if text(&object["spec"]["type"]) == "LoadBalancer" && !addressed {
        return Health::progressing("NoAddress", "the load balancer has no address yet");
    }
    Health::Ready
}

fn namespace(object: &Value) -> Health {
    match text(&object["status"]["phase"]) {
        "Terminating" => Health::progressing("Terminating", "it is being deleted"),
        _ => Health::Ready,
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "not set" } else { text }
}

/// Cuts a text that somebody else wrote to a length that fits into a status.
fn clipped(mut text: String) -> String {
    const KEPT: usize = 1024;
    if text.len() > KEPT {
        text.truncate(text.floor_char_boundary(KEPT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
