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
        ("rbac.authorization.k8s.io", "rolebindings") => binding(object, true, causes),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => binding(object, false, causes),
        ("rbac.authorization.k8s.io", "roles") => role(object, true, causes),
        ("rbac.authorization.k8s.io", "clusterroles") => role(object, false, causes),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            super::definition::check(object, old.is_none(), causes)
        }
        ("autoscaling", "horizontalpodautoscalers") => super::scaling::autoscaler(object, causes),
        ("coordination.k8s.io", "leases") => lease(object, causes),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            crate::admission::policy_causes(object, causes);
        }
        ("policy", "poddisruptionbudgets") => super::scaling::budget(object, causes),
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
        Some("kubernetes.io/basic-auth")
            if ["username", "password"].iter().all(|k| object["data"].get(*k).is_none()) =>
        {
            &["username", "password"]
        }
        _ => &[],
    };
    let account = "kubernetes.io/service-account.name";
    if object["type"] == "kubernetes.io/service-account-token"
        && object["metadata"]["annotations"][account].as_str().is_none_or(str::is_empty)
    {
        causes.push(Cause::required(format!("metadata.annotations[{account}]"), ""));
    }
    for (kind, key) in
        [("kubernetes.io/dockerconfigjson", ".dockerconfigjson"), ("kubernetes.io/dockercfg", ".dockercfg")]
    {
        let Some(encoded) = object["data"][key].as_str().filter(|_| object["type"] == kind) else { continue };
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
        if let Err(error) = crate::body::json(&bytes) {
            let shown = json!("<secret contents redacted>");
            causes.push(Cause::invalid(format!("data[{key}]"), &shown, error));
        }
    }
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

fn binding(object: &Value, namespaced: bool, causes: &mut Vec<Cause>) {
    let reference = &object["roleRef"];
    let group = &reference["apiGroup"];
    if group.as_str().is_some_and(|g| g != "rbac.authorization.k8s.io") {
        causes.push(Cause::unsupported("roleRef.apiGroup", group, &["rbac.authorization.k8s.io".into()]));
    }
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
        let rbac = "rbac.authorization.k8s.io";
        let groups: &[&str] = match subject["kind"].as_str() {
            Some("ServiceAccount") => {
                let name = &subject["name"];
                if let Some(text) = name.as_str().filter(|n| !n.is_empty()) {
                    let at = format!("{at}.name");
                    causes.extend(meta::subdomain(text).into_iter().map(|m| Cause::invalid(&at, name, m)));
                }
                if is_empty(&subject["namespace"]) && !namespaced {
                    causes.push(Cause::required(format!("{at}.namespace"), ""));
                }
                &[""]
            }
            Some("User" | "Group") => &[rbac],
            _ => {
                let allowed = ["ServiceAccount", "User", "Group"].map(String::from);
                causes.push(Cause::unsupported(format!("{at}.kind"), &subject["kind"], &allowed));
                continue;
            }
        };
        let group = subject["apiGroup"].as_str().unwrap_or_default();
        if !groups.contains(&group) {
            let allowed: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
            causes.push(Cause::unsupported(format!("{at}.apiGroup"), &json!(group), &allowed));
        }
    }
}

fn role(object: &Value, namespaced: bool, causes: &mut Vec<Cause>) {
    for (index, rule) in object["rules"].as_array().into_iter().flatten().enumerate() {
        let at = format!("rules[{index}]");
        if is_empty(&rule["verbs"]) {
            causes.push(Cause::required(format!("{at}.verbs"), "verbs must contain at least one value"));
        }
        let paths = &rule["nonResourceURLs"];
        if !is_empty(paths) {
            let field = format!("{at}.nonResourceURLs");
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(&field, paths, detail));
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|k| !is_empty(&rule[*k])) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(&field, paths, detail));
            }
        } else {
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
