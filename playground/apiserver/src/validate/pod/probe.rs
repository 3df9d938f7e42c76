//! Rules for probes and lifecycle hooks.

use super::{each, not_negative, one_of, port_or_name};
use crate::status::Cause;
use serde_json::{Value, json};

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

/// What a probe or hook does: one of a few.
fn handler(value: &Value, path: &str, hooks: bool, causes: &mut Vec<Cause>) {
    let set: Vec<&str> = HANDLERS.into_iter().filter(|k| value[*k].is_object()).collect();
    let sleeps = hooks && value["sleep"].is_object();
    if set.is_empty() && !sleeps {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for more in set.iter().skip(1) {
        causes.push(Cause::forbidden(format!("{path}.{more}"), "may not specify more than 1 handler type"));
    }
    let Some(first) = set.first() else { return };
    let (action, at) = (&value[*first], format!("{path}.{first}"));
    match *first {
        "exec" if each(action, "command").next().is_none() => {
            causes.push(Cause::required(format!("{at}.command"), ""));
        }
        "exec" => {}
        "httpGet" => {
            if action["path"].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("{at}.path"), ""));
            }
            port_or_name(&action["port"], format!("{at}.port"), causes);
            one_of(&action["scheme"], &format!("{at}.scheme"), &["HTTP", "HTTPS"], causes);
        }
        "grpc" => port_or_name(&json!(action["port"].as_i64().unwrap_or(0)), format!("{at}.port"), causes),
        _ => port_or_name(&action["port"], format!("{at}.port"), causes),
    }
}

/// A probe of a container.
pub fn check(probe: &Value, kind: &str, path: &str, causes: &mut Vec<Cause>) {
    if probe.is_null() {
        return;
    }
    handler(probe, path, false, causes);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(&probe[key], &format!("{path}.{key}"), causes);
    }
    if kind != "readinessProbe" && probe["successThreshold"].as_i64().unwrap_or(1) != 1 {
        let at = format!("{path}.successThreshold");
        causes.push(Cause::invalid(at, &probe["successThreshold"], "must be 1"));
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    let at = format!("{path}.terminationGracePeriodSeconds");
    if kind == "readinessProbe" && !grace.is_null() {
        causes.push(Cause::invalid(at, grace, "must not be set for readinessProbes"));
    } else if grace.as_i64().is_some_and(|s| s <= 0) {
        causes.push(Cause::invalid(at, grace, "must be greater than 0"));
    }
}

/// What happens as a container starts and stops.
pub fn lifecycle(lifecycle: &Value, path: &str, causes: &mut Vec<Cause>) {
    for hook in ["postStart", "preStop"] {
        if !lifecycle[hook].is_null() {
            handler(&lifecycle[hook], &format!("{path}.{hook}"), true, causes);
        }
    }
}
