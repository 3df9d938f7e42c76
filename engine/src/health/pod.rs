//! Pods, and what keeps them from running.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conditions::{condition, is, words};
use super::{Health, clipped, number, text};

/// What keeps a pod from running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The reason as a word in CamelCase: `ImagePullBackOff`.
    pub reason: String,
    /// In a sentence, with the container named.
    pub message: String,
    /// Whether waiting will not help.
    #[serde(rename = "final")]
    pub final_: bool,
}

/// A container that was restarted this often and waits again will not run by itself.
const RESTARTS: i64 = 2;

/// What keeps a pod from running, if something is known to. The worst problem wins.
///
/// `Unschedulable` is never final here: a node may come, and only the caller knows how long it has
/// waited. `CreateContainerConfigError` is not final either: the missing Secret may be made by another
/// controller. Both are reported, and fail a release at its deadline.
pub fn pod_problem(pod: &Value) -> Option<Problem> {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let statuses = |field: &str| pod["status"][field].as_array().into_iter().flatten();
    let mut problems: Vec<Problem> = statuses("initContainerStatuses")
        .chain(statuses("containerStatuses"))
        .filter_map(container_problem)
        .collect();
    let scheduled = condition(pod, "PodScheduled");
    if let Some(unscheduled) = scheduled.filter(|_| is(scheduled, "False")) {
        let (reason, message) = words(unscheduled, "Unschedulable");
        problems.push(Problem { reason, message: clipped(message), final_: false });
    }
    let first_final = problems.iter().position(|problem| problem.final_).unwrap_or(0);
    (!problems.is_empty()).then(|| problems.swap_remove(first_final))
}

fn container_problem(status: &Value) -> Option<Problem> {
    let waiting = &status["state"]["waiting"];
    let reason = text(&waiting["reason"]);
    let restarts = number(&status["restartCount"]);
    let final_ = match reason {
        "" | "ContainerCreating" | "PodInitializing" => return None,
        "CrashLoopBackOff" => restarts >= RESTARTS,
        "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => true,
        _ => false,
    };
    let mut message = format!("container {}", text(&status["name"]));
    if reason.contains("Image") {
        message.push_str(&format!(" cannot have its image {}", text(&status["image"])));
    } else if restarts > 0 {
        message.push_str(&format!(" was restarted {restarts} times"));
    } else {
        message.push_str(" cannot start");
    }
    if let Some(end) = ended(&status["lastState"]["terminated"]) {
        message.push_str(&format!(", {end}"));
    } else if !text(&waiting["message"]).is_empty() {
        message.push_str(&format!(": {}", text(&waiting["message"]).trim()));
    }
    Some(Problem { reason: reason.to_owned(), message: clipped(message), final_ })
}

/// How a container ended: `exit code 1: <its last words>`.
fn ended(terminated: &Value) -> Option<String> {
    let code = terminated["exitCode"].as_i64()?;
    let mut out = match (terminated["signal"].as_i64(), text(&terminated["reason"])) {
        (_, "OOMKilled") => "killed for using too much memory".to_owned(),
        (Some(signal), _) if signal != 0 => format!("ended by signal {signal}"),
        _ => format!("exit code {code}"),
    };
    let message = text(&terminated["message"]).trim();
    if !message.is_empty() {
        out.push_str(&format!(": {message}"));
    }
    Some(out)
}

/// A pod that is a member itself.
pub(super) fn pod(object: &Value) -> Health {
    match text(&object["status"]["phase"]) {
        "Succeeded" => return Health::Ready,
        "Failed" => return ended_pod(object),
        _ => {}
    }
    let ready = condition(object, "Ready");
    if is(ready, "True") {
        return Health::Ready;
    }
    match pod_problem(object) {
        Some(Problem { reason, message, final_: true }) => Health::failed(reason, message),
        Some(Problem { reason, message, .. }) => Health::progressing(reason, message),
        None => {
            let (reason, message) =
                ready.map_or(("NotReady".to_owned(), "it is not ready".to_owned()), |c| words(c, "NotReady"));
            Health::progressing(reason, message)
        }
    }
}

fn ended_pod(object: &Value) -> Health {
    let status = &object["status"];
    let containers = ["initContainerStatuses", "containerStatuses"];
    let why = containers
        .iter()
        .flat_map(|field| status[field].as_array().into_iter().flatten())
        .find(|container| number(&container["state"]["terminated"]["exitCode"]) != 0)
        .and_then(|container| {
            let end = ended(&container["state"]["terminated"])?;
            Some(format!("container {}: {end}", text(&container["name"])))
        });
    let reason = match text(&status["reason"]) {
        "" => "PodFailed",
        reason => reason,
    };
    let message = match (text(&status["message"]), why) {
        ("", Some(why)) => why,
        ("", None) => "it failed".to_owned(),
        (message, _) => message.to_owned(),
    };
    Health::failed(reason, message)
}
