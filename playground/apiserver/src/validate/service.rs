//! Rules for Services.
//!
//! Wording: Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateService`.

use super::meta;
use super::pod::{address, port_or_name};
use crate::status::Cause;
use serde_json::{Value, json};
use std::net::IpAddr;

/// All of them.
pub fn check(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let headless = spec["clusterIP"] == "None";
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && kind != "ExternalName" && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    addresses(spec, kind, causes);
    for (index, port) in ports.iter().enumerate() {
        self::port(port, index, ports, kind, causes);
    }
    meta::labels(&spec["selector"], "spec.selector", causes);
    outside(spec, kind, causes);
    families(spec, causes);
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if seconds.as_i64().is_some_and(|s| !(1..=86_400).contains(&s)) {
        let at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        causes.push(Cause::invalid(at, seconds, "must be greater than 0 and less than 86400"));
    }
    let choice = &spec["trafficDistribution"];
    let choices = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if choice.is_string() && !choices.iter().any(|c| choice == c) {
        causes.push(Cause::unsupported("spec.trafficDistribution", choice, &choices.map(String::from)));
    }
}

/// Rules for the status of a balanced service.
pub fn status(object: &Value, causes: &mut Vec<Cause>) {
    let list = object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    for (index, ingress) in list.enumerate() {
        let at = format!("status.loadBalancer.ingress[{index}]");
        if ingress["ip"].is_string() {
            address(&ingress["ip"], format!("{at}.ip"), causes);
        }
    }
}

fn addresses(spec: &Value, kind: &str, causes: &mut Vec<Cause>) {
    let ip = spec["clusterIP"].as_str().unwrap_or_default();
    let list = spec["clusterIPs"].as_array().map_or(&[][..], Vec::as_slice);
    if kind == "ExternalName" {
        let name = &spec["externalName"];
        match name.as_str() {
            None | Some("") => causes.push(Cause::required("spec.externalName", "")),
            Some(text) => {
                let complaints = meta::subdomain(text.trim_end_matches('.'));
                causes.extend(complaints.into_iter().map(|m| Cause::invalid("spec.externalName", name, m)));
            }
        }
        if !ip.is_empty() || !list.is_empty() {
            causes.push(Cause::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
        }
        return;
    }
    if ip == "None" && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), detail));
    } else if ip.is_empty() && !list.is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        causes.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], detail));
    } else if !matches!(ip, "" | "None") {
        address(&spec["clusterIP"], "spec.clusterIPs[0]".into(), causes);
    }
}

fn port(port: &Value, index: usize, all: &[Value], kind: &str, causes: &mut Vec<Cause>) {
    let at = format!("spec.ports[{index}]");
    match port["name"].as_str() {
        Some(name) if !name.is_empty() => {
            let field = format!("{at}.name");
            let complaints = meta::dns_label(name);
            causes.extend(complaints.into_iter().map(|m| Cause::invalid(&field, &port["name"], m)));
            if all[..index].iter().any(|p| p["name"] == name) {
                causes.push(Cause::duplicate(field, &port["name"]));
            }
        }
        _ if all.len() > 1 => causes.push(Cause::required(format!("{at}.name"), "")),
        _ => {}
    }
    port_or_name(&json!(port["port"].as_i64().unwrap_or(0)), format!("{at}.port"), causes);
    if !port["targetPort"].is_null() {
        port_or_name(&port["targetPort"], format!("{at}.targetPort"), causes);
    }
    let same = |p: &Value| p["protocol"] == port["protocol"] && p["port"] == port["port"];
    if all[..index].iter().any(same) {
        let shown = json!({"Name": "", "Protocol": port["protocol"], "AppProtocol": null, "Port": port["port"],
            "TargetPort": 0, "NodePort": 0});
        causes.push(Cause::duplicate(&at, &shown));
    }
    if kind == "ClusterIP" && port["nodePort"].as_i64().unwrap_or(0) != 0 {
        let detail = "may not be used when `type` is 'ClusterIP'";
        causes.push(Cause::forbidden(format!("{at}.nodePort"), detail));
    }
}

/// How the service is reached from outside.
fn outside(spec: &Value, kind: &str, causes: &mut Vec<Cause>) {
    let external = spec["externalIPs"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, ip) in external.iter().enumerate() {
        let at = format!("spec.externalIPs[{index}]");
        let Some(parsed) = ip.as_str().and_then(|t| t.parse::<IpAddr>().ok()) else {
            address(ip, at, causes);
            continue;
        };
        let detail = if parsed.is_unspecified() {
            format!("may not be unspecified ({parsed})")
        } else if parsed.is_loopback() {
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
        } else {
            continue;
        };
        causes.push(Cause::invalid(at, ip, detail));
    }
    let balanced = kind == "LoadBalancer";
    let reachable = balanced || kind == "NodePort" || !external.is_empty();
    let policy = &spec["externalTrafficPolicy"];
    if policy.is_string() && !reachable {
        let detail = "may only be set for externally-accessible services";
        causes.push(Cause::invalid("spec.externalTrafficPolicy", policy, detail));
    }
    let check_port = &spec["healthCheckNodePort"];
    if check_port.as_i64().unwrap_or(0) != 0 && !(balanced && *policy == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid("spec.healthCheckNodePort", check_port, detail));
    }
    let ranges = spec["loadBalancerSourceRanges"].as_array().map_or(&[][..], Vec::as_slice);
    let only_balanced = "may only be used when `type` is 'LoadBalancer'";
    if !ranges.is_empty() && !balanced {
        causes.push(Cause::forbidden("spec.LoadBalancerSourceRanges", only_balanced));
    } else {
        for (index, range) in ranges.iter().enumerate() {
            cidr(range, format!("spec.LoadBalancerSourceRanges[{index}]"), causes);
        }
    }
    if !balanced && spec["loadBalancerClass"].is_string() {
        causes.push(Cause::forbidden("spec.loadBalancerClass", only_balanced));
    }
    if !balanced && !spec["allocateLoadBalancerNodePorts"].is_null() {
        causes.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", only_balanced));
    }
}

/// A block of addresses.
pub fn cidr(value: &Value, path: String, causes: &mut Vec<Cause>) {
    let text = value.as_str().unwrap_or_default();
    let fits = text.split_once('/').is_some_and(|(ip, bits)| {
        let most = if ip.contains(':') { 128 } else { 32 };
        ip.parse::<IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= most)
    });
    if !fits {
        let rule = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        causes.push(Cause::invalid(path, value, rule));
    }
}

/// One family of addresses is served here, IPv4.
fn families(spec: &Value, causes: &mut Vec<Cause>) {
    let policy = &spec["ipFamilyPolicy"];
    if *policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", policy, detail));
    }
    for (index, family) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
        let at = format!("spec.ipFamilies[{index}]");
        match family.as_str() {
            Some("IPv4") => {}
            Some("IPv6") => causes.push(Cause::invalid(at, family, "not configured on this cluster")),
            _ => causes.push(Cause::unsupported(at, family, &["IPv4", "IPv6"].map(String::from))),
        }
    }
}
