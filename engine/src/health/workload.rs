//! The built-in workloads.

use serde_json::Value;

use super::conditions::{condition, is, words};
use super::{Health, number, text};

/// How many pods a workload asks for: one where it does not say.
pub(super) fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// The built-in controllers always say which generation they have seen: without it nothing is known yet.
pub(super) fn unseen(object: &Value) -> Option<Health> {
    object["status"]["observedGeneration"]
        .is_null()
        .then(|| Health::progressing("NotObserved", "its controller has not seen it yet"))
}

/// The failure that a Deployment's controller reports.
pub(super) fn deadline_exceeded(object: &Value) -> Option<Health> {
    let progressing = condition(object, "Progressing")?;
    (text(&progressing["reason"]) == "ProgressDeadlineExceeded").then(|| {
        let (reason, message) = words(progressing, "ProgressDeadlineExceeded");
        Health::failed(reason, message)
    })
}

fn waiting(reason: &str, have: i64, want: i64, what: &str) -> Health {
    Health::progressing(reason, format!("{have} of {want} pods {what}"))
}

pub(super) fn deployment(object: &Value) -> Health {
    if let Some(health) = unseen(object).or_else(|| deadline_exceeded(object)) {
        return health;
    }
    let want = replicas(object);
    let status = |field: &str| number(&object["status"][field]);
    let updated = status("updatedReplicas");
    if updated < want {
        let refused = condition(object, "ReplicaFailure");
        if let Some(refused) = refused.filter(|_| is(refused, "True")) {
            let (reason, message) = words(refused, "ReplicaFailure");
            return Health::progressing(reason, message);
        }
        return waiting("Updating", updated, want, "are of the newest version");
    }
    if status("replicas") > updated {
        let old = status("replicas") - updated;
        return Health::progressing("Terminating", format!("{old} pods of an older version are still there"));
    }
    if status("availableReplicas") < want {
        return waiting("NotAvailable", status("availableReplicas"), want, "are available");
    }
    if status("readyReplicas") < want {
        return waiting("NotReady", status("readyReplicas"), want, "are ready");
    }
    let available = condition(object, "Available");
    match available.filter(|_| want > 0 && !is(available, "True")) {
        Some(unavailable) => {
            let (reason, message) = words(unavailable, "NotAvailable");
            Health::progressing(reason, message)
        }
        None => Health::Ready,
    }
}

pub(super) fn replica_set(object: &Value) -> Health {
    if let Some(health) = unseen(object) {
        return health;
    }
    let want = replicas(object);
    let status = |field: &str| number(&object["status"][field]);
    let refused = condition(object, "ReplicaFailure");
    if let Some(refused) = refused.filter(|_| is(refused, "True")) {
        let (reason, message) = words(refused, "ReplicaFailure");
        return Health::progressing(reason, message);
    }
    if status("availableReplicas") < want {
        return waiting("NotAvailable", status("availableReplicas"), want, "are available");
    }
    if status("replicas") > want {
        return Health::progressing(
            "Terminating",
            format!("{} pods are too many", status("replicas") - want),
        );
    }
    Health::Ready
}

pub(super) fn stateful_set(object: &Value) -> Health {
    // Pods of this strategy are replaced by people, when they choose to.
    if text(&object["spec"]["updateStrategy"]["type"]) == "OnDelete" {
        return Health::Ready;
    }
    if let Some(health) = unseen(object) {
        return health;
    }
    let want = replicas(object);
    let status = |field: &str| number(&object["status"][field]);
    if status("replicas") < want {
        return waiting("Creating", status("replicas"), want, "exist");
    }
    if status("readyReplicas") < want {
        return waiting("NotReady", status("readyReplicas"), want, "are ready");
    }
    if status("replicas") > want {
        return Health::progressing(
            "Terminating",
            format!("{} pods are too many", status("replicas") - want),
        );
    }
    let partition = number(&object["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
    if partition > 0 {
        let want = (want - partition).max(0);
        if status("updatedReplicas") < want {
            return waiting("Updating", status("updatedReplicas"), want, "are of the newest version");
        }
        return Health::Ready;
    }
    let revision = |field: &str| text(&object["status"][field]);
    if want > 0 && revision("currentRevision") != revision("updateRevision") {
        return waiting("Updating", status("updatedReplicas"), want, "are of the newest version");
    }
    Health::Ready
}

pub(super) fn daemon_set(object: &Value) -> Health {
    if let Some(health) = unseen(object) {
        return health;
    }
    let status = |field: &str| number(&object["status"][field]);
    let want = status("desiredNumberScheduled");
    if status("currentNumberScheduled") < want {
        return waiting("Creating", status("currentNumberScheduled"), want, "exist");
    }
    let on_delete = text(&object["spec"]["updateStrategy"]["type"]) == "OnDelete";
    if !on_delete && status("updatedNumberScheduled") < want {
        return waiting("Updating", status("updatedNumberScheduled"), want, "are of the newest version");
    }
    if status("numberAvailable") < want {
        return waiting("NotAvailable", status("numberAvailable"), want, "are available");
    }
    if status("numberReady") < want {
        return waiting("NotReady", status("numberReady"), want, "are ready");
    }
    Health::Ready
}

/// A Job is ready when it is done: what follows it may count on its work.
pub(super) fn job(object: &Value) -> Health {
    let failed = condition(object, "Failed");
    if let Some(failed) = failed.filter(|_| is(failed, "True")) {
        let (reason, message) = words(failed, "JobFailed");
        return Health::failed(reason, message);
    }
    if is(condition(object, "Complete"), "True") {
        return Health::Ready;
    }
    // Somebody asked for it not to run: there is nothing to wait for.
    if object["spec"]["suspend"].as_bool() == Some(true) {
        return Health::Ready;
    }
    let status = |field: &str| number(&object["status"][field]);
    if object["status"]["startTime"].is_null() {
        return Health::progressing("NotStarted", "it has not started");
    }
    let want = object["spec"]["completions"].as_i64().unwrap_or(1);
    let (done, active, lost) = (status("succeeded"), status("active"), status("failed"));
    let message = format!("{done} of {want} runs succeeded, {active} are running, {lost} failed");
    Health::progressing("Running", message)
}
