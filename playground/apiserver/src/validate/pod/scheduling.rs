//! Rules for where pods may run: tolerations, affinities, spreading.

use super::{each, one_of};
use crate::status::Cause;
use crate::validate::meta;
use serde_json::{Value, json};

/// All of them.
pub fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    tolerations(spec, path, causes);
    affinity(&spec["affinity"], &format!("{path}.affinity"), causes);
    spreading(spec, path, causes);
}

fn tolerations(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, toleration) in each(spec, "tolerations") {
        let at = format!("{path}.tolerations[{index}]");
        let text = |key: &str| toleration[key].as_str().unwrap_or_default();
        let (key, operator, value) = (text("key"), text("operator"), text("value"));
        if !key.is_empty() {
            let at = format!("{at}.key");
            causes.extend(meta::qualified(key).into_iter().map(|m| Cause::invalid(&at, &json!(key), m)));
        }
        let seconds = !toleration["tolerationSeconds"].is_null();
        if seconds && text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.push(Cause::invalid(format!("{at}.effect"), &json!(text("effect")), detail));
        }
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.push(Cause::invalid(format!("{at}.operator"), &json!(operator), detail));
        }
        match operator {
            "" | "Equal" => {
                let at = format!("{at}.operator");
                let complaints = meta::label_value(value);
                causes.extend(complaints.into_iter().map(|m| Cause::invalid(&at, &json!(value), m)));
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                causes.push(Cause::invalid(format!("{at}.operator"), &json!(value), detail));
            }
            "Exists" => {}
            _ => {
                let allowed = ["Equal", "Exists"].map(String::from);
                causes.push(Cause::unsupported(format!("{at}.operator"), &json!(operator), &allowed));
            }
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        one_of(&toleration["effect"], &format!("{at}.effect"), &effects, causes);
    }
}

fn affinity(affinity: &Value, path: &str, causes: &mut Vec<Cause>) {
    let node = &affinity["nodeAffinity"];
    let required = &node["requiredDuringSchedulingIgnoredDuringExecution"];
    if !required.is_null() {
        let at =
            format!("{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required["nodeSelectorTerms"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required(&at, "must have at least one node selector term"));
        }
        for (index, term) in each(required, "nodeSelectorTerms") {
            term_of_node(term, &format!("{at}[{index}]"), causes);
        }
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, choice) in each(node, preferred) {
        let at = format!("{path}.nodeAffinity.{preferred}[{index}]");
        weight(choice, &at, causes);
        term_of_node(&choice["preference"], &format!("{at}.preference"), causes);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in each(&affinity[kind], required) {
            term_of_pod(term, &format!("{path}.{kind}.{required}[{index}]"), causes);
        }
        for (index, choice) in each(&affinity[kind], preferred) {
            let at = format!("{path}.{kind}.{preferred}[{index}]");
            weight(choice, &at, causes);
            term_of_pod(&choice["podAffinityTerm"], &format!("{at}.podAffinityTerm"), causes);
        }
    }
}

fn weight(choice: &Value, path: &str, causes: &mut Vec<Cause>) {
    let weight = choice["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.push(Cause::invalid(format!("{path}.weight"), &json!(weight), "must be in the range 1-100"));
    }
}

fn term_of_node(term: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, expression) in each(term, "matchExpressions") {
        let at = format!("{path}.matchExpressions[{index}]");
        let count = expression["values"].as_array().map_or(0, Vec::len);
        let values = format!("{at}.values");
        match expression["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if count == 0 => {
                causes.push(Cause::required(values, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(values, detail));
            }
            "Gt" | "Lt" if count != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                causes.push(Cause::required(values, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => {
                let operator = &expression["operator"];
                let detail = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{at}.operator"), operator, detail));
            }
        }
        let key = expression["key"].as_str().unwrap_or_default();
        let at = format!("{at}.key");
        causes.extend(meta::qualified(key).into_iter().map(|m| Cause::invalid(&at, &json!(key), m)));
    }
}

fn term_of_pod(term: &Value, path: &str, causes: &mut Vec<Cause>) {
    meta::selector(&term["labelSelector"], &format!("{path}.labelSelector"), causes);
    topology(term["topologyKey"].as_str().unwrap_or_default(), format!("{path}.topologyKey"), true, causes);
}

fn topology(key: &str, path: String, both: bool, causes: &mut Vec<Cause>) {
    if key.is_empty() {
        causes.push(Cause::required(&path, "can not be empty"));
    }
    if both || !key.is_empty() {
        causes.extend(meta::qualified(key).into_iter().map(|m| Cause::invalid(&path, &json!(key), m)));
    }
}

fn spreading(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut seen: Vec<(&Value, &Value)> = Vec::new();
    for (index, rule) in each(spec, "topologySpreadConstraints") {
        let at = format!("{path}.topologySpreadConstraints[{index}]");
        let skew = rule["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            causes.push(Cause::invalid(format!("{at}.maxSkew"), &json!(skew), "must be greater than zero"));
        }
        topology(
            rule["topologyKey"].as_str().unwrap_or_default(),
            format!("{at}.topologyKey"),
            false,
            causes,
        );
        let allowed = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(&rule["whenUnsatisfiable"], &format!("{at}.whenUnsatisfiable"), &allowed, causes);
        let pair = (&rule["topologyKey"], &rule["whenUnsatisfiable"]);
        if let Some(first) = seen.iter().position(|other| *other == pair) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let shown = format!("{{{}, {}}}", text(pair.0), text(pair.1));
            let at = format!("{path}.topologySpreadConstraints[{first}].{{topologyKey, whenUnsatisfiable}}");
            causes.push(Cause::duplicate(at, &json!(shown)));
        }
        seen.push(pair);
        meta::selector(&rule["labelSelector"], &format!("{at}.labelSelector"), causes);
    }
}
