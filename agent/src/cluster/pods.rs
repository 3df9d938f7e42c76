//! The pods of a Deployment, old and new: what gates compare.

use engine::object::ObjectRef;
use serde_json::Value;

use super::error::Error;
use super::request::{Call, Target};
use super::{Cluster, Kind};

/// The annotation with the number of a Deployment's revision, on it and on its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label by which a ReplicaSet's pods are told from others.
const HASH: &str = "pod-template-hash";

/// A pod, as far as gates need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Address; none before it has one.
    pub ip: Option<String>,
    /// Whether it is ready and not being deleted.
    pub ready: bool,
    /// Its `pod-template-hash`.
    pub hash: String,
}

/// The pods of a Deployment by version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSets {
    /// Pods of the newest version.
    pub new: Vec<Pod>,
    /// Pods of all older versions.
    pub old: Vec<Pod>,
}

/// A Deployment's selector and its newest ReplicaSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions {
    pub selector: String,
    /// UIDs of all its ReplicaSets.
    pub sets: Vec<String>,
    /// UID of the newest one, once there is one.
    pub newest: Option<String>,
}

impl Cluster {
    /// The pods of a Deployment. New are those of the ReplicaSet with the highest revision.
    ///
    /// # Errors
    /// When the Deployment does not exist or cannot be read.
    pub async fn pods_of(&self, deployment: &ObjectRef) -> Result<PodSets, Error> {
        let versions = self.versions_of(deployment).await?;
        let kind = pod_kind();
        let target = Target::collection(&kind, deployment.namespace.as_deref());
        let list = self.call(Call::list(target).with("labelSelector", versions.selector.clone())).await?;
        let mut sets = PodSets::default();
        for pod in items(&list) {
            let Some(owner) =
                controller_uid(pod).filter(|owner| versions.sets.iter().any(|set| set == owner))
            else {
                continue;
            };
            let side = if versions.newest.as_deref() == Some(owner) { &mut sets.new } else { &mut sets.old };
            side.push(read_pod(pod));
        }
        Ok(sets)
    }

    /// The ReplicaSets of a Deployment.
    pub(crate) async fn versions_of(&self, deployment: &ObjectRef) -> Result<Versions, Error> {
        let namespace = deployment.namespace.as_deref();
        let kind = Kind::known("apps/v1", "Deployment", "deployments");
        let object = self.call(Call::get(Target::object(&kind, namespace, &deployment.name))).await?;
        let selector = selector(&object["spec"]["selector"]).ok_or_else(|| Error::Malformed {
            what: deployment.to_string(),
            message: "its selector cannot be read".to_owned(),
        })?;
        let kind = Kind::known("apps/v1", "ReplicaSet", "replicasets");
        let call = Call::list(Target::collection(&kind, namespace)).with("labelSelector", selector.clone());
        let list = self.call(call).await?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let mut versions = Versions { selector, sets: Vec::new(), newest: None };
        // The controller numbers a ReplicaSet when it makes or reuses it, and the Deployment a moment later:
        // the highest number is right at once, the Deployment's own is not.
        let mut highest = 0;
        for set in items(&list).iter().filter(|set| controller_uid(set) == Some(uid)) {
            let Some(set_uid) = set["metadata"]["uid"].as_str() else { continue };
            versions.sets.push(set_uid.to_owned());
            let revision = set["metadata"]["annotations"][REVISION].as_str();
            let revision: u64 = revision.and_then(|text| text.parse().ok()).unwrap_or_default();
            if revision > highest {
                highest = revision;
                versions.newest = Some(set_uid.to_owned());
            }
        }
        Ok(versions)
    }
}

pub(crate) fn pod_kind() -> Kind {
    Kind::known("v1", "Pod", "pods")
}

pub(crate) fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The UID of the owner that controls an object.
pub(crate) fn controller_uid(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
}

fn read_pod(pod: &Value) -> Pod {
    let metadata = &pod["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready =
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    Pod {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        ip: pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()).map(str::to_owned),
        ready: ready && metadata["deletionTimestamp"].is_null(),
        hash: text(&metadata["labels"][HASH]),
    }
}

/// A LabelSelector as the text that lists and watches take. None for one that selects nothing or that
/// has an unknown operator.
pub(crate) fn selector(selector: &Value) -> Option<String> {
    let mut parts = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_written_as_lists_take_them() {
        let all = json!({
            "matchLabels": {"app": "shop"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"}
            ]
        });
        assert_eq!(selector(&all).as_deref(), Some("app=shop,tier in (a,b),!old"));
        assert_eq!(selector(&json!({})), None);
        assert_eq!(selector(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})), None);
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_not_ready() {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "a", "labels": {HASH: "abc"}},
            "status": {"podIP": "127.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]}
        });
        let read = read_pod(&pod);
        assert!(read.ready && read.ip.as_deref() == Some("127.1.2.3") && read.hash == "abc");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!read_pod(&pod).ready);
    }
}
