//! Rules for containers.

use super::{each, one_of, probe, required, security, volume};
use crate::status::Cause;
use crate::validate::meta;
use engine::object::Quantity;
use serde_json::{Value, json};

/// All containers of a pod but the ephemeral ones.
pub fn all(spec: &Value, path: &str, volumes: &[&Value], causes: &mut Vec<Cause>) {
    if each(spec, "containers").next().is_none() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let host = spec["hostNetwork"] == true;
    let mut names: Vec<&Value> = Vec::new();
    let mut host_ports: Vec<String> = Vec::new();
    for kind in ["containers", "initContainers"] {
        for (index, container) in each(spec, kind) {
            let at = format!("{path}.{kind}[{index}]");
            check(container, &at, volumes, host, &mut host_ports, causes);
            let name = &container["name"];
            if names.contains(&name) && name.as_str().is_some_and(|n| !n.is_empty()) {
                causes.push(Cause::duplicate(format!("{at}.name"), name));
            }
            names.push(name);
            if kind == "initContainers" {
                initial(container, &at, causes);
            }
        }
    }
}

/// What init containers may not have: they are not there for long.
fn initial(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    let policy = &container["restartPolicy"];
    one_of(policy, &format!("{path}.restartPolicy"), &["Always", "Never", "OnFailure"], causes);
    if *policy == "Always" {
        return;
    }
    for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[key].is_null() {
            let detail = "may not be set for init containers without restartPolicy=Always";
            causes.push(Cause::forbidden(format!("{path}.{key}"), detail));
        }
    }
}

/// The ephemeral containers of a pod.
pub fn ephemeral(spec: &Value, causes: &mut Vec<Cause>) {
    let names = |list: &str| -> Vec<Value> { each(spec, list).map(|(_, c)| c["name"].clone()).collect() };
    let others = [names("containers"), names("initContainers")].concat();
    let volumes: Vec<&Value> = each(spec, "volumes").map(|(_, v)| &v["name"]).collect();
    let mut seen: Vec<&Value> = Vec::new();
    for (index, container) in each(spec, "ephemeralContainers") {
        let at = format!("spec.ephemeralContainers[{index}]");
        check(container, &at, &volumes, false, &mut Vec::new(), causes);
        let name = &container["name"];
        if others.contains(name) || seen.contains(&name) {
            causes.push(Cause::duplicate(format!("{at}.name"), name));
        }
        seen.push(name);
        let target = &container["targetContainerName"];
        if target.as_str().is_some_and(|t| !t.is_empty()) && !others.contains(target) {
            let message = format!("Not found: {target}");
            let field = format!("{at}.targetContainerName");
            causes.push(Cause { field, reason: "FieldValueNotFound", message });
        }
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            let is_set = match &container[key] {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                _ => true,
            };
            if is_set {
                let detail = "cannot be set for an Ephemeral Container";
                causes.push(Cause::forbidden(format!("{at}.{key}"), detail));
            }
        }
        if container["resources"].as_object().is_some_and(|r| !r.is_empty()) {
            let detail = "cannot be set for an Ephemeral Container";
            causes.push(Cause::forbidden(format!("{at}.resources"), detail));
        }
    }
}

/// A DNS label that has to be there.
pub fn label_name(name: &Value, path: &str, causes: &mut Vec<Cause>) {
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        causes.extend(meta::dns_label(text).into_iter().map(|m| Cause::invalid(path, name, m)));
    }
}

fn check(
    container: &Value,
    path: &str,
    volumes: &[&Value],
    host: bool,
    host_ports: &mut Vec<String>,
    causes: &mut Vec<Cause>,
) {
    label_name(&container["name"], &format!("{path}.name"), causes);
    let image = container["image"].as_str().unwrap_or_default();
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let rule = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(format!("{path}.image"), &container["image"], rule));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(&container["imagePullPolicy"], &format!("{path}.imagePullPolicy"), &policies, causes);
    let policies = ["File", "FallbackToLogsOnError"];
    let at = format!("{path}.terminationMessagePolicy");
    one_of(&container["terminationMessagePolicy"], &at, &policies, causes);
    ports(container, path, host, host_ports, causes);
    environment(container, path, causes);
    mounts(container, path, volumes, causes);
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe::check(&container[kind], kind, &format!("{path}.{kind}"), causes);
    }
    probe::lifecycle(&container["lifecycle"], &format!("{path}.lifecycle"), causes);
    resources(&container["resources"], &format!("{path}.resources"), causes);
    security::of_container(&container["securityContext"], &format!("{path}.securityContext"), causes);
}

