//! Rules for Ingresses, IngressClasses, NetworkPolicies and EndpointSlices.
//!
//! Wording: Kubernetes `pkg/apis/networking/validation` and `pkg/apis/discovery/validation`.

use super::meta;
use super::pod::{address, port_or_name};
use super::service::cidr;
use crate::schema::catalogue::Resource;
use crate::status::Cause;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Rules by kind.
pub fn check(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("networking.k8s.io", "ingresses") => ingress(object, causes),
        ("networking.k8s.io", "ingressclasses") => class(&object["spec"], causes),
        ("networking.k8s.io", "networkpolicies") => policy(&object["spec"], causes),
        ("discovery.k8s.io", "endpointslices") => slice(object, causes),
        _ => {}
    }
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value[key].as_array().into_iter().flatten().enumerate()
}

fn is_unset(value: &Value) -> bool {
    value.as_str().is_none_or(str::is_empty)
}

fn subdomain(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
        causes.extend(meta::subdomain(text).into_iter().map(|m| Cause::invalid(path, value, m)));
    }
}

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for \
validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// A host name, or one for all below a domain.
fn host(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(text) = value.as_str().filter(|t| !t.is_empty()) else { return };
    if text.parse::<IpAddr>().is_ok() {
        causes.push(Cause::invalid(path, value, "must be a DNS name, not an IP address"));
    }
    if text.contains('*') {
        let fits = text.strip_prefix("*.").is_some_and(|rest| meta::subdomain(rest).is_empty());
        if !fits {
            causes.push(Cause::invalid(path, value, WILDCARD));
        }
    } else {
        subdomain(value, path, causes);
    }
}

fn ingress(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &json!([]), detail));
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", causes);
    }
    for (r, rule) in each(spec, "rules") {
        host(&rule["host"], &format!("spec.rules[{r}].host"), causes);
        let at = format!("spec.rules[{r}].http.paths");
        if rule["http"].is_object() && each(&rule["http"], "paths").next().is_none() {
            causes.push(Cause::required(&at, ""));
        }
        for (p, path) in each(&rule["http"], "paths") {
            self::path(path, &format!("{at}[{p}]"), causes);
        }
    }
    for (index, tls) in each(spec, "tls") {
        let at = format!("spec.tls[{index}]");
        for (h, name) in each(tls, "hosts") {
            host(name, &format!("{at}.hosts[{h}]"), causes);
        }
        subdomain(&tls["secretName"], &format!("{at}.secretName"), causes);
    }
    subdomain(&spec["ingressClassName"], "spec.ingressClassName", causes);
    let annotation = &object["metadata"]["annotations"]["kubernetes.io/ingress.class"];
    if !is_unset(annotation)
        && !is_unset(&spec["ingressClassName"])
        && *annotation != spec["ingressClassName"]
    {
        let detail = "must match `ingressClassName` when both are specified";
        causes.push(Cause::invalid("annotations.kubernetes.io/ingress.class", annotation, detail));
    }
}

fn path(path: &Value, at: &str, causes: &mut Vec<Cause>) {
    let (kind, text) = (&path["pathType"], path["path"].as_str().unwrap_or_default());
    let below = format!("{at}.path");
    match kind.as_str() {
        None | Some("") => {
            causes.push(Cause::required(format!("{at}.pathType"), "pathType must be specified"));
        }
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                causes.push(Cause::invalid(&below, &json!(text), "must be an absolute path"));
            }
            for odd in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(odd) {
                    let detail = format!("must not contain '{odd}'");
                    causes.push(Cause::invalid(&below, &json!(text), detail));
                }
            }
            for odd in ["/..", "/."] {
                if text.ends_with(odd) {
                    let detail = format!("cannot end with '{odd}'");
                    causes.push(Cause::invalid(&below, &json!(text), detail));
                }
            }
        }
        Some("ImplementationSpecific") if !text.is_empty() && !text.starts_with('/') => {
            causes.push(Cause::invalid(&below, &json!(text), "must be an absolute path"));
        }
        _ => {}
    }
    backend(&path["backend"], &format!("{at}.backend"), causes);
}

