//! Rules for pods and the kinds that make them.

use super::pod::{self, not_negative, pod_spec};
use super::{batch, meta};
use crate::schema::catalogue::Resource;
use crate::selector::Labels;
use crate::status::Cause;
use serde_json::{Value, json};

/// Rules for pods, controllers of pods and jobs.
pub fn check(resource: &Resource, object: &Value, is_new: bool, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            pod_spec(spec, "spec", &[], causes);
            pod::annotations(&object["metadata"]["annotations"], spec, causes);
            if is_new && spec["ephemeralContainers"].as_array().is_some_and(|l| !l.is_empty()) {
                causes.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
            }
        }
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            controller(resource, spec, causes)
        }
        ("batch", "jobs") => batch::job(object, is_new, causes),
        ("batch", "cronjobs") => batch::cron_job(object, causes),
        _ => {}
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
            // A real server takes the rules for Deployments here.
            let kind = if resource.plural == "replicasets" { "deployment" } else { &resource.singular };
            causes.push(Cause::invalid(
                "spec.selector",
                selector,
                format!("empty selector is invalid for {kind}"),
            ));
        }
    }
    let mut broken = Vec::new();
    meta::selector(selector, "spec.selector", &mut broken);
    let is_selector = broken.is_empty();
    if !is_selector {
        causes.push(Cause::invalid("spec.selector", selector, "invalid label selector"));
        causes.extend(broken);
    }
    let labels = Labels::from_object(selector);
    if is_selector && (selector.is_null() || !labels.matches_labels(template_labels)) {
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
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let kind = if resource.plural == "deployments" { "ReplicaSet" } else { &resource.kind };
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        causes.push(Cause::forbidden("spec.template.spec.activeDeadlineSeconds", detail));
    }
    match resource.plural.as_str() {
        "deployments" => strategy(spec, causes),
        "statefulsets" => stateful_set(spec, causes),
        "daemonsets" => daemon_set(spec, causes),
        _ => {}
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
            no_more_than_all(
                &rolling["maxUnavailable"],
                "spec.strategy.rollingUpdate.maxUnavailable",
                causes,
            );
        }
        Some("Recreate") | None => {}
        Some(other) => {
            let shown = json!({"Type": other, "RollingUpdate": null});
            let allowed = ["Recreate", "RollingUpdate"].map(String::from);
            causes.push(Cause::unsupported("spec.strategy", &shown, &allowed));
            // The word itself is not looked at again.
            causes.push(Cause::settled("spec.strategy.type"));
        }
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

/// A percentage that is not above 100.
pub fn no_more_than_all(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let percent = value.as_str().and_then(|v| v.strip_suffix('%')).and_then(|v| v.parse::<i64>().ok());
    if percent.is_some_and(|p| p > 100) {
        causes.push(Cause::invalid(path, value, "must not be greater than 100%"));
    }
}

fn stateful_set(spec: &Value, causes: &mut Vec<Cause>) {
    let policy = &spec["podManagementPolicy"];
    if policy.is_string() && *policy != "OrderedReady" && *policy != "Parallel" {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        causes.push(Cause::invalid("spec.podManagementPolicy", policy, detail));
    }
    let strategy = &spec["updateStrategy"];
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("RollingUpdate") | None => {
            not_negative(&rolling["partition"], "spec.updateStrategy.rollingUpdate.partition", causes);
        }
        Some("OnDelete") if !rolling.is_null() => {
            let shown =
                json!({"Partition": rolling["partition"], "MaxUnavailable": rolling["maxUnavailable"]});
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            causes.push(Cause::invalid("spec.updateStrategy.rollingUpdate", &shown, detail));
        }
        Some("OnDelete") => {}
        Some(other) => {
            let shown = json!({"Type": other, "RollingUpdate": null});
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            causes.push(Cause::invalid("spec.updateStrategy", &shown, detail));
            causes.push(Cause::settled("spec.updateStrategy.type"));
        }
    }
    not_negative(&spec["ordinals"]["start"], "spec.ordinals.start", causes);
    for key in ["whenDeleted", "whenScaled"] {
        let choice = &spec["persistentVolumeClaimRetentionPolicy"][key];
        if choice.is_string() && *choice != "Retain" && *choice != "Delete" {
            let at = format!("spec.persistentVolumeClaimRetentionPolicy.{key}");
            causes.push(Cause::unsupported(at, choice, &["Retain", "Delete"].map(String::from)));
        }
    }
    for (index, claim) in spec["volumeClaimTemplates"].as_array().into_iter().flatten().enumerate() {
        super::storage::claim_spec(
            &claim["spec"],
            &format!("spec.volumeClaimTemplates[{index}].spec"),
            causes,
        );
    }
}

fn daemon_set(spec: &Value, causes: &mut Vec<Cause>) {
    let strategy = &spec["updateStrategy"];
    let at = "spec.updateStrategy.rollingUpdate";
    match strategy["type"].as_str() {
        Some("RollingUpdate") => {
            let zero = |v: &Value| v.is_null() || *v == 0 || *v == "0%";
            let (unavailable, surge) =
                (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
            if zero(unavailable) && zero(surge) {
                let detail = "cannot be 0 when maxSurge is 0";
                causes.push(Cause::required(format!("{at}.maxUnavailable"), detail));
            } else if !zero(unavailable) && !zero(surge) {
                let detail = "may not be set when maxUnavailable is non-zero";
                causes.push(Cause::invalid(format!("{at}.maxSurge"), surge, detail));
            }
            for (key, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                percent(value, &format!("{at}.{key}"), causes);
                no_more_than_all(value, &format!("{at}.{key}"), causes);
            }
        }
        Some("OnDelete") | None => {}
        Some(other) => {
            let shown = json!({"Type": other, "RollingUpdate": null});
            let allowed = ["RollingUpdate", "OnDelete"].map(String::from);
            causes.push(Cause::unsupported("spec.updateStrategy", &shown, &allowed));
            causes.push(Cause::settled("spec.updateStrategy.type"));
        }
    }
}

/// A number, or a percentage.
pub fn percent(value: &Value, path: &str, causes: &mut Vec<Cause>) {
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