fn ports(container: &Value, path: &str, host: bool, host_ports: &mut Vec<String>, causes: &mut Vec<Cause>) {
    let mut names: Vec<&str> = Vec::new();
    for (index, port) in each(container, "ports") {
        let at = format!("{path}.ports[{index}]");
        if let Some(name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            let complaints = super::port_name(name);
            if complaints.is_empty() && names.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &port["name"]));
            }
            causes.extend(
                complaints.into_iter().map(|m| Cause::invalid(format!("{at}.name"), &port["name"], m)),
            );
            names.push(name);
        }
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if number == 0 {
            causes.push(Cause::required(format!("{at}.containerPort"), ""));
        } else {
            super::port_number(&port["containerPort"], format!("{at}.containerPort"), causes);
        }
        one_of(&port["protocol"], &format!("{at}.protocol"), &["SCTP", "TCP", "UDP"], causes);
        let Some(host_port) = port["hostPort"].as_i64().filter(|p| *p != 0) else { continue };
        let at = format!("{at}.hostPort");
        super::port_number(&port["hostPort"], at.clone(), causes);
        if host && host_port != number {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            causes.push(Cause::invalid(at.clone(), &port["hostPort"], detail));
        }
        let text = |key: &str| port[key].as_str().unwrap_or_default();
        let taken = format!("{}/{}/{host_port}", text("protocol"), text("hostIP"));
        if host_ports.contains(&taken) {
            causes.push(Cause::duplicate(at, &json!(taken)));
        }
        host_ports.push(taken);
    }
}

/// Rule for the names of variables.
const VARIABLE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// Fields of a pod that variables can hold.
const FIELDS: [&str; 11] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, variable) in each(container, "env") {
        let at = format!("{path}.env[{index}]");
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !is_variable(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &variable["name"], VARIABLE));
        }
        let from = &variable["valueFrom"];
        if !from.is_null() {
            let has_value = variable["value"].as_str().is_some_and(|v| !v.is_empty());
            value_from(from, &format!("{at}.valueFrom"), has_value, causes);
        }
    }
    for (index, source) in each(container, "envFrom") {
        let at = format!("{path}.envFrom[{index}]");
        let prefix = source["prefix"].as_str().unwrap_or_default();
        if !is_variable(prefix) {
            causes.push(Cause::invalid(format!("{at}.prefix"), &source["prefix"], VARIABLE));
        }
        let kinds: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|k| !source[*k].is_null()).collect();
        for kind in &kinds {
            required(&source[*kind]["name"], format!("{at}.{kind}.name"), causes);
        }
        if kinds.is_empty() {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            causes.push(Cause::invalid(format!("{path}.envFrom"), &json!(""), detail));
        }
    }
}

fn value_from(from: &Value, path: &str, has_value: bool, causes: &mut Vec<Cause>) {
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let set: Vec<&str> = kinds.into_iter().filter(|k| !from[*k].is_null()).collect();
    for kind in &set {
        let (value, at) = (&from[*kind], format!("{path}.{kind}"));
        match *kind {
            "fieldRef" => volume::field(value, &at, &FIELDS, causes),
            "resourceFieldRef" => {
                let allowed = [
                    "limits.cpu",
                    "limits.ephemeral-storage",
                    "limits.memory",
                    "requests.cpu",
                    "requests.ephemeral-storage",
                    "requests.memory",
                ];
                let is_pages = value["resource"].as_str().is_some_and(|r| r.contains(".hugepages-"));
                if !is_pages {
                    one_of(&value["resource"], &format!("{at}.resource"), &allowed, causes);
                }
            }
            "configMapKeyRef" | "secretKeyRef" => {
                let name = value["name"].as_str().unwrap_or_default();
                let shown = json!(name);
                let complaints = meta::subdomain(name);
                causes
                    .extend(complaints.into_iter().map(|m| Cause::invalid(format!("{at}.name"), &shown, m)));
                volume::key(&value["key"], format!("{at}.key"), causes);
            }
            _ => {}
        }
    }
    if set.is_empty() {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        causes.push(Cause::invalid(path, &json!(""), detail));
    } else if has_value {
        causes.push(Cause::invalid(path, &json!(""), "may not be specified when `value` is not empty"));
    } else if set.len() > 1 {
        causes.push(Cause::invalid(path, &json!(""), "may not have more than one field specified at a time"));
    }
}

