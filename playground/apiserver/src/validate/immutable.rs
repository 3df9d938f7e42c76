//! What cannot be changed after creation.

use crate::schema::catalogue::Resource;
use crate::status::Cause;
use serde_json::{Map, Value, json};

const IMMUTABLE: &str = "field is immutable";

/// Rules for changes, by kind.
pub fn check(resource: &Resource, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let same = |pointer: &str, field: &str, causes: &mut Vec<Cause>| {
        let (new, old) = (new.pointer(pointer), old.pointer(pointer));
        if new != old {
            causes.push(Cause::invalid(field, new.unwrap_or(&Value::Null), IMMUTABLE));
        }
    };
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("apps", "deployments" | "replicasets" | "daemonsets") => {
            same("/spec/selector", "spec.selector", &mut causes)
        }
        ("apps", "statefulsets") => stateful_set(new, old, &mut causes),
        ("batch", "jobs") => {
            same("/spec/selector", "spec.selector", &mut causes);
            same("/spec/completionMode", "spec.completionMode", &mut causes);
            if new["spec"]["completionMode"] != "Indexed" {
                same("/spec/completions", "spec.completions", &mut causes);
            }
            if new["spec"]["template"] != old["spec"]["template"] && old["spec"]["suspend"] != true {
                let shown = crate::validate::golang::pod_template(&new["spec"]["template"]);
                causes.push(Cause::invalid("spec.template", &shown, IMMUTABLE));
            }
        }
        ("", "secrets") => {
            same("/type", "type", &mut causes);
            frozen(new, old, &["data"], &mut causes);
        }
        ("", "configmaps") => frozen(new, old, &["data", "binaryData"], &mut causes),
        ("", "services") => service(new, old, &mut causes),
        ("", "persistentvolumeclaims") => claim(new, old, &mut causes),
        ("", "pods") => pod(new, old, &mut causes),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings")
            if new["roleRef"] != old["roleRef"] =>
        {
            let reference = &new["roleRef"];
            let shown = json!({"APIGroup": reference["apiGroup"], "Kind": reference["kind"], "Name": reference["name"]});
            causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
        }
        ("storage.k8s.io", "storageclasses") => {
            for key in ["provisioner", "reclaimPolicy", "volumeBindingMode", "parameters"] {
                if new[key] != old[key] {
                    causes.push(Cause::forbidden(key, format!("updates to {key} are forbidden.")));
                }
            }
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            same("/spec/group", "spec.group", &mut causes);
            same("/spec/scope", "spec.scope", &mut causes);
            same("/spec/names/kind", "spec.names.kind", &mut causes);
            same("/spec/names/plural", "spec.names.plural", &mut causes);
        }
        ("scheduling.k8s.io", "priorityclasses") if new["value"] != old["value"] => {
            causes.push(Cause::forbidden("value", "may not be changed in an update."));
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            same("/preemptionPolicy", "preemptionPolicy", &mut causes);
        }
        ("discovery.k8s.io", "endpointslices") => same("/addressType", "addressType", &mut causes),
        _ => {}
    }
    causes
}

/// `immutable: true` of a ConfigMap or Secret.
fn frozen(new: &Value, old: &Value, parts: &[&str], causes: &mut Vec<Cause>) {
    if old["immutable"] != true {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", detail));
    }
    for part in parts {
        if new[*part] != old[*part] {
            causes.push(Cause::forbidden(*part, detail));
        }
    }
}

fn without(value: &Value, keys: &[&str]) -> Map<String, Value> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(k, _)| !keys.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn stateful_set(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let free = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    if without(&new["spec"], &free) != without(&old["spec"], &free) {
        causes.push(Cause::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

fn service(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let external = |s: &Value| s["spec"]["type"] == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let (ips, before) = (&new["spec"]["clusterIPs"], &old["spec"]["clusterIPs"]);
    if !before.is_null() && ips[0] != before[0] {
        causes.push(Cause::invalid("spec.clusterIPs[0]", ips, "may not change once set"));
    }
}

fn claim(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let bound = old["status"]["phase"] == "Bound";
    let free: &[&str] = if bound { &["resources", "volumeAttributesClassName"] } else { &[] };
    let bare = |claim: &Value| {
        let mut spec = without(&claim["spec"], free);
        // The binder may enter the volume once.
        if old["spec"]["volumeName"].is_null() {
            spec.shift_remove("volumeName");
        }
        spec
    };
    if bare(new) != bare(old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let diff = super::golang::diff(
            &super::golang::claim_spec(&old["spec"]),
            &super::golang::claim_spec(&new["spec"]),
        );
        causes.push(Cause::forbidden("spec", format!("{detail}\n{diff}")));
    }
}

/// Ephemeral containers are added and never changed.
pub fn ephemeral_containers(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let list = |pod: &Value| pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    let now = list(new);
    for before in list(old) {
        let name = &before["name"];
        let detail = match now.iter().find(|c| c["name"] == *name) {
            Some(same) if *same == before => continue,
            Some(other) => format!(
                "existing ephemeral containers {name} may not be changed\n{}",
                super::golang::diff(
                    &super::golang::ephemeral_container(&before),
                    &super::golang::ephemeral_container(other)
                )
            ),
            None => format!("existing ephemeral containers {name} may not be removed\n"),
        };
        causes.push(Cause::forbidden("spec.ephemeralContainers", detail));
    }
}

fn pod(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let deadline = |pod: &Value| pod["spec"]["activeDeadlineSeconds"].as_i64();
    match (deadline(old), deadline(new)) {
        (Some(before), Some(now)) if now > before => {
            let detail = "must be less than or equal to previous value";
            causes.push(Cause::invalid("spec.activeDeadlineSeconds", &json!(now), detail));
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            causes.push(Cause::invalid("spec.activeDeadlineSeconds", &Value::Null, detail));
        }
        _ => {}
    }
    let free = ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"];
    let bare = |pod: &Value| {
        let mut spec = Value::Object(without(&pod["spec"], &free));
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        spec
    };
    if bare(new) == bare(old) {
        return;
    }
    let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                  `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                  `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let diff =
        super::golang::diff(&super::golang::pod_spec(&old["spec"]), &super::golang::pod_spec(&new["spec"]));
    causes.push(Cause::forbidden("spec", format!("{detail}\n{diff}")));
}