fn backend(backend: &Value, at: &str, causes: &mut Vec<Cause>) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    let mut refuse = |detail: &str| causes.push(Cause::invalid(at, &json!(""), detail));
    match (service.is_null(), resource.is_null()) {
        (false, false) => return refuse("cannot set both resource and service backends"),
        (true, true) => return refuse("resource or service backend is required"),
        (true, false) => return,
        (false, true) => {}
    }
    let name = service["name"].as_str().unwrap_or_default();
    let at_name = format!("{at}.service.name");
    if name.is_empty() {
        causes.push(Cause::required(at_name, ""));
    } else {
        let complaints = meta::dns_label(name);
        causes.extend(complaints.into_iter().map(|m| Cause::invalid(&at_name, &service["name"], m)));
    }
    let (number, word) = (service["port"]["number"].as_i64().unwrap_or(0), &service["port"]["name"]);
    match (number != 0, !is_unset(word)) {
        (true, true) => {
            causes.push(Cause::invalid(at, &json!(""), "cannot set both port name & port number"));
        }
        (true, false) => port_or_name(&json!(number), format!("{at}.service.port.number"), causes),
        (false, true) => port_or_name(word, format!("{at}.service.port.name"), causes),
        (false, false) => causes.push(Cause::required(at, "port name or number is required")),
    }
}

fn class(spec: &Value, causes: &mut Vec<Cause>) {
    let controller = spec["controller"].as_str().unwrap_or_default();
    let fits = controller.split_once('/').is_some_and(|(domain, path)| {
        meta::subdomain(domain).is_empty() && !path.is_empty() && !path.contains(char::is_whitespace)
    });
    if controller.is_empty() {
        causes.push(Cause::required("spec.controller", ""));
    } else if !fits {
        let rule = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        causes.push(Cause::invalid("spec.controller", &spec["controller"], rule));
    }
    let parameters = &spec["parameters"];
    if parameters.is_null() {
        return;
    }
    for key in ["kind", "name"] {
        if is_unset(&parameters[key]) {
            causes.push(Cause::required(format!("spec.parameters.{key}"), ""));
        }
    }
    match parameters["scope"].as_str() {
        Some("Namespace") if is_unset(&parameters["namespace"]) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            causes.push(Cause::required("spec.parameters.namespace", detail));
        }
        Some("Cluster") if !parameters["namespace"].is_null() => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            causes.push(Cause::forbidden("spec.parameters.namespace", detail));
        }
        _ => {}
    }
}

fn policy(spec: &Value, causes: &mut Vec<Cause>) {
    meta::selector(&spec["podSelector"], "spec.podSelector", causes);
    let types = spec["policyTypes"].as_array().map_or(&[][..], Vec::as_slice);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        causes.push(Cause::invalid("spec.policyTypes", &spec["policyTypes"], detail));
    } else {
        for (index, kind) in types.iter().enumerate() {
            if *kind != "Ingress" && *kind != "Egress" {
                let at = format!("spec.policyTypes[{index}]");
                causes.push(Cause::unsupported(at, kind, &["Ingress", "Egress"].map(String::from)));
            }
        }
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in each(spec, direction) {
            let at = format!("spec.{direction}[{index}]");
            for (p, port) in each(rule, "ports") {
                policy_port(port, &format!("{at}.ports[{p}]"), causes);
            }
            for (p, peer) in each(rule, peers) {
                self::peer(peer, &format!("{at}.{peers}[{p}]"), causes);
            }
        }
    }
}

fn policy_port(port: &Value, at: &str, causes: &mut Vec<Cause>) {
    let protocol = &port["protocol"];
    if protocol.is_string() && !["TCP", "UDP", "SCTP"].iter().any(|p| protocol == p) {
        let allowed = ["TCP", "UDP", "SCTP"].map(String::from);
        causes.push(Cause::unsupported(format!("{at}.protocol"), protocol, &allowed));
    }
    let number = &port["port"];
    if !number.is_null() {
        port_or_name(number, format!("{at}.port"), causes);
    }
    let end = &port["endPort"];
    let Some(last) = end.as_i64() else { return };
    let detail = match number {
        Value::Null => "may not be specified when `port` is not specified",
        Value::String(_) => "may not be specified when `port` is non-numeric",
        first if first.as_i64().is_some_and(|first| last < first) => {
            "must be greater than or equal to `port`"
        }
        _ => return,
    };
    // The value is the number that it ought to reach.
    let shown = if detail.contains("equal") { number } else { end };
    causes.push(Cause::invalid(format!("{at}.endPort"), shown, detail));
}

