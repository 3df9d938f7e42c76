//! Rules for autoscalers and disruption budgets.
//!
//! Wording: Kubernetes `pkg/apis/autoscaling/validation` and `pkg/apis/policy/validation`.

use super::meta;
use crate::status::Cause;
use serde_json::{Value, json};

fn is_unset(value: &Value) -> bool {
    value.as_str().is_none_or(str::is_empty)
}

/// A HorizontalPodAutoscaler.
pub fn autoscaler(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let most = spec["maxReplicas"].as_i64().unwrap_or(0);
    if most < 1 {
        causes.push(Cause::required("spec.maxReplicas", "must be set and greater than 0"));
    }
    let least = spec["minReplicas"].as_i64().unwrap_or(1);
    if least < 1 {
        let detail = "must be greater than or equal to 1";
        causes.push(Cause::invalid("spec.minReplicas", &spec["minReplicas"], detail));
    }
    if most < least {
        let detail = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &json!(most), detail));
    }
    let target = &spec["scaleTargetRef"];
    for key in ["kind", "name"] {
        if is_unset(&target[key]) {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{key}"), ""));
        }
    }
    let version = target["apiVersion"].as_str().unwrap_or_default();
    let detail = match version.matches('/').count() {
        0 if target["kind"] != "ReplicationController" => {
            Some("apiVersion must specify API group".to_owned())
        }
        0 | 1 => None,
        _ => Some(format!("unexpected GroupVersion string: {version}")),
    };
    if let Some(detail) = detail {
        causes.push(Cause::invalid("spec.scaleTargetRef.apiVersion", &json!(version), detail));
    }
    metrics(spec, least, causes);
    for direction in ["scaleUp", "scaleDown"] {
        behavior(&spec["behavior"][direction], &format!("spec.behavior.{direction}"), causes);
    }
}

/// Kinds of metrics, and where each is described.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metrics(spec: &Value, least: i64, causes: &mut Vec<Cause>) {
    let list = spec["metrics"].as_array().map_or(&[][..], Vec::as_slice);
    let outside = list.iter().any(|m| m["type"] == "Object" || m["type"] == "External");
    if least == 0 && !outside {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        causes.push(Cause::forbidden("spec.metrics", detail));
    }
    for (index, metric) in list.iter().enumerate() {
        let at = format!("spec.metrics[{index}]");
        let kind = &metric["type"];
        let Some((_, key)) = METRICS.iter().find(|(name, _)| kind == name) else {
            let allowed = METRICS.map(|(name, _)| name.to_owned());
            // A real server says so twice.
            for _ in 0..2 {
                causes.push(Cause::unsupported(format!("{at}.type"), kind, &allowed));
            }
            continue;
        };
        let at = format!("{at}.{key}");
        let source = &metric[*key];
        if source.is_null() {
            let detail = "must populate information for the given metric source";
            causes.push(Cause::required(at, detail));
            continue;
        }
        if key.to_lowercase().ends_with("resource") {
            if is_unset(&source["name"]) {
                causes.push(Cause::required(format!("{at}.name"), "must specify a resource name"));
            }
        } else if is_unset(&source["metric"]["name"]) {
            causes.push(Cause::required(format!("{at}.metric.name"), "must specify a metric name"));
        }
        target(&source["target"], key, &format!("{at}.target"), causes);
    }
}

fn target(target: &Value, kind: &str, at: &str, causes: &mut Vec<Cause>) {
    if is_unset(&target["type"]) {
        causes.push(Cause::required(format!("{at}.type"), "must specify a metric target type"));
    }
    let utilization = &target["averageUtilization"];
    if utilization.as_i64().is_some_and(|u| u < 1) {
        causes.push(Cause::invalid(
            format!("{at}.averageUtilization"),
            utilization,
            "must be greater than 0",
        ));
    }
    let missing = utilization.is_null() && target["averageValue"].is_null();
    if kind.to_lowercase().ends_with("resource") && missing {
        let detail = "must set either a target raw value or a target utilization";
        causes.push(Cause::required(format!("{at}.averageUtilization"), detail));
    }
}

fn behavior(rules: &Value, at: &str, causes: &mut Vec<Cause>) {
    let window = &rules["stabilizationWindowSeconds"];
    if let Some(seconds) = window.as_i64() {
        let at = format!("{at}.stabilizationWindowSeconds");
        if seconds < 0 {
            causes.push(Cause::invalid(at, window, "must be greater than or equal to zero"));
        } else if seconds > 3600 {
            causes.push(Cause::invalid(at, window, "must be less than or equal to 3600"));
        }
    }
    for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.policies[{index}]");
        let kind = &policy["type"];
        if *kind != "Percent" && *kind != "Pods" {
            let allowed = ["Percent", "Pods"].map(String::from);
            causes.push(Cause::unsupported(format!("{at}.type"), kind, &allowed));
        }
        for key in ["value", "periodSeconds"] {
            let number = policy[key].as_i64().unwrap_or(0);
            if number <= 0 {
                let detail = "must be greater than zero";
                causes.push(Cause::invalid(format!("{at}.{key}"), &json!(number), detail));
            }
        }
        if policy["periodSeconds"].as_i64().is_some_and(|s| s > 1800) {
            let detail = "must be less than or equal to 1800";
            causes.push(Cause::invalid(format!("{at}.periodSeconds"), &policy["periodSeconds"], detail));
        }
    }
}

/// A PodDisruptionBudget.
pub fn budget(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let (least, most) = (&spec["minAvailable"], &spec["maxUnavailable"]);
    if !least.is_null() && !most.is_null() {
        let shown = json!({"MinAvailable": least, "Selector": spec["selector"], "MaxUnavailable": most,
            "UnhealthyPodEvictionPolicy": spec["unhealthyPodEvictionPolicy"]});
        causes.push(Cause::invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        let at = format!("spec.{key}");
        super::workload::percent(&spec[key], &at, causes);
        super::workload::no_more_than_all(&spec[key], &at, causes);
    }
    meta::selector(&spec["selector"], "spec.selector", causes);
}
