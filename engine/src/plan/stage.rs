//! The order of writes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::object::GroupKind;

/// A group of objects that are written concurrently. Later stages may need earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StageName {
    /// Kinds and namespaces: without them nothing else can be written.
    Definitions,
    /// Classes, roles, accounts and quotas: what pods are admitted by.
    Cluster,
    /// What pods read or are reached through.
    Configuration,
    /// What makes pods.
    Workloads,
    /// What needs running pods, and everything that is not known by name.
    Rest,
}

impl StageName {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Definitions, Self::Cluster, Self::Configuration, Self::Workloads, Self::Rest];

    /// The stage of a kind.
    pub fn of(kind: &GroupKind) -> Self {
        match (kind.group.as_str(), kind.kind.as_str()) {
            ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => Self::Definitions,
            ("rbac.authorization.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io" | "node.k8s.io", _)
            | ("networking.k8s.io", "IngressClass")
            | ("gateway.networking.k8s.io", "GatewayClass")
            | ("resource.k8s.io", "DeviceClass")
            | ("", "ServiceAccount" | "ResourceQuota" | "LimitRange" | "PersistentVolume") => Self::Cluster,
            ("", "ConfigMap" | "Secret" | "PersistentVolumeClaim" | "Service" | "Endpoints")
            | ("networking.k8s.io", "NetworkPolicy")
            | ("policy", "PodDisruptionBudget") => Self::Configuration,
            ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("batch", _)
            | ("", "Pod" | "ReplicationController") => Self::Workloads,
            _ => Self::Rest,
        }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Definitions => "definitions and namespaces",
            Self::Cluster => "classes, roles and quotas",
            Self::Configuration => "configuration",
            Self::Workloads => "workloads",
            Self::Rest => "the rest",
        })
    }
}
