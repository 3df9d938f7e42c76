//! What kustomize takes as an object's identity, kept so that asking for it costs nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use crate::object::GroupVersionKind;
use crate::object::schema::{self, Scope};

/// Stands in for the namespace of objects that have none.
pub(super) const NO_NAMESPACE: &str = "_non_namespaceable_";

static NOWHERE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(NO_NAMESPACE));
static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("default"));

/// The built-in kinds, each once for all objects.
static BUILTIN: LazyLock<HashMap<(&'static str, &'static str), Arc<ScopedKind>>> = LazyLock::new(|| {
    schema::kinds()
        .map(|(api_version, kind)| ((api_version, kind), Arc::new(ScopedKind::read(api_version, kind))))
        .collect()
});

/// A kind at one version, with where its objects live.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScopedKind {
    pub gvk: GroupVersionKind,
    pub is_cluster_scoped: bool,
}

impl ScopedKind {
    /// The kind that an object says it is of; one in memory for every built-in kind.
    pub fn of(api_version: &str, kind: &str) -> Arc<Self> {
        BUILTIN.get(&(api_version, kind)).map_or_else(|| Arc::new(Self::read(api_version, kind)), Arc::clone)
    }

    fn read(api_version: &str, kind: &str) -> Self {
        let gvk = GroupVersionKind::from_api_version(api_version, kind);
        Self { is_cluster_scoped: is_cluster_scoped(&gvk), gvk }
    }

    /// Whether an object that says this is of the kind.
    pub fn is(&self, api_version: &str, kind: &str) -> bool {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.gvk.kind == kind && self.gvk.version == version && self.gvk.group == group
    }

    /// The same group and version with another kind.
    fn renamed(&self, kind: &str) -> Arc<Self> {
        let gvk = GroupVersionKind { kind: kind.to_owned(), ..self.gvk.clone() };
        Arc::new(Self { is_cluster_scoped: is_cluster_scoped(&gvk), gvk })
    }
}

/// What kustomize takes as an object's identity: the version counts, and no namespace means `default`.
///
/// Its texts are shared with the object and all copies, so that a copy costs three counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResId {
    pub kind: Arc<ScopedKind>,
    /// The namespace, `default` where none is written, [`NO_NAMESPACE`] for cluster-wide kinds.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ResId {
    /// The identity of an object that says this of itself; `namespace` is what is written, possibly nothing.
    pub fn new(kind: Arc<ScopedKind>, namespace: &Arc<str>, name: Arc<str>) -> Self {
        let namespace = if kind.is_cluster_scoped {
            &NOWHERE
        } else if namespace.is_empty() {
            &DEFAULT
        } else {
            namespace
        };
        Self { namespace: Arc::clone(namespace), name, kind }
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> &GroupVersionKind {
        &self.kind.gvk
    }

    /// An identity that an object had, as it counts when the object is of a kind now: with its group and version.
    pub fn seen_from(&self, now: &Arc<ScopedKind>) -> Self {
        let kind = if self.kind.gvk.kind == now.gvk.kind {
            Arc::clone(now)
        } else {
            now.renamed(&self.kind.gvk.kind)
        };
        Self { kind, namespace: Arc::clone(&self.namespace), name: Arc::clone(&self.name) }
    }
}

impl Hash for ResId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Whether the kind is cluster-wide follows from the rest.
        self.name.hash(state);
        self.namespace.hash(state);
        self.kind.gvk.hash(state);
    }
}

impl fmt::Display for ResId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.gvk().group_kind())?;
        if &*self.namespace != NO_NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A group, version and kind to select by; an empty part selects all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct KindFilter {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl KindFilter {
    /// Whether a kind is selected.
    pub fn selects(&self, gvk: &GroupVersionKind) -> bool {
        (self.kind.is_empty() || self.kind == gvk.kind)
            && (self.group.is_empty() || self.group == gvk.group)
            && (self.version.is_empty() || self.version == gvk.version)
    }
}

/// Cluster-wide kinds that kustomize knows from Kubernetes 1.21 and that newer schemas lack.
const OLD_CLUSTER_KINDS: [(&str, &str); 15] = [
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("policy", "PodSecurityPolicy"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
];

/// Whether a kind is known to be cluster-wide.
///
/// Kustomize 5.5 knows the kinds of Kubernetes 1.21; kinds that came later are known here as well, for a
/// namespace on a cluster-wide object is never meant.
fn is_cluster_scoped(gvk: &GroupVersionKind) -> bool {
    match schema::scope(gvk) {
        Some(scope) => scope == Scope::Cluster,
        None => {
            gvk.version.starts_with("v1beta")
                && OLD_CLUSTER_KINDS.contains(&(gvk.group.as_str(), gvk.kind.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn built_in_kinds_are_in_memory_once() {
        assert!(Arc::ptr_eq(
            &ScopedKind::of("apps/v1", "Deployment"),
            &ScopedKind::of("apps/v1", "Deployment")
        ));
        assert!(ScopedKind::of("policy/v1beta1", "PodSecurityPolicy").is_cluster_scoped);
        assert!(!ScopedKind::of("example.com/v1", "PodSecurityPolicy").is_cluster_scoped);
        assert!(ScopedKind::of("apps/v1", "Deployment").is("apps/v1", "Deployment"));
        assert!(!ScopedKind::of("apps/v1", "Deployment").is("v1", "Deployment"));
    }

    #[test]
    fn identities_that_differ_in_one_part_do_not_share_a_hash() {
        let hasher = std::hash::RandomState::new();
        let id = |version: &str, kind: &str, namespace: &str, name: &str| {
            ResId::new(ScopedKind::of(version, kind), &Arc::from(namespace), Arc::from(name))
        };
        let one = id("example.com/v1", "A", "x", "y");
        assert_eq!(hasher.hash_one(&one), hasher.hash_one(id("example.com/v1", "A", "x", "y")));
        for other in [
            id("example.com/v2", "A", "x", "y"),
            id("example.org/v1", "A", "x", "y"),
            id("example.com/v1", "B", "x", "y"),
            id("example.com/v1", "A", "z", "y"),
            id("example.com/v1", "A", "x", "z"),
        ] {
            assert_ne!(one, other);
            assert_ne!(hasher.hash_one(&one), hasher.hash_one(&other), "{other}");
        }
    }

    #[test]
    fn earlier_identities_take_the_present_version() {
        let (old, now) = (ScopedKind::of("v1", "A"), ScopedKind::of("example.com/v2", "B"));
        let id = ResId::new(old, &Arc::from(""), Arc::from("x"));
        assert_eq!(id.seen_from(&now).to_string(), "A.example.com default/x");
    }
}
