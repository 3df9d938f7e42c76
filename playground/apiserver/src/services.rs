//! What Services are given: addresses and ports of nodes.
//!
//! Rules: Kubernetes `pkg/registry/core/service/storage`.

use crate::app::App;
use crate::status::{Cause, Refusal};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::net::IpAddr;

/// Ports that a NodePort service gets.
const NODE_PORTS: std::ops::Range<i64> = 30_000..32_768;

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or_default()
}

fn has_address(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Gives a service what its type needs and it does not have. What it asks for has to be free.
pub fn allocate(app: &App, object: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = kind(object).to_owned();
    let Value::Object(spec) = &mut object["spec"] else { return Ok(()) };
    if has_address(&kind) {
        address(app, &name, spec)?;
    }
    if has_node_ports(&kind) {
        node_ports(app, &name, spec, old)?;
    }
    Ok(())
}

fn address(app: &App, name: &str, spec: &mut Map<String, Value>) -> Result<(), Refusal> {
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = text(spec.get("clusterIP"));
    let listed = text(spec.get("clusterIPs").and_then(|l| l.get(0)));
    if !listed.is_empty() {
        // Given before, or by hand in a way that is refused later.
        if wanted != listed {
            return Ok(());
        }
    }
    let is_new = listed.is_empty();
    if is_new {
        // What is no address is refused by the rules for services.
        let is_address = wanted.is_empty() || wanted.parse::<IpAddr>().is_ok();
        if wanted != "None" && !is_address {
            return Ok(());
        }
        let ip = if wanted == "None" {
            wanted
        } else {
            app.cluster_ip(&wanted).map_err(|why| {
                let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &why);
                Refusal::invalid("", "Service", name, vec![cause])
            })?
        };
        spec.insert("clusterIP".into(), ip.clone().into());
        spec.insert("clusterIPs".into(), json!([ip]));
    }
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    Ok(())
}

fn node_ports(
    app: &App,
    name: &str,
    spec: &mut Map<String, Value>,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let ports_of = |service: &Value| -> Vec<i64> {
        let list = service["spec"]["ports"].as_array().into_iter().flatten();
        list.filter_map(|p| p["nodePort"].as_i64()).collect()
    };
    let own: HashSet<i64> = old.map(ports_of).unwrap_or_default().into_iter().collect();
    let store = app.store();
    let mut used: HashSet<i64> = store
        .range("services", "", "")
        .flat_map(|s| ports_of(&s.value))
        .filter(|p| !own.contains(p))
        .collect();
    let mut causes = Vec::new();
    for (index, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
    {
        let asked = port["nodePort"].as_i64().unwrap_or(0);
        if asked != 0 {
            if !own.contains(&asked) && used.contains(&asked) {
                let at = format!("spec.ports[{index}].nodePort");
                causes.push(Cause::invalid(at, &json!(asked), "provided port is already allocated"));
            }
            continue;
        }
        let free = NODE_PORTS
            .clone()
            .find(|p| !used.contains(p) && !own.contains(p))
            .ok_or_else(|| Refusal::internal("failed to allocate a nodePort: range is full"))?;
        used.insert(free);
        port["nodePort"] = free.into();
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid("", "Service", name, causes)) }
}

/// A service keeps its addresses and ports unless others are asked for, and loses those that its new type does not have.
pub fn keep(new: &mut Value, old: &Value) {
    let (now, before) = (kind(new).to_owned(), kind(old).to_owned());
    let asked = new["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let (Value::Object(spec), Some(had)) = (&mut new["spec"], old["spec"].as_object()) else { return };
    if has_address(&now) && has_address(&before) {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let unset = spec
                .get(key)
                .is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty));
            if unset && let Some(value) = had.get(key) {
                spec.insert(key.into(), value.clone());
            }
        }
        if !asked.is_empty() && had.get("clusterIP") != Some(&json!(asked)) {
            spec.insert("clusterIPs".into(), json!([asked]));
        }
    }
    let mut drop = |keys: &[&str]| {
        for key in keys {
            if spec.get(*key) == had.get(*key) {
                spec.shift_remove(*key);
            }
        }
    };
    if has_address(&before) && !has_address(&now) {
        drop(&["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if has_node_ports(&before) && !has_node_ports(&now) {
        drop(&["externalTrafficPolicy", "healthCheckNodePort"]);
    }
    if before == "LoadBalancer" && now != "LoadBalancer" {
        drop(&["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    let old_ports = had.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = old_ports.iter().find(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]);
        let number = same.and_then(|o| o.get("nodePort")).cloned();
        if has_node_ports(&now) {
            if port["nodePort"].as_i64().unwrap_or(0) == 0
                && let Some(number) = number
            {
                port["nodePort"] = number;
            }
        } else if has_node_ports(&before)
            && let (Some(number), Value::Object(port)) = (number, port)
            && port.get("nodePort") == Some(&number)
        {
            port.shift_remove("nodePort");
        }
    }
}
