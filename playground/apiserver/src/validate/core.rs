//! Rules for services, secrets, configuration, ingresses, roles, definitions and other plain kinds.

use super::meta;
use crate::schema::catalogue::Resource;
use crate::status::Cause;
use serde_json::{Value, json};

/// Rules by kind.
pub fn check(resource: &Resource, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => super::service::check(object, causes),
        ("", "secrets") => secret(object, causes),
        ("", "namespaces") => causes.extend(crate::admission::pod_security::label_causes(object)),
        ("", "configmaps") => config_map(object, causes),
        ("", "persistentvolumeclaims") => claim(object, causes),
        ("networking.k8s.io", "ingresses") => ingress(object, causes),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(object, causes),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => role(object, causes),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition(object, old, causes),
        ("autoscaling", "horizontalpodautoscalers") => scaler(object, causes),
        ("coordination.k8s.io", "leases") => lease(object, causes),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            crate::admission::policy_causes(object, causes);
        }
        ("policy", "poddisruptionbudgets")
            if !object["spec"]["minAvailable"].is_null() && !object["spec"]["maxUnavailable"].is_null() =>
        {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            causes.push(Cause::invalid("spec", &object["spec"], detail));
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn secret(object: &Value, causes: &mut Vec<Cause>) {
    let required: &[&str] = match object["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if object["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    keys(&object["data"], "data", causes);
}

/// Rule for the keys of configuration.
fn keys(data: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (key, _) in data.as_object().into_iter().flatten() {
        causes
            .extend(meta::config_key(key).map(|m| Cause::invalid(format!("{path}[{key}]"), &json!(key), m)));
    }
}

/// Most bytes that configuration may hold.
const DATA_LIMIT: usize = 1024 * 1024;

fn config_map(object: &Value, causes: &mut Vec<Cause>) {
    keys(&object["data"], "data", causes);
    keys(&object["binaryData"], "binaryData", causes);
    let mut size = 0;
    for part in ["data", "binaryData"] {
        for (key, value) in object[part].as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if part == "data" && object["binaryData"].get(key).is_some() {
                let detail = "duplicate of key present in binaryData";
                causes.push(Cause::invalid(format!("data[{key}]"), &json!(key), detail));
            }
        }
    }
    if size > DATA_LIMIT {
        causes.push(Cause::too_long("", format!("may not be more than {DATA_LIMIT} bytes")));
    }
}

fn claim(object: &Value, causes: &mut Vec<Cause>) {
    claim_spec(&object["spec"], "spec", causes);
}

/// Rules for the spec of a claim, in itself or in the template of a StatefulSet.
pub fn claim_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if is_empty(&spec["accessModes"]) {
        causes.push(Cause::required(format!("{path}.accessModes"), "at least 1 access mode is required"));
    }
    let modes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in spec["accessModes"].as_array().into_iter().flatten() {
        if !modes.iter().any(|m| mode == m) {
            causes.push(Cause::unsupported(format!("{path}.accessModes"), mode, &modes.map(String::from)));
        }
    }
    if is_empty(&spec["resources"]["requests"]["storage"]) {
        causes.push(Cause::required(format!("{path}.resources[storage]"), ""));
    }
}

fn ingress(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if is_empty(&spec["rules"]) && is_empty(&spec["defaultBackend"]) {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &json!({}), detail));
    }
    for (r, rule) in spec["rules"].as_array().into_iter().flatten().enumerate() {
        if rule["http"].is_object() && is_empty(&rule["http"]["paths"]) {
            causes.push(Cause::required(format!("spec.rules[{r}].http.paths"), ""));
        }
        for (p, path) in rule["http"]["paths"].as_array().into_iter().flatten().enumerate() {
            let at = format!("spec.rules[{r}].http.paths[{p}]");
            if is_empty(&path["pathType"]) {
                causes.push(Cause::required(format!("{at}.pathType"), "pathType must be specified"));
            }
            let text = path["path"].as_str().unwrap_or_default();
            if matches!(path["pathType"].as_str(), Some("Exact" | "Prefix")) && !text.starts_with('/') {
                causes.push(Cause::invalid(format!("{at}.path"), &json!(text), "must be an absolute path"));
            }
            let backend = &path["backend"]["service"];
            if backend.is_object() && is_empty(&backend["name"]) {
                causes.push(Cause::required(format!("{at}.backend.service.name"), ""));
            }
        }
    }
}

