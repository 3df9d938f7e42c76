//! Rules for pods and the kinds that make them.

use super::meta;
use crate::schema::catalogue::Resource;
use crate::selector::Labels;
use crate::status::Cause;
use serde_json::{Value, json};

/// Rules for pods, controllers of pods and jobs.
pub fn check(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod_spec(spec, "spec", &[], causes),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            controller(resource, spec, causes)
        }
        ("batch", "jobs") => job(spec, "spec", causes),
        ("batch", "cronjobs") => {
            let schedule = spec["schedule"].as_str().unwrap_or_default();
            if schedule.is_empty() {
                causes.push(Cause::required("spec.schedule", ""));
            } else if !is_schedule(schedule) {
                causes.push(Cause::invalid("spec.schedule", &spec["schedule"], "expected exactly 5 fields"));
            }
            job(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", causes);
        }
        _ => {}
    }
}

fn is_schedule(text: &str) -> bool {
    text.starts_with('@') || text.split_whitespace().count() == 5
}

fn not_negative(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|v| v < 0) {
        causes.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn controller(resource: &Resource, spec: &Value, causes: &mut Vec<Cause>) {
    not_negative(&spec["replicas"], "spec.replicas", causes);
    not_negative(&spec["minReadySeconds"], "spec.minReadySeconds", causes);
    not_negative(&spec["revisionHistoryLimit"], "spec.revisionHistoryLimit", causes);
    not_negative(&spec["progressDeadlineSeconds"], "spec.progressDeadlineSeconds", causes);
    let selector = &spec["selector"];
    let template = &spec["template"];
    let template_labels = &template["metadata"]["labels"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else {
        let empty = |key: &str| selector[key].as_object().is_none_or(serde_json::Map::is_empty);
        if empty("matchLabels") && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty) {
            let kind = resource.singular.as_str();
            causes.push(Cause::invalid(
                "spec.selector",
                selector,
                format!("empty selector is invalid for {kind}"),
            ));
        }
        meta::labels(&selector["matchLabels"], "spec.selector.matchLabels", causes);
    }
    let labels = Labels::from_object(selector);
    if selector.is_null() || !labels.matches_labels(template_labels) {
        let shown = if template_labels.is_null() { json!(null) } else { template_labels.clone() };
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    meta::labels(template_labels, "spec.template.metadata.labels", causes);
    // The pods of a StatefulSet get a volume for each claim template.
    let claims: Vec<&Value> = match spec["volumeClaimTemplates"].as_array() {
        Some(templates) if resource.plural == "statefulsets" => {
            templates.iter().map(|t| &t["metadata"]["name"]).collect()
        }
        _ => Vec::new(),
    };
    pod_spec(&template["spec"], "spec.template.spec", &claims, causes);
    let policy = &template["spec"]["restartPolicy"];
    if *policy != "Always" && policy.is_string() {
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", policy, &["Always".into()]));
    }
    if resource.plural == "deployments" {
        strategy(spec, causes);
    }
}

fn strategy(spec: &Value, causes: &mut Vec<Cause>) {
    let strategy = &spec["strategy"];
    match strategy["type"].as_str() {
        Some("Recreate") if strategy["rollingUpdate"].is_object() => causes.push(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        Some("RollingUpdate") => {
            let zero = |v: &Value| *v == 0 || *v == "0%" || *v == "0";
            let rolling = &strategy["rollingUpdate"];
            if zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
                causes.push(Cause::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    &rolling["maxUnavailable"],
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            for key in ["maxUnavailable", "maxSurge"] {
                percent(&rolling[key], &format!("spec.strategy.rollingUpdate.{key}"), causes);
            }
        }
        _ => {}
    }
    let ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
    let deadline = spec["progressDeadlineSeconds"].as_i64();
    if deadline.is_some_and(|d| d <= ready) {
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &spec["progressDeadlineSeconds"],
            "must be greater than minReadySeconds",
        ));
    }
}

fn percent(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Number(_) => not_negative(value, path, causes),
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                let rule = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                            regex used for validation is '[0-9]+%')";
                causes.push(Cause::invalid(path, value, rule));
            }
        }
        _ => {}
    }
}

