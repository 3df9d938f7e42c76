//! Rules for what limits others: LimitRanges, ResourceQuotas, PriorityClasses.

use super::meta;
use crate::schema::catalogue::Resource;
use crate::status::Cause;
use engine::object::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Rules by kind.
pub fn check(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "limitranges") => limit_range(object, causes),
        ("", "resourcequotas") => quota(object, causes),
        ("scheduling.k8s.io", "priorityclasses") => priority(object, causes),
        _ => {}
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(Quantity::parse)
}

fn limit_range(object: &Value, causes: &mut Vec<Cause>) {
    let mut types: Vec<&Value> = Vec::new();
    for (index, limit) in object["spec"]["limits"].as_array().into_iter().flatten().enumerate() {
        let at = format!("spec.limits[{index}]");
        let kind = &limit["type"];
        let text = kind.as_str().unwrap_or_default();
        causes.extend(
            meta::qualified(text).into_iter().map(|m| Cause::invalid(format!("{at}.type"), &json!(text), m)),
        );
        if types.contains(&kind) {
            causes.push(Cause::duplicate(format!("{at}.type"), kind));
        }
        types.push(kind);
        let is_set = |key: &str| limit[key].as_object().is_some_and(|o| !o.is_empty());
        if text == "Pod" {
            for key in ["default", "defaultRequest"] {
                if is_set(key) {
                    let detail = "may not be specified when `type` is 'Pod'";
                    causes.push(Cause::forbidden(format!("{at}.{key}"), detail));
                }
            }
        }
        if text == "PersistentVolumeClaim" && !is_set("min") && !is_set("max") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(format!("{at}.limits"), detail));
        }
        let keys = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
        let names: BTreeSet<&String> =
            keys.iter().filter_map(|k| limit[*k].as_object()).flat_map(|o| o.keys()).collect();
        for name in names {
            amounts_of(limit, name, &at, causes);
        }
    }
}

/// The amounts for one resource have to be in order: min, default request, default, max.
fn amounts_of(limit: &Value, name: &str, at: &str, causes: &mut Vec<Cause>) {
    let of = |key: &str| amount(&limit[key][name]);
    let (min, max) = (of("min"), of("max"));
    let (usual, request, ratio) = (of("default"), of("defaultRequest"), of("maxLimitRequestRatio"));
    let mut refuse = |key: &str, shown: &Quantity, detail: String| {
        causes.push(Cause::invalid(format!("{at}.{key}[{name}]"), &json!(shown.to_string()), detail));
    };
    let above = |a: &Option<Quantity>, b: &Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) if a.nano() > b.nano() => Some((*a, *b)),
        _ => None,
    };
    if let Some((min, max)) = above(&min, &max) {
        refuse("min", &min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some((min, request)) = above(&min, &request) {
        let detail = format!("min value {min} is greater than default request value {request}");
        refuse("defaultRequest", &request, detail);
    }
    if let Some((request, max)) = above(&request, &max) {
        let detail = format!("default request value {request} is greater than max value {max}");
        refuse("defaultRequest", &request, detail);
    }
    if let Some((request, usual)) = above(&request, &usual) {
        let detail = format!("default request value {request} is greater than default limit value {usual}");
        refuse("defaultRequest", &request, detail);
    }
    if let Some((min, usual)) = above(&min, &usual) {
        refuse("default", &min, format!("min value {min} is greater than default value {usual}"));
    }
    if let Some((usual, max)) = above(&usual, &max) {
        refuse("default", &max, format!("default value {usual} is greater than max value {max}"));
    }
    let Some(ratio) = ratio else { return };
    if ratio.nano() < 1_000_000_000 {
        refuse("maxLimitRequestRatio", &ratio, format!("ratio {ratio} is less than 1"));
    } else if let (Some(min), Some(max)) = (min, max)
        && min.nano() > 0
    {
        let most = max.nano() as f64 / min.nano() as f64;
        if ratio.nano() as f64 / 1e9 > most {
            let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
            refuse("maxLimitRequestRatio", &ratio, detail);
        }
    }
}

/// What quotas count besides compute resources and `count/...`.
const COUNTED: [&str; 10] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "requests.storage",
];
const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn quota(object: &Value, causes: &mut Vec<Cause>) {
    for (part, path) in [(&object["spec"]["hard"], "spec.hard")] {
        for (name, value) in part.as_object().into_iter().flatten() {
            let at = format!("{path}[{name}]");
            let known = COUNTED.contains(&name.as_str()) || COMPUTE.contains(&name.as_str());
            causes.extend(meta::qualified(name).into_iter().map(|m| Cause::invalid(&at, &json!(name), m)));
            if !name.contains('/') && !known {
                for rule in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for quota",
                ] {
                    causes.push(Cause::invalid(&at, &json!(name), rule));
                }
            }
            let Some(amount) = amount(value) else { continue };
            if amount.nano() < 0 {
                causes.push(Cause::invalid(&at, value, "must be greater than or equal to 0"));
            }
            let counts = COUNTED[..9].contains(&name.as_str()) || name.starts_with("count/");
            if counts && amount.nano() % 1_000_000_000 != 0 {
                causes.push(Cause::invalid(&at, value, "must be an integer"));
            }
        }
    }
    scopes(&object["spec"], causes);
}

fn scopes(spec: &Value, causes: &mut Vec<Cause>) {
    let Some(list) = spec["scopes"].as_array().filter(|l| !l.is_empty()) else { return };
    let has = |scope: &str| list.iter().any(|s| s == scope);
    let known = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    ];
    let mut refuse = |rule: &str| causes.push(Cause::invalid("spec.scopes", &spec["scopes"], rule));
    if !list.iter().all(|s| known.iter().any(|k| s == k)) {
        refuse("unsupported scope");
    } else {
        let fits = |name: &String| name == "pods" || (!has("BestEffort") && COMPUTE.contains(&name.as_str()));
        let hard = spec["hard"].as_object();
        for _ in hard.into_iter().flatten().filter(|(name, _)| !fits(name)) {
            refuse("unsupported scope applied to resource");
        }
    }
    let at_odds = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
    if at_odds.iter().any(|(a, b)| has(a) && has(b)) {
        refuse("conflicting scopes");
    }
}

/// The highest priority that is not the system's.
const MOST_PRIORITY: i64 = 1_000_000_000;

fn priority(object: &Value, causes: &mut Vec<Cause>) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let is_known = matches!(name, "system-node-critical" | "system-cluster-critical");
    if name.starts_with("system-") && !is_known {
        let detail = format!(
            "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system \
             priority class"
        );
        causes.push(Cause::forbidden("metadata.name", detail));
    }
    if object["value"].as_i64().unwrap_or(0) > MOST_PRIORITY && !is_known {
        let detail = format!("maximum allowed value of a user defined priority is {MOST_PRIORITY}");
        causes.push(Cause::forbidden("value", detail));
    }
    let policy = &object["preemptionPolicy"];
    if policy.is_string() && !matches!(policy.as_str(), Some("PreemptLowerPriority" | "Never")) {
        let allowed = ["PreemptLowerPriority", "Never"].map(String::from);
        causes.push(Cause::unsupported("preemptionPolicy", policy, &allowed));
    }
}
