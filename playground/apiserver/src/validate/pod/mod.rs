//! Rules for the specs of pods.
//!
//! Wording: Kubernetes `pkg/apis/core/validation/validation.go`.

mod container;
mod probe;
mod scheduling;
mod security;
mod volume;

use super::meta;
use crate::status::Cause;
use serde_json::{Value, json};

/// The largest 32-bit number, which Go's user and group identifiers stop at.
const MOST: i64 = 2_147_483_647;

/// A number that must not be below zero.
pub fn not_negative(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|v| v < 0) {
        causes.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// One of a few words; nothing is right too.
fn one_of(value: &Value, path: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    let is_set = value.as_str().is_some_and(|v| !v.is_empty());
    if is_set && !allowed.iter().any(|a| value == a) {
        let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        causes.push(Cause::unsupported(path, value, &allowed));
    }
}

/// A text that has to be there.
fn required(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value.as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required(path, ""));
    }
}

fn port_number(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|n| !(1..=65535).contains(&n)) {
        causes.push(Cause::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

/// Complaints about the name of a port.
fn port_name(text: &str) -> Vec<&'static str> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push("must be no more than 15 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    } else {
        if !text.bytes().any(|b| b.is_ascii_lowercase()) {
            out.push("must contain at least one letter (a-z)");
        }
        if text.contains("--") {
            out.push("must not contain consecutive hyphens");
        }
        if text.starts_with('-') || text.ends_with('-') {
            out.push("must not begin or end with a hyphen");
        }
    }
    out
}

/// A port by number or name.
pub fn port_or_name(value: &Value, path: String, causes: &mut Vec<Cause>) {
    match value {
        Value::String(name) => {
            causes.extend(port_name(name).into_iter().map(|m| Cause::invalid(&path, value, m)));
        }
        _ => port_number(&json!(value.as_i64().unwrap_or(0)), path, causes),
    }
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value[key].as_array().into_iter().flatten().enumerate()
}

/// `claims` are names of volumes that the pod will have besides its own.
pub fn pod_spec(spec: &Value, path: &str, claims: &[&Value], causes: &mut Vec<Cause>) {
    let mut volumes = volume::check(spec, path, causes);
    volumes.extend(claims);
    container::all(spec, path, &volumes, causes);
    let at = |key: &str| format!("{path}.{key}");
    one_of(&spec["restartPolicy"], &at("restartPolicy"), &["Always", "OnFailure", "Never"], causes);
    dns(spec, path, causes);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=MOST).contains(&seconds)
    {
        let detail = format!("must be between 1 and {MOST}, inclusive");
        causes.push(Cause::invalid(at("activeDeadlineSeconds"), &json!(seconds), detail));
    }
    names(spec, path, causes);
    scheduling::check(spec, path, causes);
    security::of_pod(spec, path, causes);
    for (index, gate) in each(spec, "readinessGates") {
        let text = gate["conditionType"].as_str().unwrap_or_default();
        let at = format!("{path}.readinessGates[{index}].conditionType");
        causes.extend(
            meta::qualified(text).into_iter().map(|m| Cause::invalid(&at, &gate["conditionType"], m)),
        );
    }
    for (index, gate) in each(spec, "schedulingGates") {
        let text = gate["name"].as_str().unwrap_or_default();
        let at = format!("{path}.schedulingGates[{index}]");
        causes.extend(meta::qualified(text).into_iter().map(|m| Cause::invalid(&at, &gate["name"], m)));
    }
}

/// Rules for the ephemeral containers of a pod.
pub fn ephemeral_containers(spec: &Value, causes: &mut Vec<Cause>) {
    container::ephemeral(spec, causes);
}

fn dns(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&spec["dnsPolicy"], &format!("{path}.dnsPolicy"), &policies, causes);
    let config = &spec["dnsConfig"];
    let at = format!("{path}.dnsConfig");
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            causes.push(Cause::required(&at, detail));
        } else if config["nameservers"].as_array().is_none_or(Vec::is_empty) {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            causes.push(Cause::required(format!("{at}.nameservers"), detail));
        }
    }
    for (index, server) in each(config, "nameservers") {
        address(server, format!("{at}.nameservers[{index}]"), causes);
    }
    for (index, search) in each(config, "searches") {
        let text = search.as_str().unwrap_or_default();
        let bare = text.trim_end_matches('.');
        let fits = bare.split('.').all(|label| meta::dns_label(&label.replace('_', "a")).is_empty());
        if !fits && text != "." {
            let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
                        must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                        '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
            causes.push(Cause::invalid(format!("{at}.searches[{index}]"), search, rule));
        }
    }
    for (index, option) in each(config, "options") {
        if option["name"].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(format!("{at}.options[{index}]"), "must not be empty"));
        }
    }
}

/// An IP address.
pub fn address(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value.as_str().is_none_or(|ip| ip.parse::<std::net::IpAddr>().is_err()) {
        let rule = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.push(Cause::invalid(path, value, rule));
    }
}

fn names(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut check = |key: &str, rule: fn(&str) -> Vec<String>| {
        let value = &spec[key];
        if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
            causes.extend(rule(text).into_iter().map(|m| Cause::invalid(format!("{path}.{key}"), value, m)));
        }
    };
    check("nodeName", meta::subdomain);
    check("serviceAccountName", meta::subdomain);
    check("priorityClassName", meta::subdomain);
    check("runtimeClassName", meta::subdomain);
    check("hostname", meta::dns_label);
    check("subdomain", meta::dns_label);
    meta::labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), causes);
    for (index, alias) in each(spec, "hostAliases") {
        let at = format!("{path}.hostAliases[{index}]");
        address(&alias["ip"], format!("{at}.ip"), causes);
        for (host, name) in each(alias, "hostnames") {
            let at = format!("{at}.hostnames[{host}]");
            let text = name.as_str().unwrap_or_default();
            causes.extend(meta::subdomain(text).into_iter().map(|m| Cause::invalid(&at, name, m)));
        }
    }
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Annotations that mean something for containers.
pub fn annotations(annotations: &Value, spec: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let at = format!("metadata.annotations[{key}]");
        let is_there = ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|list| each(spec, list).any(|(_, c)| c["name"] == name));
        if !is_there {
            causes.push(Cause::invalid(&at, &json!(name), "container not found"));
        }
        let profile = value.as_str().unwrap_or_default();
        let fits =
            matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
        if !fits {
            let detail = format!("invalid AppArmor profile name: {profile:?}");
            causes.push(Cause::invalid(&at, value, detail));
        }
    }
}