fn job(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for key in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        not_negative(&spec[key], &format!("{path}.{key}"), causes);
    }
    let template = &spec["template"]["spec"];
    pod_spec(template, &format!("{path}.template.spec"), &[], causes);
    let policy = &template["restartPolicy"];
    if *policy == "Always" || *policy == "" {
        let allowed = ["OnFailure", "Never"].map(String::from);
        causes.push(Cause::unsupported(format!("{path}.template.spec.restartPolicy"), policy, &allowed));
    }
}

/// `claims` are names of volumes that the pod will have besides its own.
fn pod_spec(spec: &Value, path: &str, claims: &[&Value], causes: &mut Vec<Cause>) {
    let list = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
    let volumes = list("volumes");
    let mut names: Vec<&Value> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        label_name(&volume["name"], &format!("{at}.name"), causes);
        if names.contains(&&volume["name"]) {
            causes.push(Cause::duplicate(format!("{at}.name"), &volume["name"]));
        }
        names.push(&volume["name"]);
    }
    names.extend(claims);
    if list("containers").is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen: Vec<Value> = Vec::new();
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(kind).iter().enumerate() {
            let at = format!("{path}.{kind}[{index}]");
            self::container(container, &at, &names, causes);
            let name = &container["name"];
            if seen.contains(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), name));
            }
            seen.push(name.clone());
        }
    }
    not_negative(
        &spec["terminationGracePeriodSeconds"],
        &format!("{path}.terminationGracePeriodSeconds"),
        causes,
    );
}

fn label_name(name: &Value, path: &str, causes: &mut Vec<Cause>) {
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        causes.extend(meta::dns_label(text).into_iter().map(|m| Cause::invalid(path, name, m)));
    }
}

fn container(container: &Value, path: &str, volumes: &[&Value], causes: &mut Vec<Cause>) {
    label_name(&container["name"], &format!("{path}.name"), causes);
    let image = container["image"].as_str().unwrap_or_default();
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        causes.push(Cause::invalid(
            format!("{path}.image"),
            &container["image"],
            "must not have leading or trailing whitespace",
        ));
    }
    let mut ports: Vec<&str> = Vec::new();
    for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.ports[{index}]");
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if number == 0 {
            causes.push(Cause::required(format!("{at}.containerPort"), ""));
        } else if !(1..=65535).contains(&number) {
            let rule = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("{at}.containerPort"), &port["containerPort"], rule));
        }
        if let Some(name) = port["name"].as_str() {
            if ports.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &port["name"]));
            }
            ports.push(name);
        }
    }
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{path}.env[{index}].name"), ""));
        }
    }
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.volumeMounts[{index}]");
        if mount["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !volumes.contains(&&mount["name"]) {
            let message = format!("Not found: {}", mount["name"]);
            causes.push(Cause { field: format!("{at}.name"), reason: "FieldValueNotFound", message });
        }
        if mount["mountPath"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{at}.mountPath"), ""));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let value = &container[probe];
        if value.is_null() {
            continue;
        }
        let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().filter(|k| value[*k].is_object());
        match handlers.count() {
            0 => causes.push(Cause::required(format!("{path}.{probe}"), "must specify a handler type")),
            1 => {}
            _ => causes.push(Cause::forbidden(
                format!("{path}.{probe}"),
                "may not specify more than 1 handler type",
            )),
        }
        if probe != "readinessProbe" && value["successThreshold"].as_i64().unwrap_or(1) != 1 {
            let at = format!("{path}.{probe}.successThreshold");
            causes.push(Cause::invalid(at, &value["successThreshold"], "must be 1"));
        }
    }
    resources(&container["resources"], &format!("{path}.resources"), causes);
}

fn resources(resources: &Value, path: &str, causes: &mut Vec<Cause>) {
    use crate::quantity::Quantity;
    let nano = |v: &Value| v.as_str().and_then(Quantity::parse).map(|q| q.nano());
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name];
        if let (Some(r), Some(l)) = (nano(request), nano(limit))
            && r > l
        {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                limit.as_str().unwrap_or_default()
            );
            causes.push(Cause::invalid(format!("{path}.requests"), request, detail));
        }
    }
    for kind in ["limits", "requests"] {
        for (name, value) in resources[kind].as_object().into_iter().flatten() {
            if nano(value).is_some_and(|n| n < 0) {
                let detail = "must be greater than or equal to 0";
                causes.push(Cause::invalid(format!("{path}.{kind}[{name}]"), value, detail));
            }
        }
    }
}
