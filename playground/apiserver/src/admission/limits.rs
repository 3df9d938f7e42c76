//! LimitRanges: defaults for the resources of containers, and limits of containers, pods and claims.
//!
//! Rules: https://kubernetes.io/docs/concepts/policy/limit-range/ and Kubernetes `plugin/pkg/admission/limitranger`.

use crate::app::App;
use crate::status::{About, Refusal};
use engine::object::Quantity;
use engine::object::quota::{Amounts, amounts, of_pod};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges(app: &App, namespace: &str) -> Vec<Value> {
    let prefix = format!("{namespace}/");
    app.store().range("limitranges", &prefix, "").map(|r| r.value["spec"]["limits"].clone()).collect()
}

/// The limits of one type in a range.
fn of_type<'a>(limits: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    limits.as_array().into_iter().flatten().filter(move |l| l["type"] == kind)
}

/// Gives containers the resources that they do not ask for themselves.
pub fn set_defaults(app: &App, namespace: &str, pod: &mut Value) {
    for limits in ranges(app, namespace) {
        let mut said = Vec::new();
        for (list, title) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                for (key, source, word) in
                    [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
                {
                    let added = fill(container, key, of_type(&limits, "Container").map(|l| &l[source]));
                    if !added.is_empty() {
                        let added: Vec<String> = added.into_iter().collect();
                        said.push(format!("{} {word} for {title} {name}", added.join(", ")));
                    }
                }
            }
        }
        if said.is_empty() {
            continue;
        }
        let Some(Value::Object(metadata)) = pod.get_mut("metadata") else { return };
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
}

fn fill<'a>(container: &mut Value, key: &str, sources: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut added = BTreeSet::new();
    for (name, amount) in sources.filter_map(Value::as_object).flatten() {
        if !container["resources"].is_object() {
            container["resources"] = json!({});
        }
        let slot = &mut container["resources"][key];
        if !slot.is_object() {
            *slot = json!({});
        }
        if slot.get(name).is_none() {
            slot[name] = amount.clone();
            added.insert(name.clone());
        }
    }
    added
}

/// Refuses what is beyond the limits.
pub fn check(app: &App, namespace: &str, plural: &str, object: &Value) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    for limits in ranges(app, namespace) {
        match plural {
            "pods" => {
                let spec = &object["spec"];
                for limit in limits.as_array().into_iter().flatten() {
                    let lists = ["containers", "initContainers"];
                    match limit["type"].as_str() {
                        Some("Container") => {
                            for container in
                                lists.iter().flat_map(|l| spec[*l].as_array().into_iter().flatten())
                            {
                                let resources = &container["resources"];
                                let (requests, most) =
                                    (amounts(&resources["requests"]), amounts(&resources["limits"]));
                                judge(limit, "Container", &requests, &most, &mut problems);
                            }
                        }
                        Some("Pod") => {
                            let (requests, most) = (of_pod(spec, "requests"), of_pod(spec, "limits"));
                            judge(limit, "Pod", &requests, &most, &mut problems);
                        }
                        _ => {}
                    }
                }
            }
            "persistentvolumeclaims" => {
                let requests = amounts(&object["spec"]["resources"]["requests"]);
                for limit in of_type(&limits, "PersistentVolumeClaim") {
                    claim(limit, &requests, &mut problems);
                }
            }
            _ => {}
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let why = if problems.len() == 1 { problems.concat() } else { format!("[{}]", problems.join(", ")) };
    Err(Refusal::forbidden(About::new("", plural, name), &why))
}

fn sorted(value: &Value) -> Vec<(&String, Quantity)> {
    let fields = value.as_object().into_iter().flatten();
    let mut out: Vec<_> = fields.filter_map(|(k, v)| Some((k, Quantity::parse(v.as_str()?)?))).collect();
    out.sort_by_key(|(k, _)| *k);
    out
}

fn judge(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (name, least) in sorted(&limit["min"]) {
        let (request, most) = (requests.get(name), limits.get(name));
        match (request, most) {
            (None, _) => {
                problems.push(format!("minimum {name} usage per {kind} is {least}.  No request is specified"))
            }
            (Some(request), _) if request.nano() < least.nano() => {
                problems.push(format!("minimum {name} usage per {kind} is {least}, but request is {request}"))
            }
            (_, Some(most)) if most.nano() < least.nano() => {
                problems.push(format!("minimum {name} usage per {kind} is {least}, but limit is {most}"));
            }
            _ => {}
        }
    }
    for (name, most) in sorted(&limit["max"]) {
        match (limits.get(name), requests.get(name)) {
            (None, _) => {
                problems.push(format!("maximum {name} usage per {kind} is {most}.  No limit is specified"));
            }
            (Some(limit), _) if limit.nano() > most.nano() => {
                problems.push(format!("maximum {name} usage per {kind} is {most}, but limit is {limit}"));
            }
            (_, Some(request)) if request.nano() > most.nano() => {
                problems.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"))
            }
            _ => {}
        }
    }
    for (name, ratio) in sorted(&limit["maxLimitRequestRatio"]) {
        let (Some(request), Some(most)) = (requests.get(name), limits.get(name)) else {
            let missing = if requests.contains_key(name) { "limit" } else { "request" };
            problems.push(format!(
                "{name} max limit to request ratio per {kind} is {ratio}, but no {missing} is specified or {missing} is 0"
            ));
            continue;
        };
        let given = most.nano() as f64 / request.nano().max(1) as f64;
        if given > ratio.nano() as f64 / 1e9 {
            problems.push(format!(
                "{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {given:.6}"
            ));
        }
    }
}

fn claim(limit: &Value, requests: &Amounts, problems: &mut Vec<String>) {
    let kind = "PersistentVolumeClaim";
    for (name, least) in sorted(&limit["min"]) {
        if let Some(request) = requests.get(name).filter(|r| r.nano() < least.nano()) {
            problems.push(format!("minimum {name} usage per {kind} is {least}, but request is {request}"));
        }
    }
    for (name, most) in sorted(&limit["max"]) {
        if let Some(request) = requests.get(name).filter(|r| r.nano() > most.nano()) {
            problems.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"));
        }
    }
}
