//! What a team asks for: the specification of an Environment.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::GateSpec;
use super::{DurationText, EnvironmentStatus};

/// The API group of Holdfast's custom resources.
pub const GROUP: &str = "holdfast.dev";

/// Keeps a part of a cluster equal to a folder in Git, proves every rollout and undoes the ones that fail.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "Environment",
    plural = "environments",
    singular = "environment",
    shortname = "env",
    category = "holdfast",
    category = "gitops",
    namespaced,
    status = "EnvironmentStatus",
    derive = "PartialEq",
    doc = "An Environment keeps a part of a cluster equal to a folder in Git, proves every rollout with readiness and metrics, and undoes the ones that fail.",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "description": "Whether the newest release is out and ready"}"#,
    printcolumn = r#"{"name": "Revision", "type": "string", "jsonPath": ".status.revision", "description": "What serves now"}"#,
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase", "description": "Where the rollout is"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.message", "description": "The newest word"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSpec {
    /// Where the manifests come from.
    pub source: SourceSpec,
    /// The ServiceAccount, in the Environment's namespace, that every write is made as. Without one the
    /// agent writes as itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Environments that must be Ready first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub depends_on: Vec<EnvironmentReference>,
    /// Whether objects that left the source are deleted.
    #[serde(default = "yes")]
    pub prune: bool,
    /// How much one release may delete without approval.
    #[serde(default)]
    pub deletion_budget: DeletionBudgetSpec,
    /// What happens when somebody else changes a field that the environment owns.
    #[serde(default)]
    pub drift: DriftSpec,
    /// What happens when another field manager owns a field that the source sets.
    #[serde(default)]
    pub conflicts: ConflictsSpec,
    /// Fields that are left to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ignore: Vec<IgnoreSpec>,
    /// Admission policies that are checked before anything is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<PoliciesSpec>,
    /// How files that sops encrypted are read: a Secret with keys of age, in entries whose names end with
    /// `.agekey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<SecretHolder>,
    /// Values that are put where `${NAME}` stands in the rendered objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substitute: Option<SubstituteSpec>,
    /// How a release goes out.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// Who is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub notify: Vec<NotifySpec>,
    /// Where the evidence goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSpec>,
    /// Stops reconciliation; what runs keeps running.
    #[serde(default)]
    pub suspend: bool,
}

fn yes() -> bool {
    true
}

/// Where the manifests come from. Exactly one of `branch`, `tag` and `commit` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.branch), has(self.tag), has(self.commit)].filter(set, set).size() == 1",
        "message": "set exactly one of branch, tag and commit"
    },
    {
        "rule": "!self.path.startsWith('/') && !self.path.contains('..')",
        "message": "path must lie inside the repository: no / at its start, and no .. in it"
    }
]))]
pub struct SourceSpec {
    /// The repository: `https`, `http`, `ssh`, `git` or `file`, or `user@host:path`.
    #[schemars(
        length(min = 1, max = 2048),
        regex(pattern = "^((https?|ssh|git|file)://[^ ]+|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^ ]+)$")
    )]
    pub url: String,
    /// The branch that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// A range of semantic versions; the highest tag in it is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// The one commit that is deployed: its full id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{40}([0-9a-f]{24})?$"))]
    pub commit: Option<String>,
    /// The folder of the kustomization, from the root of the repository.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// How often the repository is asked for news.
    #[serde(default = "interval")]
    pub interval: DurationText,
    /// Credentials for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// Only commits signed by these signers are deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<SecretHolder>,
}

fn root() -> String {
    ".".to_owned()
}

fn interval() -> DurationText {
    "30s".into()
}

/// A Secret in the Environment's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Something whose keys are in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretHolder {
    /// The Secret with the keys.
    pub secret_ref: SecretReference,
}

/// Values that are put where `${NAME}` stands in the rendered objects. Later sources win over earlier ones,
/// and `vars` over all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubstituteSpec {
    /// Variables and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub vars: BTreeMap<String, String>,
    /// ConfigMaps and Secrets of which each key is a variable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Vec<SubstituteSource>,
}

/// A ConfigMap or Secret in the Environment's namespace, of which each key is a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubstituteSource {
    /// Its kind.
    pub kind: SubstituteKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// The kind of an object with variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubstituteKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret: its values appear in no message.
    Secret,
}

/// Another Environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the same one where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// How much one release may delete without approval: the smaller of both limits counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionBudgetSpec {
    /// Objects.
    #[serde(default = "ten")]
    pub objects: u32,
    /// Percent of the members.
    #[serde(default = "quarter")]
    #[schemars(range(max = 100))]
    pub percent: u32,
}

