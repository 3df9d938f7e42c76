//! What objects count for in a ResourceQuota.
//!
//! Rules: <https://kubernetes.io/docs/concepts/policy/resource-quotas/> and Kubernetes' `pkg/quota/v1/evaluator/core`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Quantity;

/// Amounts by resource: `cpu`, `memory`, or by a quota's names: `requests.cpu`, `count/secrets`.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a mapping; what is no quantity is passed over.
pub fn amounts(value: &Value) -> Amounts {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?)?))).collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |sum| sum.plus(amount));
        to.insert(name.clone(), sum);
    }
}

/// What all containers of a pod ask for together; an init container counts where it asks for more. `key` is
/// `requests` or `limits`.
pub fn of_pod(spec: &Value, key: &str) -> Amounts {
    let mut sum = Amounts::new();
    let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
    for container in list("containers") {
        add(&mut sum, &amounts(&container["resources"][key]));
    }
    for container in list("initContainers") {
        for (name, amount) in amounts(&container["resources"][key]) {
            if sum.get(&name).is_none_or(|sum| sum.nano() < amount.nano()) {
                sum.insert(name, amount);
            }
        }
    }
    sum
}

/// What an object counts for, by the names that quotas have for it.
///
/// ```
/// use engine::object::quota::usage;
/// let pod = serde_json::json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "100m"}}}]}});
/// let used = usage("", "pods", &pod);
/// assert_eq!(used["requests.cpu"].to_string(), "100m");
/// assert_eq!(used["pods"].to_string(), "1");
/// ```
pub fn usage(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut out = Amounts::new();
    let one = || Quantity::whole(1);
    let spec = &object["spec"];
    let qualified = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    out.insert(format!("count/{qualified}"), one());
    match (group, plural) {
        // A pod that is over takes nothing any more.
        ("", "pods") if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) => {}
        ("", "pods") => {
            out.insert("pods".into(), one());
            for (key, short) in [("requests", true), ("limits", false)] {
                for (name, amount) in of_pod(spec, key) {
                    if short && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        out.insert(name.clone(), amount);
                    }
                    out.insert(format!("{key}.{name}"), amount);
                }
            }
        }
        ("", "persistentvolumeclaims") => {
            out.insert(plural.into(), one());
            let storage = spec["resources"]["requests"]["storage"].as_str().and_then(Quantity::parse);
            let class = spec["storageClassName"].as_str().unwrap_or_default();
            if let Some(storage) = storage {
                out.insert("requests.storage".into(), storage);
                if !class.is_empty() {
                    let prefix = format!("{class}.storageclass.storage.k8s.io/");
                    out.insert(format!("{prefix}requests.storage"), storage);
                    out.insert(format!("{prefix}persistentvolumeclaims"), one());
                }
            }
        }
        ("", "services") => {
            out.insert(plural.into(), one());
            let kind = spec["type"].as_str().unwrap_or_default();
            let ports =
                spec["ports"].as_array().map_or(0, |ports| i64::try_from(ports.len()).unwrap_or(i64::MAX));
            if kind == "LoadBalancer" {
                out.insert("services.loadbalancers".into(), one());
            }
            if matches!(kind, "NodePort" | "LoadBalancer") {
                out.insert("services.nodeports".into(), Quantity::whole(ports));
            }
        }
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            out.insert(plural.into(), one());
        }
        _ => {}
    }
    out
}

/// Whether the scopes of a quota select an object: those of a list, and the conditions of `scopeSelector`.
pub fn selects(quota: &Value, plural: &str, object: &Value) -> bool {
    let scopes = quota["spec"]["scopes"].as_array().into_iter().flatten();
    let conditions = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let listed = scopes.filter_map(Value::as_str).all(|scope| plural == "pods" && has_scope(scope, object));
    listed && conditions.into_iter().all(|condition| plural == "pods" && fulfils(condition, object))
}

fn has_scope(scope: &str, pod: &Value) -> bool {
    let best_effort = pod["status"]["qosClass"] == "BestEffort";
    let terminating = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "PriorityClass" => !priority(pod).is_empty(),
        _ => false,
    }
}

fn fulfils(condition: &Value, pod: &Value) -> bool {
    let scope = condition["scopeName"].as_str().unwrap_or_default();
    let named =
        || condition["values"].as_array().is_some_and(|names| names.iter().any(|name| name == priority(pod)));
    match (scope, condition["operator"].as_str()) {
        ("PriorityClass", Some("In")) => named(),
        ("PriorityClass", Some("NotIn")) => !named(),
        (_, Some("DoesNotExist")) => !has_scope(scope, pod),
        _ => has_scope(scope, pod),
    }
}

fn priority(pod: &Value) -> &str {
    pod["spec"]["priorityClassName"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(amounts: &Amounts) -> Vec<String> {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn objects_count_for_what_quotas_name() {
        let resources = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"memory": memory}}});
        let pod = json!({"spec": {
            "containers": [resources("100m", "64Mi"), resources("200m", "64Mi")],
            "initContainers": [resources("250m", "256Mi")],
        }});
        assert_eq!(
            written(&usage("", "pods", &pod)),
            ["count/pods=1", "cpu=300m", "limits.memory=256Mi", "pods=1", "requests.cpu=300m"]
        );
        let mut over = pod;
        over["status"] = json!({"phase": "Succeeded"});
        assert_eq!(written(&usage("", "pods", &over)), ["count/pods=1"]);
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            written(&usage("", "persistentvolumeclaims", &claim)),
            [
                "count/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi"
            ]
        );
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            written(&usage("", "services", &service)),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"]
        );
        assert_eq!(written(&usage("apps", "deployments", &json!({}))), ["count/deployments.apps=1"]);
    }

    #[test]
    fn scopes_select_pods() {
        let pod = json!({"spec": {"priorityClassName": "high", "activeDeadlineSeconds": 5}, "status": {"qosClass": "BestEffort"}});
        let by = |operator: &str, values: &[&str]| {
            json!({"spec": {"scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
        };
        for (quota, selected) in [
            (json!({"spec": {}}), true),
            (json!({"spec": {"scopes": ["BestEffort", "Terminating"]}}), true),
            (json!({"spec": {"scopes": ["BestEffort", "NotTerminating"]}}), false),
            (by("In", &["high", "low"]), true),
            (by("NotIn", &["high"]), false),
            (by("Exists", &[]), true),
            (by("DoesNotExist", &[]), false),
        ] {
            assert_eq!(selects(&quota, "pods", &pod), selected, "{quota}");
        }
        assert!(!selects(&json!({"spec": {"scopes": ["BestEffort"]}}), "secrets", &json!({})));
        assert!(selects(&json!({"spec": {}}), "secrets", &json!({})));
    }
}
