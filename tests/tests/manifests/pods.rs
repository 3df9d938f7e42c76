//! What the Pod Security Standard `restricted` asks of every pod
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>), and a little more.

use serde_json::{Value, json};

use crate::{Rendered, environments, named};

/// Why a pod is not restricted.
fn not_restricted(pod: &Value) -> Vec<String> {
    let mut why = Vec::new();
    let spec = &pod["spec"];
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[shared] == true {
            why.push(format!("{shared} is on"));
        }
    }
    if spec["securityContext"]["runAsNonRoot"] != true {
        why.push("runAsNonRoot is not on".to_owned());
    }
    if spec["securityContext"]["runAsUser"].as_u64().is_none_or(|user| user == 0) {
        why.push("runAsUser is 0, or the image's own business".to_owned());
    }
    if spec["securityContext"]["seccompProfile"]["type"] != "RuntimeDefault" {
        why.push("seccompProfile is not RuntimeDefault".to_owned());
    }
    const VOLUMES: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        if !VOLUMES.iter().any(|kind| volume[kind].is_object()) {
            why.push(format!("volume {} is of a kind that is not allowed", volume["name"]));
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let name = &container["name"];
            let context = &container["securityContext"];
            if context["allowPrivilegeEscalation"] != false {
                why.push(format!("{name} may escalate"));
            }
            if context["capabilities"] != json!({"drop": ["ALL"]}) {
                why.push(format!("{name} has capabilities"));
            }
            if context["privileged"] == true || context["runAsNonRoot"] == false {
                why.push(format!("{name} takes back what its pod says"));
            }
            // More than the standard asks.
            if context["readOnlyRootFilesystem"] != true {
                why.push(format!("{name} can write to its image"));
            }
            let ports = container["ports"].as_array().into_iter().flatten();
            if ports.filter(|port| !port["hostPort"].is_null()).count() > 0 {
                why.push(format!("{name} has a port of its node"));
            }
        }
    }
    why
}

/// Whether a pod gets the key to the API server.
fn has_token(environment: &Rendered, pod: &Value) -> bool {
    match pod["spec"]["automountServiceAccountToken"].as_bool() {
        Some(own) => own,
        None => {
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
            let account =
                environment.of_kind("ServiceAccount").find(|object| object["metadata"]["name"] == account);
            account.is_none_or(|account| account["automountServiceAccountToken"] != false)
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    let mut seen = 0;
    for environment in environments() {
        for workload in environment.workloads() {
            let why = not_restricted(&workload["spec"]["template"]);
            assert!(why.is_empty(), "{}: {}: {}", environment.path, named(workload), why.join("; "));
            seen += 1;
        }
        for namespace in environment.of_kind("Namespace") {
            for mode in ["enforce", "warn", "audit"] {
                let label = format!("pod-security.kubernetes.io/{mode}");
                assert_eq!(namespace["metadata"]["labels"][&label], "restricted", "{}", named(namespace));
            }
        }
    }
    assert!(seen >= 12, "only {seen} workloads");
}

#[test]
fn only_those_that_ask_the_api_server_have_a_token() {
    let with_token: Vec<String> = environments()
        .iter()
        .flat_map(|environment| {
            environment
                .workloads()
                .filter(|workload| has_token(environment, &workload["spec"]["template"]))
                .map(named)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(with_token, ["Deployment monitoring/kube-state-metrics", "Deployment monitoring/prometheus"]);
}

#[test]
fn a_pod_that_is_not_restricted_is_told_why() {
    let pod = json!({"spec": {
        "hostNetwork": true,
        "volumes": [{"name": "a", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true}}],
    }});
    assert_eq!(not_restricted(&pod).len(), 10, "{:#?}", not_restricted(&pod));
}