fn binding(object: &Value, causes: &mut Vec<Cause>) {
    let reference = &object["roleRef"];
    if is_empty(&reference["name"]) {
        causes.push(Cause::required("roleRef.name", ""));
    }
    if !matches!(reference["kind"].as_str(), Some("Role" | "ClusterRole")) {
        let allowed = ["Role", "ClusterRole"].map(String::from);
        causes.push(Cause::unsupported("roleRef.kind", &reference["kind"], &allowed));
    }
    for (index, subject) in object["subjects"].as_array().into_iter().flatten().enumerate() {
        let at = format!("subjects[{index}]");
        if is_empty(&subject["name"]) {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        match subject["kind"].as_str() {
            Some("ServiceAccount") if is_empty(&subject["namespace"]) => {
                causes.push(Cause::required(format!("{at}.namespace"), ""));
            }
            Some("ServiceAccount" | "User" | "Group") => {}
            _ => {
                let allowed = ["ServiceAccount", "User", "Group"].map(String::from);
                causes.push(Cause::unsupported(format!("{at}.kind"), &subject["kind"], &allowed));
            }
        }
    }
}

fn role(object: &Value, causes: &mut Vec<Cause>) {
    for (index, rule) in object["rules"].as_array().into_iter().flatten().enumerate() {
        let at = format!("rules[{index}]");
        if is_empty(&rule["verbs"]) {
            causes.push(Cause::required(format!("{at}.verbs"), "verbs must contain at least one value"));
        }
        if is_empty(&rule["nonResourceURLs"]) {
            for (key, detail) in [
                ("apiGroups", "resource rules must supply at least one api group"),
                ("resources", "resource rules must supply at least one resource"),
            ] {
                if rule[key].as_array().is_none_or(Vec::is_empty) {
                    causes.push(Cause::required(format!("{at}.{key}"), detail));
                }
            }
        }
    }
}

fn definition(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if old.is_none() && text(&object["metadata"]["name"]) != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], detail));
    }
    for (path, value) in [
        ("spec.group", &spec["group"]),
        ("spec.scope", &spec["scope"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
    ] {
        if is_empty(value) {
            causes.push(Cause::required(path, ""));
        }
    }
    if !is_empty(&spec["scope"]) && !matches!(spec["scope"].as_str(), Some("Cluster" | "Namespaced")) {
        causes.push(Cause::unsupported(
            "spec.scope",
            &spec["scope"],
            &["Cluster", "Namespaced"].map(String::from),
        ));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], detail));
    }
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            causes.push(Cause::required(format!("{at}.schema.openAPIV3Schema"), "schemas are required"));
        } else if schema["type"] != "object" {
            let detail = "must be object at the root";
            causes.push(Cause::required(format!("{at}.schema.openAPIV3Schema.type"), detail));
        }
    }
}

fn scaler(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let most = spec["maxReplicas"].as_i64().unwrap_or(0);
    if most < 1 {
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
    }
    let least = spec["minReplicas"].as_i64().unwrap_or(1);
    if least < 1 {
        causes.push(Cause::invalid(
            "spec.minReplicas",
            &spec["minReplicas"],
            "must be greater than or equal to 1",
        ));
    }
    if most < least {
        let detail = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], detail));
    }
    for key in ["kind", "name"] {
        if is_empty(&spec["scaleTargetRef"][key]) {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{key}"), ""));
        }
    }
}

fn lease(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|s| s <= 0) {
        let detail = "must be greater than 0";
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], detail));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|s| s < 0) {
        let detail = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], detail));
    }
}