fn ten() -> u32 {
    10
}

fn quarter() -> u32 {
    25
}

impl Default for DeletionBudgetSpec {
    fn default() -> Self {
        Self { objects: ten(), percent: quarter() }
    }
}

/// What happens when somebody else changes a field that the environment owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftSpec {
    /// The field is set back at once.
    #[default]
    Correct,
    /// The change is reported and left alone.
    Report,
}

/// What happens when another field manager owns a field that the source sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConflictsSpec {
    /// The field is taken over.
    #[default]
    Take,
    /// The field is left to its owner.
    Yield,
    /// The release is refused.
    Fail,
}

/// Fields that are left to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IgnoreSpec {
    /// API group; any where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind; `*` for all.
    #[serde(default = "any")]
    #[schemars(length(min = 1, max = 253))]
    pub kind: String,
    /// Namespace; any where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Name; `*` stands for any text in it.
    #[serde(default = "any")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// JSON pointers (RFC 6901) to the fields.
    #[schemars(length(min = 1, max = 64), inner(regex(pattern = "^(/[^/]+)+$")))]
    pub pointers: Vec<String>,
}

fn any() -> String {
    "*".to_owned()
}

/// Admission policies that are checked before anything is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoliciesSpec {
    /// The folder with the policies, from the root of the repository.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// What a violation means.
    #[serde(default)]
    pub enforcement: EnforcementSpec,
}

/// What the violation of a policy means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnforcementSpec {
    /// The release is refused.
    #[default]
    Deny,
    /// The violation is reported, and the release goes out.
    Warn,
}

/// How a release goes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// How long objects may take to become ready.
    #[serde(default = "ready_timeout")]
    pub ready_timeout: DurationText,
    /// How many pods take the first traffic.
    #[serde(default)]
    pub canary: CanarySpec,
    /// Metric gates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<GateSpec>,
    /// Environments that must have settled the same release before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub after: Vec<AfterSpec>,
    /// Times at which nothing, or only then something, is deployed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<WindowSpec>,
    /// Whether a person has to approve each release.
    #[serde(default)]
    pub approval: ApprovalSpec,
    /// What happens to a failed release.
    #[serde(default)]
    pub rollback: RollbackSpec,
}

fn ready_timeout() -> DurationText {
    "5m".into()
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            ready_timeout: ready_timeout(),
            canary: CanarySpec::default(),
            gates: Vec::new(),
            after: Vec::new(),
            windows: Vec::new(),
            approval: ApprovalSpec::default(),
            rollback: RollbackSpec::default(),
        }
    }
}

/// How many pods take the first traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    /// New pods of each changed Deployment; 0 turns canaries off.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub pods: u32,
}

/// An environment that must have settled the same release before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AfterSpec {
    /// Name of the Environment.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the same one where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// How long it must have been settled there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<DurationText>,
}

/// A recurring time. Exactly one of `allow` and `deny` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.allow) != has(self.deny)", "message": "set exactly one of allow and deny"}
]))]
pub struct WindowSpec {
    /// When releases may go out: the start, as a cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub allow: Option<String>,
    /// When no release goes out: the start, as a cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub deny: Option<String>,
    /// How long the window is.
    #[serde(rename = "for")]
    pub length: DurationText,
    /// Time zone of the cron expression, by its IANA name; UTC where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: Option<String>,
}

/// Whether a person has to approve each release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// Whether it is required.
    #[serde(default)]
    pub required: bool,
}

/// What happens to a failed release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackSpec {
    /// Whether it is undone in the cluster.
    #[serde(default)]
    pub mode: RollbackModeSpec,
    /// How Git is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<RollbackGitSpec>,
}

/// Whether a failed release is undone in the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackModeSpec {
    /// The last settled bundle is applied again.
    #[default]
    Auto,
    /// The failed release stays where it is until a person decides.
    Manual,
}

/// How Git is told of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackGitSpec {
    /// Evidence and commit status only.
    Record,
    /// A pull request that reverts the commit.
    RevertPullRequest,
    /// A commit that reverts it, pushed to the branch.
    RevertPush,
}

/// Someone who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotifySpec {
    /// A Slack channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackSpec>,
}

/// A Slack channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlackSpec {
    /// The channel, by name or id; a webhook has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub channel: Option<String>,
    /// A Secret with `token` (a bot token) or `url` (a webhook). Without one the agent's own setting is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
}

/// Where the evidence goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditSpec {
    /// The orphan branch; `audit/<name>` where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// The Secret with the key that signs the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_ref: Option<SecretReference>,
}
