//! What can go wrong between the agent and the API server.

use engine::object::{Digest, GroupVersionKind, InvalidObject, ObjectRef};

/// A request to the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the cluster could be found.
    #[error(
        "no Kubernetes cluster is configured: {0}; give --kubeconfig, set KUBECONFIG, or run inside a cluster"
    )]
    Config(String),
    /// The server does not let this user do this.
    #[error("{who} may not {verb} {resource}{}: {message}; grant it with a Role and a RoleBinding", place(.namespace.as_deref()))]
    Forbidden {
        /// The user: `ServiceAccount holdfast-system/deployer`, or the agent itself.
        who: String,
        /// The verb of RBAC: `patch`, `create`, `delete`…
        verb: String,
        /// The resource with its group: `deployments.apps`.
        resource: String,
        /// The namespace; none for cluster-wide resources.
        namespace: Option<String>,
        /// The server's own words.
        message: String,
    },
    /// Credentials are missing or not accepted.
    #[error(
        "the API server does not accept the agent's credentials: {0}; renew the kubeconfig or the ServiceAccount's token"
    )]
    Unauthorized(String),
    /// The object, or its resource, does not exist.
    #[error("{what} does not exist: {message}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The server's own words.
        message: String,
    },
    /// The object exists already.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// Somebody else changed the object in the meantime.
    #[error("{what} was changed in the meantime: {message}")]
    Conflict {
        /// The object.
        what: String,
        /// The server's own words.
        message: String,
    },
    /// Other field managers own fields that the apply sets.
    #[error("{what} has fields owned by others: {}; take them with conflicts: Take, or leave them with conflicts: Yield", owners(.fields))]
    FieldConflict {
        /// The object.
        what: String,
        /// The fields and their managers.
        fields: Vec<FieldOwner>,
    },
    /// The server refuses the object.
    #[error("{what} is refused: {message}")]
    Invalid {
        /// The object.
        what: String,
        /// The server's own words.
        message: String,
        /// Whether every cause says that a field cannot be changed: only another object would do.
        immutable: bool,
    },
    /// The server does not answer, or cannot now.
    #[error("the API server did not {verb} {what} in {attempts} attempts: {message}")]
    Unavailable {
        /// The verb of the request.
        verb: String,
        /// What it was about.
        what: String,
        /// How often it was tried.
        attempts: u32,
        /// The last answer, or why there was none.
        message: String,
    },
    /// The server knows no such kind.
    #[error("the cluster has no kind {} in {}: install its CustomResourceDefinition, or correct apiVersion and kind", .0.kind, .0.api_version())]
    UnknownKind(GroupVersionKind),
    /// An answer is not what the API documents.
    #[error("the API server's answer about {what} cannot be read: {message}")]
    Malformed {
        /// What it was about.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A name cannot be part of a request.
    #[error("{0:?} cannot be the name of an object: it may not be empty, . or .., or contain / or %")]
    InvalidName(String),
    /// Another agent works on the environment.
    #[error("another agent has taken environment {0} over; this one stops working on it")]
    Superseded(String),
    /// This agent is not the leader, so it must not write.
    #[error("this agent is not the leader (any more): nothing is written")]
    NotLeader,
    /// A stored bundle is not there.
    #[error("the bundle {0} is not stored in the cluster; it is rendered anew from Git when it is needed")]
    BundleMissing(Digest),
    /// A stored bundle is not what it was.
    #[error(
        "the stored bundle {digest} is damaged: {message}; it is rendered anew from Git when it is needed"
    )]
    BundleDamaged {
        /// The bundle.
        digest: Digest,
        /// What is wrong with it.
        message: String,
    },
    /// The Environment has no UID: it was not read from a cluster.
    #[error("environment {0} has no uid: it was not read from a cluster")]
    NotStored(String),
}

/// A field and the manager that owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldOwner {
    /// The field, as the server writes it: `.spec.replicas`.
    pub field: String,
    /// The field manager.
    pub manager: String,
}

fn owners(fields: &[FieldOwner]) -> String {
    let texts: Vec<String> =
        fields.iter().map(|owner| format!("{} by {}", owner.field, owner.manager)).collect();
    texts.join(", ")
}

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
}

impl Error {
    /// A word for metrics.
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Forbidden { .. } => "forbidden",
            Self::Unauthorized(_) => "unauthorized",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists(_) => "already_exists",
            Self::Conflict { .. } => "conflict",
            Self::FieldConflict { .. } => "field_conflict",
            Self::Invalid { .. } => "invalid",
            Self::Unavailable { .. } => "unavailable",
            Self::UnknownKind(_) => "unknown_kind",
            Self::Malformed { .. } => "malformed",
            Self::InvalidName(_) => "invalid_name",
            Self::Superseded(_) => "superseded",
            Self::NotLeader => "not_leader",
            Self::BundleMissing(_) => "bundle_missing",
            Self::BundleDamaged { .. } => "bundle_damaged",
            Self::NotStored(_) => "not_stored",
        }
    }

    /// Whether the same request can succeed later although nobody changes anything in Git.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Conflict { .. } | Self::Malformed { .. } | Self::Unauthorized(_)
        )
    }

    /// Whether the agent has lost the right to write.
    pub fn is_lost_leadership(&self) -> bool {
        matches!(self, Self::Superseded(_) | Self::NotLeader)
    }
}

impl From<InvalidObject> for Error {
    fn from(error: InvalidObject) -> Self {
        Self::Malformed { what: "an object".to_owned(), message: error.to_string() }
    }
}

/// A failure that is about one object.
#[derive(Debug)]
pub struct ObjectError {
    /// The object.
    pub object: ObjectRef,
    /// What went wrong with it.
    pub error: Error,
}

impl std::fmt::Display for ObjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (object, error) = (self.object.to_string(), self.error.to_string());
        // Most errors begin with the object; once is enough.
        match error.strip_prefix(&object) {
            Some(rest) if rest.starts_with(' ') => f.write_str(&error),
            _ => write!(f, "{object}: {error}"),
        }
    }
}

impl std::error::Error for ObjectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_once() {
        let object = ObjectRef {
            group: String::new(),
            kind: "Service".into(),
            namespace: Some("a".into()),
            name: "b".into(),
        };
        let about = |error| ObjectError { object: object.clone(), error }.to_string();
        let invalid =
            Error::Invalid { what: "Service a/b".into(), message: "no ports".into(), immutable: false };
        assert_eq!(about(invalid), "Service a/b is refused: no ports");
        let other = Error::AlreadyExists("Service a/bc".into());
        assert_eq!(about(other), "Service a/b: Service a/bc exists already");
    }
}
