//! Rules for volumes.

use super::{each, one_of, required};
use crate::status::Cause;
use crate::validate::meta;
use serde_json::{Value, json};

/// Checks the volumes of a pod; the result is their names.
pub fn check<'a>(spec: &'a Value, path: &str, causes: &mut Vec<Cause>) -> Vec<&'a Value> {
    let mut names: Vec<&Value> = Vec::new();
    for (index, volume) in each(spec, "volumes") {
        let at = format!("{path}.volumes[{index}]");
        super::container::label_name(&volume["name"], &format!("{at}.name"), causes);
        if names.contains(&&volume["name"]) {
            causes.push(Cause::duplicate(format!("{at}.name"), &volume["name"]));
        }
        names.push(&volume["name"]);
        let account = spec["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty());
        source(volume, &at, account, causes);
    }
    names
}

/// Kinds of volumes, in the order in which they are looked at.
const KINDS: [&str; 12] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "secret",
    "nfs",
    "persistentVolumeClaim",
    "configMap",
    "downwardAPI",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

fn source(volume: &Value, path: &str, account: bool, causes: &mut Vec<Cause>) {
    let others = volume.as_object().into_iter().flatten().map(|(k, _)| k.as_str());
    let others = others.filter(|k| *k != "name" && !KINDS.contains(k));
    let set: Vec<&str> = KINDS.into_iter().filter(|k| !volume[*k].is_null()).chain(others).collect();
    for more in set.iter().skip(1) {
        let detail = "may not specify more than 1 volume type";
        causes.push(Cause::forbidden(format!("{path}.{more}"), detail));
    }
    let Some(kind) = set.first() else { return };
    let (value, at) = (&volume[*kind], format!("{path}.{kind}"));
    match *kind {
        "emptyDir" => {
            let negative = value["sizeLimit"].as_str().is_some_and(|q| q.starts_with('-'));
            if negative {
                let detail = "SizeLimit field must be a valid resource quantity";
                causes.push(Cause::forbidden(format!("{at}.sizeLimit"), detail));
            }
        }
        "hostPath" => {
            required(&value["path"], format!("{at}.path"), causes);
            no_step_back(&value["path"], &format!("{at}.path"), causes);
            let kinds = [
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ];
            one_of(&value["type"], &format!("{at}.type"), &kinds, causes);
        }
        "secret" => {
            required(&value["secretName"], format!("{at}.secretName"), causes);
            files(value, &at, causes);
        }
        "configMap" => {
            required(&value["name"], format!("{at}.name"), causes);
            files(value, &at, causes);
        }
        "persistentVolumeClaim" => required(&value["claimName"], format!("{at}.claimName"), causes),
        "downwardAPI" => {
            mode(&value["defaultMode"], format!("{at}.defaultMode"), causes);
            for (_, item) in each(value, "items") {
                downward(item, &at, causes);
            }
        }
        "projected" => projected(value, &at, account, causes),
        "nfs" => {
            required(&value["server"], format!("{at}.server"), causes);
            required(&value["path"], format!("{at}.path"), causes);
        }
        "csi" => required(&value["driver"], format!("{at}.driver"), causes),
        _ => {}
    }
}

fn mode(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|m| !(0..=0o777).contains(&m)) {
        let rule = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.push(Cause::invalid(path, value, rule));
    }
}

fn no_step_back(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_str().is_some_and(|p| p.split('/').any(|part| part == "..")) {
        causes.push(Cause::invalid(path, value, "must not contain '..'"));
    }
}

/// A path below the place where a volume is mounted.
pub fn inner_path(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_str().is_some_and(|p| p.starts_with('/')) {
        causes.push(Cause::invalid(path, value, "must be a relative path"));
    }
    no_step_back(value, path, causes);
}

fn files(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    mode(&value["defaultMode"], format!("{path}.defaultMode"), causes);
    for (index, item) in each(value, "items") {
        let at = format!("{path}.items[{index}]");
        required(&item["key"], format!("{at}.key"), causes);
        required(&item["path"], format!("{at}.path"), causes);
        inner_path(&item["path"], &format!("{at}.path"), causes);
        mode(&item["mode"], format!("{at}.mode"), causes);
    }
}

/// Paths of a pod's fields that volumes can show.
const FIELDS: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"];

fn downward(item: &Value, path: &str, causes: &mut Vec<Cause>) {
    required(&item["path"], format!("{path}.path"), causes);
    inner_path(&item["path"], &format!("{path}.path"), causes);
    if !item["fieldRef"].is_null() {
        field(&item["fieldRef"], &format!("{path}.fieldRef"), &FIELDS, causes);
    } else if item["resourceFieldRef"].is_null() {
        causes.push(Cause::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
}

/// A reference to a field of the pod.
pub fn field(reference: &Value, path: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    let at = format!("{path}.fieldPath");
    let text = reference["fieldPath"].as_str().unwrap_or_default();
    if text.is_empty() {
        causes.push(Cause::required(at, ""));
        return;
    }
    let known = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let plain = text.split('[').next().unwrap_or_default();
    let shown = &reference["fieldPath"];
    if !known.contains(&plain) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        causes.push(Cause::invalid(at, shown, detail));
    } else if !allowed.contains(&plain) {
        let mut allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        allowed.sort();
        causes.push(Cause::unsupported(at, shown, &allowed));
    }
}

fn projected(value: &Value, path: &str, account: bool, causes: &mut Vec<Cause>) {
    mode(&value["defaultMode"], format!("{path}.defaultMode"), causes);
    for (index, source) in each(value, "sources") {
        let at = format!("{path}.sources[{index}]");
        for kind in ["secret", "configMap"] {
            let inner = &source[kind];
            if !inner.is_null() {
                required(&inner["name"], format!("{at}.{kind}.name"), causes);
                files(inner, &format!("{at}.{kind}"), causes);
            }
        }
        for (_, item) in each(&source["downwardAPI"], "items") {
            downward(item, &format!("{at}.downwardAPI"), causes);
        }
        let token = &source["serviceAccountToken"];
        if token.is_null() {
            continue;
        }
        let at = format!("{at}.serviceAccountToken");
        if !account {
            let detail = "must not be specified when serviceAccountName is not set";
            causes.push(Cause::forbidden(&at, detail));
        }
        let seconds = token["expirationSeconds"].as_i64().unwrap_or(3600);
        if seconds < 600 {
            let detail = "may not specify a duration less than 10 minutes";
            causes.push(Cause::invalid(format!("{at}.expirationSeconds"), &json!(seconds), detail));
        }
        // The path is that of the volume, as a real server has it.
        required(&token["path"], format!("{path}.path"), causes);
    }
}

/// A key of configuration.
pub fn key(value: &Value, path: String, causes: &mut Vec<Cause>) {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        causes.extend(meta::config_key(text).map(|m| Cause::invalid(path, value, m)));
    }
}