fn peer(peer: &Value, at: &str, causes: &mut Vec<Cause>) {
    let mut count = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if !peer[key].is_null() {
            count += 1;
            meta::selector(&peer[key], &format!("{at}.{key}"), causes);
        }
    }
    let block = &peer["ipBlock"];
    if block.is_null() {
        if count == 0 {
            causes.push(Cause::required(at, "must specify a peer"));
        }
        return;
    }
    if is_unset(&block["cidr"]) {
        causes.push(Cause::required(format!("{at}.ipBlock.cidr"), ""));
    } else {
        cidr(&block["cidr"], format!("{at}.ipBlock.cidr"), causes);
    }
    for (index, except) in each(block, "except") {
        let at = format!("{at}.ipBlock.except[{index}]");
        match (range(&block["cidr"]), range(except)) {
            (Some(whole), Some(part)) if !whole.holds(&part) => {
                causes.push(Cause::invalid(at, except, "must be a strict subset of `cidr`"));
            }
            (_, None) => cidr(except, at, causes),
            _ => {}
        }
    }
    if count > 0 {
        causes.push(Cause::forbidden(at, "may not specify both ipBlock and another peer"));
    }
}

/// A block of addresses.
struct Range {
    network: u128,
    bits: u32,
    width: u32,
}

impl Range {
    /// Whether another block is a smaller part of this one.
    fn holds(&self, other: &Range) -> bool {
        let shift = self.width - self.bits;
        let prefix = |address: u128| address.checked_shr(shift).unwrap_or(0);
        self.width == other.width && other.bits > self.bits && prefix(self.network) == prefix(other.network)
    }
}

fn range(value: &Value) -> Option<Range> {
    let (ip, bits) = value.as_str()?.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let (network, width) = match ip.parse().ok()? {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    (bits <= width).then_some(Range { network, bits, width })
}

fn slice(object: &Value, causes: &mut Vec<Cause>) {
    let kind = &object["addressType"];
    if is_unset(kind) {
        causes.push(Cause::required("addressType", ""));
    }
    for (index, endpoint) in each(object, "endpoints") {
        let at = format!("endpoints[{index}]");
        if each(endpoint, "addresses").next().is_none() {
            causes.push(Cause::required(format!("{at}.addresses"), "must contain at least 1 address"));
        }
        for (a, ip) in each(endpoint, "addresses") {
            let at = format!("{at}.addresses[{a}]");
            match kind.as_str() {
                Some("FQDN") => subdomain(ip, &at, causes),
                Some("IPv4" | "IPv6") => reachable(ip, at, causes),
                _ => {}
            }
        }
        subdomain(&endpoint["nodeName"], &format!("{at}.nodeName"), causes);
        let host = &endpoint["hostname"];
        if let Some(text) = host.as_str() {
            let at = format!("{at}.hostname");
            causes.extend(meta::dns_label(text).into_iter().map(|m| Cause::invalid(&at, host, m)));
        }
    }
    let mut names: Vec<&Value> = Vec::new();
    for (index, port) in each(object, "ports") {
        let at = format!("ports[{index}]");
        let name = &port["name"];
        if let Some(text) = name.as_str().filter(|t| !t.is_empty()) {
            let at = format!("{at}.name");
            causes.extend(meta::dns_label(text).into_iter().map(|m| Cause::invalid(&at, name, m)));
        }
        if names.contains(&name) {
            causes.push(Cause::duplicate(format!("{at}.name"), name));
        }
        names.push(name);
    }
}

/// An address that others can reach. Those of the loopback interface, which a real server refuses, are the ones that pods
/// have here.
fn reachable(ip: &Value, at: String, causes: &mut Vec<Cause>) {
    let Some(parsed) = ip.as_str().and_then(|t| t.parse::<IpAddr>().ok()) else {
        address(ip, at, causes);
        return;
    };
    let (local, multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let detail = if parsed.is_unspecified() {
        format!("may not be unspecified ({parsed})")
    } else if local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else if multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
    } else {
        return;
    };
    causes.push(Cause::invalid(at, ip, detail));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_blocks() {
        let of = |text: &str| range(&json!(text)).unwrap();
        assert!(of("10.0.0.0/8").holds(&of("10.1.0.0/16")));
        assert!(!of("10.0.0.0/8").holds(&of("10.0.0.0/8")), "not smaller");
        assert!(!of("10.0.0.0/8").holds(&of("11.0.0.0/16")));
        assert!(of("0.0.0.0/0").holds(&of("11.0.0.0/16")));
        assert!(range(&json!("10.0.0.0/33")).is_none());
    }
}
