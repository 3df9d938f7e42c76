//! The custom resource `Environment`: what people write, and what the agent answers.

mod crd;
mod duration;
pub mod gate;
pub mod install;
mod settings;
mod spec;
mod status;

pub use crd::crd;
pub use duration::{DurationText, ParseDurationError};
pub use settings::SpecError;
pub use spec::{
    AfterSpec, ApprovalSpec, AuditSpec, CanarySpec, ConflictsSpec, DeletionBudgetSpec, DriftSpec,
    EnforcementSpec, Environment, EnvironmentReference, EnvironmentSpec, GROUP, IgnoreSpec, NotifySpec,
    PoliciesSpec, RollbackGitSpec, RollbackModeSpec, RollbackSpec, RolloutSpec, SecretHolder,
    SecretReference, SlackSpec, SourceSpec, SubstituteKind, SubstituteSource, SubstituteSpec, WindowSpec,
};
pub use status::{AuditTip, EnvironmentStatus, MessageState};

use engine::plan::Marks;
use gate::GateSpec;
use kube::api::ObjectMeta;

/// Annotations of an Environment by which people ask for something. The values of those that end in
/// `-at` are any text that was not there before, by custom the time.
pub mod annotation {
    /// Look at the source now.
    pub const RECONCILE: &str = "holdfast.dev/reconcile-requested-at";
    /// Deploy the newest release again, even if it is blocked.
    pub const RETRY: &str = "holdfast.dev/retry-requested-at";
    /// Go back to the last settled release.
    pub const ROLLBACK: &str = "holdfast.dev/rollback-requested-at";
    /// The digest of the bundle that may pass the door.
    pub const APPROVE: &str = "holdfast.dev/approve";
    /// Who asked, as far as the client knows: the CLI writes it for the evidence.
    pub const ACTOR: &str = "holdfast.dev/requested-by";
}

impl Environment {
    /// Namespace; `default` where none is set.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// `namespace/name`, as the engine and people call it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// How the environment marks what it owns: its ApplySet's id and its field manager.
    pub fn marks(&self) -> Marks {
        Marks::of_environment(self.namespace(), self.name())
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The user name of the ServiceAccount that writes are made as, if one is set.
    pub fn impersonated(&self) -> Option<String> {
        let name = self.spec.service_account_name.as_deref()?;
        Some(format!("system:serviceaccount:{}:{name}", self.namespace()))
    }

    /// The branch of the evidence.
    pub fn audit_branch(&self) -> String {
        let branch = self.spec.audit.as_ref().and_then(|audit| audit.branch.clone());
        branch.unwrap_or_else(|| format!("audit/{}", self.name()))
    }

    /// An environment of namespace `holdfast-system` that follows `main` of an example repository, in
    /// `environments/<name>`: a start for tests and examples.
    pub fn test(name: &str) -> Self {
        Self {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("holdfast-system".to_owned()),
                ..ObjectMeta::default()
            },
            spec: EnvironmentSpec {
                source: SourceSpec {
                    url: "https://example.org/shop.git".to_owned(),
                    branch: Some("main".to_owned()),
                    tag: None,
                    commit: None,
                    path: format!("environments/{name}"),
                    interval: "30s".into(),
                    secret_ref: None,
                    verify: None,
                },
                service_account_name: None,
                depends_on: Vec::new(),
                prune: true,
                deletion_budget: DeletionBudgetSpec::default(),
                drift: DriftSpec::default(),
                conflicts: ConflictsSpec::default(),
                ignore: Vec::new(),
                policies: None,
                decryption: None,
                substitute: None,
                rollout: RolloutSpec::default(),
                notify: Vec::new(),
                audit: None,
                suspend: false,
            },
            status: None,
        }
    }

    /// Puts it into a namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.metadata.namespace = Some(namespace.to_owned());
        self
    }

    /// Reads from another repository and folder.
    pub fn with_source(mut self, url: &str, path: &str) -> Self {
        self.spec.source.url = url.to_owned();
        self.spec.source.path = path.to_owned();
        self
    }

    /// Adds a gate.
    pub fn with_gate(mut self, gate: GateSpec) -> Self {
        self.spec.rollout.gates.push(gate);
        self
    }

    /// Holds changed Deployments at this many new pods.
    pub fn with_canary(mut self, pods: u32) -> Self {
        self.spec.rollout.canary.pods = pods;
        self
    }

    /// Writes as a ServiceAccount of its namespace.
    pub fn with_service_account(mut self, name: &str) -> Self {
        self.spec.service_account_name = Some(name.to_owned());
        self
    }
}
