//! Rules for volumes, claims and storage classes.
//!
//! Wording: Kubernetes `pkg/apis/core/validation` and `pkg/apis/storage/validation`.

use super::meta;
use crate::schema::catalogue::Resource;
use crate::status::Cause;
use engine::object::Quantity;
use serde_json::{Value, json};

/// Rules by kind.
pub fn check(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "persistentvolumeclaims") => claim_spec(&object["spec"], "spec", causes),
        ("", "persistentvolumes") => volume(&object["spec"], causes),
        ("storage.k8s.io", "storageclasses") => class(object, causes),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn modes(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let at = format!("{path}.accessModes");
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let list = spec["accessModes"].as_array().map_or(&[][..], Vec::as_slice);
    for mode in list.iter().filter(|mode| !known.iter().any(|k| *mode == k)) {
        causes.push(Cause::unsupported(&at, mode, &known.map(String::from)));
    }
    if list.len() > 1 && list.iter().any(|m| m == "ReadWriteOncePod") {
        causes.push(Cause::forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// Rules for the spec of a claim, in itself or in the template of a StatefulSet.
pub fn claim_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if is_empty(&spec["accessModes"]) {
        causes.push(Cause::required(format!("{path}.accessModes"), "at least 1 access mode is required"));
    }
    modes(spec, path, causes);
    meta::selector(&spec["selector"], &format!("{path}.selector"), causes);
    let storage = &spec["resources"]["requests"]["storage"];
    let at = format!("{path}.resources[storage]");
    match storage.as_str().and_then(Quantity::parse) {
        None => causes.push(Cause::required(at, "")),
        Some(amount) if amount.nano() <= 0 => {
            causes.push(Cause::invalid(at, storage, "must be greater than zero"));
        }
        Some(_) => {}
    }
    let class = &spec["storageClassName"];
    if let Some(name) = class.as_str().filter(|n| !n.is_empty()) {
        let at = format!("{path}.storageClassName");
        causes.extend(meta::subdomain(name).into_iter().map(|m| Cause::invalid(&at, class, m)));
    }
    for key in ["dataSource", "dataSourceRef"] {
        let source = &spec[key];
        for part in ["kind", "name"] {
            if !source.is_null() && source[part].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("{path}.{key}.{part}"), ""));
            }
        }
    }
}

/// Fields of a volume's spec that do not say where it is.
const PLAIN: [&str; 9] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

fn volume(spec: &Value, causes: &mut Vec<Cause>) {
    if is_empty(&spec["accessModes"]) {
        causes.push(Cause::required("spec.accessModes", ""));
    }
    modes(spec, "spec", causes);
    let capacity = &spec["capacity"];
    if is_empty(capacity) {
        causes.push(Cause::required("spec.capacity", ""));
    }
    let only_storage = capacity.as_object().is_some_and(|c| c.len() == 1 && c.contains_key("storage"));
    if !only_storage {
        let shown = if capacity.is_null() { json!({}) } else { capacity.clone() };
        causes.push(Cause::unsupported("spec.capacity", &shown, &["storage".into()]));
    }
    let mut sources: Vec<&String> = spec
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
        .filter(|k| !PLAIN.contains(&k.as_str()))
        .collect();
    // A real server looks at paths of the host before anything else.
    sources.sort_by_key(|k| (*k != "hostPath", (*k).clone()));
    for more in sources.iter().skip(1) {
        causes.push(Cause::forbidden(format!("spec.{more}"), "may not specify more than 1 volume type"));
    }
    if sources.is_empty() {
        causes.push(Cause::required("spec", "must specify a volume type"));
    }
}

fn class(object: &Value, causes: &mut Vec<Cause>) {
    let provisioner = object["provisioner"].as_str().unwrap_or_default().to_lowercase();
    if provisioner.is_empty() {
        causes.push(Cause::required("provisioner", ""));
    } else {
        let shown = json!(provisioner);
        let complaints = meta::qualified(&provisioner);
        causes.extend(complaints.into_iter().map(|m| Cause::invalid("provisioner", &shown, m)));
    }
    let policy = &object["reclaimPolicy"];
    if policy.is_string() && *policy != "Delete" && *policy != "Retain" {
        causes.push(Cause::unsupported("reclaimPolicy", policy, &["Delete", "Retain"].map(String::from)));
    }
    if object["parameters"].as_object().is_some_and(|p| p.contains_key("")) {
        causes.push(Cause::invalid("parameters", &json!(""), "field can not be empty."));
    }
    for (t, term) in object["allowedTopologies"].as_array().into_iter().flatten().enumerate() {
        for (e, rule) in term["matchLabelExpressions"].as_array().into_iter().flatten().enumerate() {
            if is_empty(&rule["values"]) {
                let at = format!("allowedTopologies[{t}].matchLabelExpressions[{e}].values");
                causes.push(Cause::required(at, ""));
            }
        }
    }
}
