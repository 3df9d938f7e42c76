//! Conditions and generations: what any controller may say about any object.

use serde_json::Value;

use super::{Health, number, text};

/// A condition of an object's status.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| text(&condition["type"]) == kind)
}

pub(super) fn is(condition: Option<&Value>, status: &str) -> bool {
    condition.is_some_and(|condition| text(&condition["status"]) == status)
}

/// `Progressing` where the object's controller has not seen the newest specification.
pub(super) fn not_observed(object: &Value) -> Option<Health> {
    let generation = object["metadata"]["generation"].as_i64()?;
    let observed = object["status"]["observedGeneration"].as_i64()?;
    (observed < generation).then(|| {
        let message = format!("its controller has seen generation {observed}, the newest is {generation}");
        Health::progressing("NotObserved", message)
    })
}

/// The standard conditions: `Stalled`, `Reconciling` and `Ready`.
pub(super) fn standard(object: &Value) -> Health {
    let stalled = condition(object, "Stalled");
    if let Some(stalled) = stalled.filter(|_| is(stalled, "True")) {
        let (reason, message) = words(stalled, "Stalled");
        return Health::failed(reason, message);
    }
    let reconciling = condition(object, "Reconciling");
    if let Some(reconciling) = reconciling.filter(|_| is(reconciling, "True")) {
        let (reason, message) = words(reconciling, "Reconciling");
        return Health::progressing(reason, message);
    }
    match condition(object, "Ready") {
        Some(_) => must_be_true(object, "Ready"),
        None => Health::Ready,
    }
}

/// `Ready` as soon as a condition is true for the newest generation.
pub(super) fn must_be_true(object: &Value, kind: &str) -> Health {
    let Some(found) = condition(object, kind) else {
        return Health::progressing(format!("Not{kind}"), format!("it has no condition {kind} yet"));
    };
    let generation = number(&object["metadata"]["generation"]);
    if found["observedGeneration"].as_i64().is_some_and(|observed| observed < generation) {
        return Health::progressing("NotObserved", format!("its condition {kind} is of an older generation"));
    }
    if text(&found["status"]) == "True" {
        return Health::Ready;
    }
    let (reason, message) = words(found, &format!("Not{kind}"));
    Health::progressing(reason, message)
}

/// A resource of AWS Controllers for Kubernetes: `Ready` once AWS has what was asked for; `ACK.Terminal` when it never
/// will (<https://aws-controllers-k8s.github.io/community/docs/user-docs/resource-crud/>).
pub(super) fn aws(object: &Value) -> Health {
    let terminal = condition(object, "ACK.Terminal");
    match terminal.filter(|_| is(terminal, "True")) {
        Some(terminal) => {
            let (reason, message) = words(terminal, "Terminal");
            Health::failed(reason, message)
        }
        None => must_be_true(object, "Ready"),
    }
}

/// A CustomResourceDefinition serves its objects once it is established.
pub(super) fn definition(object: &Value) -> Health {
    let names = condition(object, "NamesAccepted");
    match names.filter(|_| is(names, "False")) {
        Some(refused) => {
            let (reason, message) = words(refused, "NamesNotAccepted");
            Health::failed(reason, message)
        }
        None => must_be_true(object, "Established"),
    }
}

/// A condition's reason and message, with something to say where they are empty.
pub(super) fn words(condition: &Value, otherwise: &str) -> (String, String) {
    let reason = text(&condition["reason"]);
    let reason = if reason.is_empty() { otherwise } else { reason };
    let message = text(&condition["message"]);
    let message = if message.is_empty() {
        format!("its condition {} is {}", text(&condition["type"]), text(&condition["status"]))
    } else {
        message.to_owned()
    };
    (reason.to_owned(), message)
}
