//! The row of a pod.
//!
//! Rules: Kubernetes `pkg/printers/internalversion/printers.go`, `printPod`.

use super::{NONE, View, list, or_none, text};
use crate::time;
use serde_json::{Value, json};

/// How far a pod has come.
struct Progress {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<String>,
}

impl Progress {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        let last = status["lastState"]["terminated"]["finishedAt"].as_str().map(str::to_owned);
        self.last_restart = self.last_restart.take().max(last);
    }
}

/// Why a container ended.
fn ending(ended: &Value) -> String {
    let number = |key: &str| ended[key].as_i64().unwrap_or(0);
    match text(&ended["reason"]) {
        unset if unset.is_empty() && number("signal") != 0 => format!("Signal:{}", number("signal")),
        unset if unset.is_empty() => format!("ExitCode:{}", number("exitCode")),
        reason => reason,
    }
}

/// What a row says of its object besides its cells.
pub fn conditions(group: &str, plural: &str, object: &Value) -> Option<Value> {
    if (group, plural) != ("", "pods") {
        return None;
    }
    let (reason, message) = match object["status"]["phase"].as_str() {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

impl View<'_> {
    pub(super) fn pod(&self, name: &str) -> Value {
        match name {
            "Ready" => {
                let sidecars =
                    list(self.at("/spec/initContainers")).filter(|c| c["restartPolicy"] == "Always");
                let all = list(self.at("/spec/containers")).count() + sidecars.count();
                format!("{}/{all}", self.progress().ready).into()
            }
            "Status" => self.progress().reason.into(),
            "Restarts" => {
                let Progress { restarts, last_restart, .. } = self.progress();
                match last_restart {
                    Some(at) if restarts > 0 => {
                        format!("{restarts} ({} ago)", time::age(&at, self.now)).into()
                    }
                    _ => restarts.to_string().into(),
                }
            }
            "IP" => or_none(text(self.at("/status/podIP"))),
            "Node" => or_none(text(self.at("/spec/nodeName"))),
            "Nominated Node" => or_none(text(self.at("/status/nominatedNodeName"))),
            _ => {
                let gates: Vec<&Value> = list(self.at("/spec/readinessGates")).collect();
                let open =
                    gates.iter().filter(|g| self.pod_has(g["conditionType"].as_str().unwrap_or_default()));
                if gates.is_empty() {
                    NONE.into()
                } else {
                    format!("{}/{}", open.count(), gates.len()).into()
                }
            }
        }
    }

    fn pod_has(&self, condition: &str) -> bool {
        list(self.at("/status/conditions")).any(|c| c["type"] == condition && c["status"] == "True")
    }

    /// How far a pod has come, as `printPod` of a real server sums it up.
    fn progress(&self) -> Progress {
        let mut reason = text(self.at("/status/reason"));
        if reason.is_empty() {
            reason = text(self.at("/status/phase"));
        }
        if list(self.at("/status/conditions"))
            .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
        {
            reason = "SchedulingGated".into();
        }
        let mut out = Progress { reason, ready: 0, restarts: 0, last_restart: None };
        let initializing = self.initialization(&mut out);
        if !initializing || self.pod_has("Initialized") {
            self.running(&mut out);
        }
        let terminal = matches!(self.at("/status/phase").as_str(), Some("Succeeded" | "Failed"));
        if self.at("/metadata/deletionTimestamp").is_string() {
            if self.at("/status/reason") == "NodeLost" {
                out.reason = "Unknown".into();
            } else if !terminal {
                out.reason = "Terminating".into();
            }
        }
        out
    }

    /// Whether init containers are still at work, and what they say.
    fn initialization(&self, out: &mut Progress) -> bool {
        let declared: Vec<&Value> = list(self.at("/spec/initContainers")).collect();
        let mut sidecars = Progress { reason: String::new(), ready: 0, restarts: 0, last_restart: None };
        for (index, status) in list(self.at("/status/initContainerStatuses")).enumerate() {
            let is_sidecar =
                declared.iter().any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always");
            out.count_restarts(status);
            if is_sidecar {
                sidecars.count_restarts(status);
            }
            let ended = &status["state"]["terminated"];
            if ended.is_object() && ended["exitCode"].as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if is_sidecar && status["started"] == true {
                out.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waiting = text(&status["state"]["waiting"]["reason"]);
            out.reason = if ended.is_object() {
                format!("Init:{}", ending(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", declared.len())
            };
            return true;
        }
        // Once they are through, only those count that go on running.
        (out.restarts, out.last_restart) = (sidecars.restarts, sidecars.last_restart);
        false
    }

    fn running(&self, out: &mut Progress) {
        let statuses: Vec<&Value> = list(self.at("/status/containerStatuses")).collect();
        let mut any_running = false;
        for status in statuses.into_iter().rev() {
            out.count_restarts(status);
            let (waiting, ended) =
                (text(&status["state"]["waiting"]["reason"]), &status["state"]["terminated"]);
            if !waiting.is_empty() {
                out.reason = waiting;
            } else if ended.is_object() {
                out.reason = ending(ended);
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                any_running = true;
                out.ready += 1;
            }
        }
        if out.reason == "Completed" && any_running {
            out.reason = if self.pod_has("Ready") { "Running".into() } else { "NotReady".into() };
        }
    }
}