fn mounts(container: &Value, path: &str, volumes: &[&Value], causes: &mut Vec<Cause>) {
    let mut paths: Vec<&Value> = Vec::new();
    for (index, mount) in each(container, "volumeMounts") {
        let at = format!("{path}.volumeMounts[{index}]");
        if mount["name"].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !volumes.contains(&&mount["name"]) {
            let message = format!("Not found: {}", mount["name"]);
            causes.push(Cause { field: format!("{at}.name"), reason: "FieldValueNotFound", message });
        }
        let place = &mount["mountPath"];
        required(place, format!("{at}.mountPath"), causes);
        if paths.contains(&place) {
            causes.push(Cause::invalid(format!("{at}.mountPath"), place, "must be unique"));
        }
        paths.push(place);
        for key in ["subPath", "subPathExpr"] {
            // The path is that of the list, as a real server has it.
            volume::inner_path(&mount[key], &format!("{path}.volumeMounts.{key}"), causes);
        }
    }
}

/// Resources that containers ask for by name alone.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Resources that cannot be shared out to more than there is.
fn is_exclusive(name: &str) -> bool {
    name.starts_with("hugepages-") || (name.contains('/') && !name.contains("kubernetes.io/"))
}

fn resources(resources: &Value, path: &str, causes: &mut Vec<Cause>) {
    let amount = |v: &Value| v.as_str().and_then(Quantity::parse);
    let (requests, limits) = (&resources["requests"], &resources["limits"]);
    for (kind, amounts) in [("limits", limits), ("requests", requests)] {
        for (name, value) in amounts.as_object().into_iter().flatten() {
            let at = format!("{path}.{kind}[{name}]");
            let complaints = meta::qualified(name);
            causes.extend(complaints.into_iter().map(|m| Cause::invalid(&at, &json!(name), m)));
            if !name.contains('/') && !is_standard(name) {
                for rule in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    causes.push(Cause::invalid(&at, &json!(name), rule));
                }
            }
            let Some(amount) = amount(value) else { continue };
            if amount.nano() < 0 {
                causes.push(Cause::invalid(&at, value, "must be greater than or equal to 0"));
            }
            if name.contains('/') && amount.nano() % 1_000_000_000 != 0 {
                causes.push(Cause::invalid(&at, value, "must be an integer"));
            }
            if let Some(size) = name.strip_prefix("hugepages-").and_then(Quantity::parse)
                && kind == "requests"
                && (amount.nano() <= 0 || amount.nano() % size.nano().max(1) != 0)
            {
                let detail = format!("{amount} is not positive integer multiple of {name}");
                causes.push(Cause::invalid(&at, value, detail));
            }
        }
    }
    for (name, request) in requests.as_object().into_iter().flatten() {
        match (amount(request), amount(&limits[name])) {
            (Some(asked), Some(most)) if asked.nano() > most.nano() => {
                let detail = format!("must be less than or equal to {name} limit of {most}");
                causes.push(Cause::invalid(format!("{path}.requests"), request, detail));
            }
            (Some(_), None) if is_exclusive(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                causes.push(Cause::required(format!("{path}.limits"), detail));
            }
            _ => {}
        }
    }
    let has = |of: &dyn Fn(&str) -> bool| {
        [requests, limits].iter().any(|a| a.as_object().is_some_and(|o| o.keys().any(|k| of(k))))
    };
    if has(&|k| k.starts_with("hugepages-")) && !has(&|k| matches!(k, "cpu" | "memory")) {
        causes.push(Cause::forbidden(path, "HugePages require cpu or memory"));
    }
}
