//! The manifests that put the agent into a cluster.
//!
//! The agent itself may read members and little else: it writes as the ServiceAccount that an
//! Environment names. What it may read, and where it may keep bundles, are roles of their own, so that a
//! cluster's owners can narrow them.

use serde_json::{Value, json};

use super::crd;

/// What can be chosen about an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallOptions {
    /// The namespace of the agent.
    pub namespace: String,
    /// The agent's image.
    pub image: String,
    /// How many agents there are; one works, the others take over with warm watches.
    pub replicas: u32,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            namespace: "holdfast-system".to_owned(),
            image: concat!("ghcr.io/dhakacart/holdfast:v", env!("CARGO_PKG_VERSION")).to_owned(),
            replicas: 2,
        }
    }
}

/// Everything that an installation of this image with the usual choices needs, in the order in which it
/// has to be applied.
///
/// # Errors
/// When a manifest has no JSON form, which would be a mistake in it.
pub fn manifests(image: &str) -> Result<Vec<Value>, serde_json::Error> {
    InstallOptions { image: image.to_owned(), ..InstallOptions::default() }.manifests()
}

impl InstallOptions {
    /// Everything that the installation needs, in the order in which it has to be applied.
    ///
    /// # Errors
    /// When a manifest has no JSON form, which would be a mistake in it.
    pub fn manifests(&self) -> Result<Vec<Value>, serde_json::Error> {
        let mut all = vec![serde_json::to_value(crd())?, namespace(self), service_account(self)];
        all.extend(roles(self));
        all.push(deployment(self));
        all.push(service(self));
        Ok(all)
    }
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "holdfast", "app.kubernetes.io/part-of": "holdfast"})
}

fn namespace(options: &InstallOptions) -> Value {
    let mut labels = labels();
    labels["pod-security.kubernetes.io/enforce"] = json!("restricted");
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": options.namespace, "labels": labels}
    })
}

fn service_account(options: &InstallOptions) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "holdfast", "namespace": options.namespace, "labels": labels()}
    })
}

fn roles(options: &InstallOptions) -> Vec<Value> {
    let subject = json!([{"kind": "ServiceAccount", "name": "holdfast", "namespace": options.namespace}]);
    let cluster_role = |name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels()},
            "rules": rules
        })
    };
    let binding = |kind: &str, name: &str, role_kind: &str| {
        let mut metadata = json!({"name": name, "labels": labels()});
        if kind == "RoleBinding" {
            metadata["namespace"] = json!(options.namespace);
        }
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": name},
            "subjects": subject
        })
    };
    let lease_role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "holdfast-lease", "namespace": options.namespace, "labels": labels()},
        "rules": [{
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"]
        }]
    });
    vec![
        cluster_role(
            "holdfast",
            json!([
                {"apiGroups": ["holdfast.dev"], "resources": ["environments"], "verbs": ["get", "list", "watch", "patch"]},
                {"apiGroups": ["holdfast.dev"], "resources": ["environments/status"], "verbs": ["get", "update"]},
                {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
                {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}
            ]),
        ),
        cluster_role(
            "holdfast-read-members",
            json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]),
        ),
        cluster_role(
            "holdfast-bundles",
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "delete"]}]),
        ),
        lease_role,
        binding("ClusterRoleBinding", "holdfast", "ClusterRole"),
        binding("ClusterRoleBinding", "holdfast-read-members", "ClusterRole"),
        binding("RoleBinding", "holdfast-bundles", "ClusterRole"),
        binding("RoleBinding", "holdfast-lease", "Role"),
    ]
}

fn deployment(options: &InstallOptions) -> Value {
    let probe =
        |path: &str, period: u32| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": period});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "holdfast", "namespace": options.namespace, "labels": labels()},
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": "holdfast"}},
            "template": {
                "metadata": {
                    "labels": labels(),
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
                },
                "spec": {
                    "serviceAccountName": "holdfast",
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    "containers": [{
                        "name": "agent",
                        "image": options.image,
                        "args": ["agent"],
                        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        "livenessProbe": probe("/livez", 10),
                        "readinessProbe": probe("/readyz", 5),
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"cpu": "2", "memory": "512Mi"}
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]}
                        },
                        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/holdfast"},
                                         {"name": "tmp", "mountPath": "/tmp"}]
                    }],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
                }
            }
        }
    })
}

fn service(options: &InstallOptions) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "holdfast", "namespace": options.namespace, "labels": labels()},
        "spec": {
            "selector": {"app.kubernetes.io/name": "holdfast"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::object::Object;

    #[test]
    fn every_manifest_is_an_object_in_the_chosen_namespace() {
        let options = InstallOptions { namespace: "gitops".into(), image: "agent:1".into(), replicas: 1 };
        let objects: Vec<Object> =
            options.manifests().unwrap().into_iter().map(|value| Object::new(value).unwrap()).collect();
        let names: Vec<String> = objects.iter().map(|object| object.object_ref().to_string()).collect();
        assert_eq!(names[0], "CustomResourceDefinition.apiextensions.k8s.io environments.holdfast.dev");
        assert_eq!(names[1], "Namespace gitops");
        assert!(names.contains(&"Deployment.apps gitops/holdfast".to_owned()));
        for object in &objects {
            assert!(
                object.namespace().is_none_or(|namespace| namespace == "gitops"),
                "{}",
                object.object_ref()
            );
        }
    }

    #[test]
    fn the_agent_itself_may_write_no_member() {
        for manifest in manifests("agent:1").unwrap() {
            for rule in manifest["rules"].as_array().into_iter().flatten() {
                let verbs = rule["verbs"].as_array().unwrap();
                if rule["resources"] == json!(["*"]) {
                    assert_eq!(verbs, json!(["get", "list", "watch"]).as_array().unwrap());
                }
                assert!(!verbs.contains(&json!("*")));
            }
        }
    }
}
