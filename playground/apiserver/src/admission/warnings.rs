//! What clients are warned of in pods that are valid.
//!
//! Wording: Kubernetes `pkg/api/pod/warnings.go`.

use crate::schema::catalogue::Resource;
use serde_json::Value;

/// The path of the pod's spec in the objects of a resource, and the spec.
fn pod_spec<'a>(resource: &Resource, object: &'a Value) -> Option<(&'static str, &'a Value)> {
    let (path, pointer) = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => ("spec", "/spec"),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs")
        | ("", "replicationcontrollers") => ("spec.template.spec", "/spec/template/spec"),
        ("batch", "cronjobs") => {
            ("spec.jobTemplate.spec.template.spec", "/spec/jobTemplate/spec/template/spec")
        }
        _ => return None,
    };
    Some((path, object.pointer(pointer).filter(|spec| spec.is_object())?))
}

/// Warnings for a new object, or for one whose pods changed.
pub fn of(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let Some((path, spec)) = pod_spec(resource, object) else { return Vec::new() };
    if old.and_then(|old| pod_spec(resource, old)).is_some_and(|(_, before)| before == spec) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let list = |key: &str| spec[key].as_array().into_iter().flatten().enumerate();
    for (index, volume) in list("volumes") {
        if volume["gitRepo"].is_object() {
            out.push(format!(
                "{path}.volumes[{index}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"
            ));
        }
    }
    for (index, secret) in list("imagePullSecrets") {
        if secret["name"].as_str().is_none_or(str::is_empty) {
            out.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(kind) {
            hidden(container, &format!("{path}.{kind}[{index}]"), &mut out);
        }
    }
    out
}

/// Variables and ports that come twice.
fn hidden(container: &Value, path: &str, out: &mut Vec<String>) {
    let list = |key: &str| container[key].as_array().map_or(&[][..], Vec::as_slice);
    let variables = list("env");
    for (index, variable) in variables.iter().enumerate() {
        if variables[..index].iter().any(|v| v["name"] == variable["name"]) {
            out.push(format!(
                "{path}.env[{index}]: hides previous definition of {}, which may be dropped when using apply",
                variable["name"]
            ));
        }
    }
    let ports = list("ports");
    for (index, port) in ports.iter().enumerate() {
        let same = |p: &&Value| {
            ["containerPort", "protocol", "hostPort", "hostIP"].iter().all(|k| p[*k] == port[*k])
        };
        if let Some(first) = ports[..index].iter().position(|p| same(&p)) {
            out.push(format!("{path}.ports[{index}]: duplicate port definition with {path}.ports[{first}]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_hides_what() {
        let container = json!({"env": [{"name": "A"}, {"name": "A"}], "ports": [{"containerPort": 1}, {"containerPort": 1}]});
        let mut out = Vec::new();
        hidden(&container, "c", &mut out);
        assert_eq!(
            out,
            [
                "c.env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "c.ports[1]: duplicate port definition with c.ports[0]"
            ]
        );
    }
}
