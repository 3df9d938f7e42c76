//! Cells of pods, Services, Nodes and Events.

use super::{NONE, View, labels, list, or_none, text};
use crate::time;
use serde_json::Value;

/// What a pod's containers amount to.
#[derive(Default)]
struct PodSummary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: i64,
    /// When the newest restart was.
    last: Option<String>,
}

impl PodSummary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        let at = status["lastState"]["terminated"]["finishedAt"].as_str().map(str::to_owned);
        self.last = std::mem::take(&mut self.last).max(at);
    }
}

/// How a container ended, in a word.
fn ending(ended: &Value) -> String {
    let reason = text(&ended["reason"]);
    match ended["signal"].as_i64() {
        _ if !reason.is_empty() => reason,
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
    }
}

fn or_unknown(text: String) -> Value {
    if text.is_empty() { "<unknown>".into() } else { text.into() }
}

impl View<'_> {
    pub(super) fn pod(&self, name: &str) -> Value {
        match name {
            "Ready" => {
                let shown = self.pod_summary();
                format!("{}/{}", shown.ready, shown.containers).into()
            }
            "Status" => self.pod_summary().reason.into(),
            "Restarts" => {
                let shown = self.pod_summary();
                match shown.last {
                    Some(at) if shown.restarts > 0 => {
                        format!("{} ({} ago)", shown.restarts, time::age(&at, self.now)).into()
                    }
                    _ => shown.restarts.to_string().into(),
                }
            }
            "IP" => or_none(text(self.at("/status/podIP"))),
            "Node" => or_none(text(self.at("/spec/nodeName"))),
            "Nominated Node" => or_none(text(self.at("/status/nominatedNodeName"))),
            _ => {
                let gates: Vec<&Value> = list(self.at("/spec/readinessGates")).collect();
                let holds = |gate: &&&Value| {
                    list(self.at("/status/conditions"))
                        .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
                };
                match gates.len() {
                    0 => NONE.into(),
                    all => format!("{}/{all}", gates.iter().filter(holds).count()).into(),
                }
            }
        }
    }

    /// Rules: `printPod` of Kubernetes' `pkg/printers/internalversion/printers.go`.
    fn pod_summary(&self) -> PodSummary {
        let inits: Vec<&Value> = list(self.at("/spec/initContainers")).collect();
        let is_sidecar =
            |name: &Value| inits.iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
        let sidecars = inits.iter().filter(|c| c["restartPolicy"] == "Always").count();
        let mut out = PodSummary {
            containers: list(self.at("/spec/containers")).count() + sidecars,
            reason: text(self.at("/status/phase")),
            ..PodSummary::default()
        };
        let why = text(self.at("/status/reason"));
        if !why.is_empty() {
            out.reason = why;
        }
        let condition = |kind: &str| list(self.at("/status/conditions")).find(|c| c["type"] == kind);
        if condition("PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            out.reason = "SchedulingGated".into();
        }
        let mut of_sidecars = PodSummary::default();
        let mut initializing = false;
        for (index, status) in list(self.at("/status/initContainerStatuses")).enumerate() {
            out.count_restarts(status);
            let sidecar = is_sidecar(&status["name"]);
            if sidecar {
                of_sidecars.count_restarts(status);
            }
            let (waiting, ended) = (&status["state"]["waiting"], &status["state"]["terminated"]);
            if ended.is_object() && ended["exitCode"].as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                out.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waits = text(&waiting["reason"]);
            out.reason = if ended.is_object() {
                format!("Init:{}", ending(ended))
            } else if !waits.is_empty() && waits != "PodInitializing" {
                format!("Init:{waits}")
            } else {
                format!("Init:{index}/{}", inits.len())
            };
            initializing = true;
            break;
        }
        if !initializing || condition("Initialized").is_some_and(|c| c["status"] == "True") {
            (out.restarts, out.last) = (of_sidecars.restarts, of_sidecars.last);
            let mut running = false;
            for status in list(self.at("/status/containerStatuses")).rev() {
                out.count_restarts(status);
                let (waiting, ended) =
                    (text(&status["state"]["waiting"]["reason"]), &status["state"]["terminated"]);
                if !waiting.is_empty() {
                    out.reason = waiting;
                } else if ended.is_object() {
                    out.reason = ending(ended);
                } else if status["ready"] == true && status["state"]["running"].is_object() {
                    running = true;
                    out.ready += 1;
                }
            }
            if out.reason == "Completed" && running {
                let ready = condition("Ready").is_some_and(|c| c["status"] == "True");
                out.reason = if ready { "Running" } else { "NotReady" }.into();
            }
        }
        if self.at("/metadata/deletionTimestamp").is_string() {
            let over = matches!(self.at("/status/phase").as_str(), Some("Succeeded" | "Failed"));
            if self.at("/status/reason") == "NodeLost" {
                out.reason = "Unknown".into();
            } else if !over {
                out.reason = "Terminating".into();
            }
        }
        out
    }

    pub(super) fn service(&self, name: &str) -> Value {
        match name {
            "Type" => self.at("/spec/type").clone(),
            "Cluster-IP" => or_none(text(self.at("/spec/clusterIP"))),
            "External-IP" => {
                let ips = list(self.at("/status/loadBalancer/ingress")).map(|i| text(&i["ip"]));
                let all: Vec<String> = ips.chain(list(self.at("/spec/externalIPs")).map(text)).collect();
                match self.at("/spec/type").as_str() {
                    Some("ExternalName") => text(self.at("/spec/externalName")).into(),
                    Some("LoadBalancer") if all.is_empty() => "<pending>".into(),
                    _ => or_none(all.join(",")),
                }
            }
            "Port(s)" => {
                let ports = list(self.at("/spec/ports")).map(|p| match p["nodePort"].as_i64() {
                    Some(node) => format!("{}:{node}/{}", p["port"], text(&p["protocol"])),
                    None => format!("{}/{}", p["port"], text(&p["protocol"])),
                });
                or_none(ports.collect::<Vec<_>>().join(","))
            }
            _ => or_none(labels(self.at("/spec/selector"))),
        }
    }

    pub(super) fn node(&self, name: &str) -> Value {
        match name {
            "Status" => {
                let ready = list(self.at("/status/conditions")).find(|c| c["type"] == "Ready");
                let mut out = match ready.map(|c| c["status"] == "True") {
                    Some(true) => "Ready".to_owned(),
                    Some(false) => "NotReady".to_owned(),
                    None => "Unknown".to_owned(),
                };
                if self.at("/spec/unschedulable") == true {
                    out.push_str(",SchedulingDisabled");
                }
                out.into()
            }
            "Roles" => {
                let roles = self.at("/metadata/labels").as_object().into_iter().flatten();
                let roles =
                    roles.filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).map(str::to_owned);
                or_none(roles.collect::<Vec<_>>().join(","))
            }
            "Version" => text(self.at("/status/nodeInfo/kubeletVersion")).into(),
            "Internal-IP" => self.node_address("InternalIP"),
            "External-IP" => self.node_address("ExternalIP"),
            "OS-Image" => or_unknown(text(self.at("/status/nodeInfo/osImage"))),
            "Kernel-Version" => or_unknown(text(self.at("/status/nodeInfo/kernelVersion"))),
            _ => or_unknown(text(self.at("/status/nodeInfo/containerRuntimeVersion"))),
        }
    }

    fn node_address(&self, kind: &str) -> Value {
        let found = list(self.at("/status/addresses")).find(|a| a["type"] == kind);
        or_none(found.map(|a| text(&a["address"])).unwrap_or_default())
    }

    pub(super) fn event(&self, name: &str) -> Value {
        let first = |pointers: &[&str]| pointers.iter().map(|p| self.at(p)).find(|v| !v.is_null()).map(text);
        match name {
            "Last Seen" => {
                let at =
                    ["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp", "/eventTime"];
                let at = first(&at).or_else(|| first(&["/metadata/creationTimestamp"]));
                at.map_or_else(|| "<unknown>".into(), |at| time::age(&at, self.now)).into()
            }
            "Type" => text(self.at("/type")).into(),
            "Reason" => text(self.at("/reason")).into(),
            "Object" => {
                let kind =
                    first(&["/involvedObject/kind", "/regarding/kind"]).unwrap_or_default().to_lowercase();
                let name = first(&["/involvedObject/name", "/regarding/name"]).unwrap_or_default();
                format!("{kind}/{name}").into()
            }
            "Subobject" => {
                first(&["/involvedObject/fieldPath", "/regarding/fieldPath"]).unwrap_or_default().into()
            }
            "Source" => {
                let named = |pointers: &[&str]| first(pointers).filter(|text| !text.is_empty());
                let component = ["/source/component", "/deprecatedSource/component"];
                let component =
                    named(&component).or_else(|| named(&["/reportingComponent", "/reportingController"]));
                let host = named(&["/source/host", "/deprecatedSource/host"]);
                component.into_iter().chain(host).collect::<Vec<_>>().join(", ").into()
            }
            "First Seen" => {
                let at = ["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"];
                let at = first(&at).or_else(|| first(&["/metadata/creationTimestamp"]));
                at.map_or_else(|| "<unknown>".into(), |at| time::age(&at, self.now)).into()
            }
            "Count" => {
                let count =
                    first(&["/series/count", "/count", "/deprecatedCount"]).filter(|text| text != "0");
                count.and_then(|text| text.parse::<i64>().ok()).unwrap_or(1).into()
            }
            "Name" => text(self.at("/metadata/name")).into(),
            _ => first(&["/message", "/note"]).unwrap_or_default().trim().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(pod: Value) -> (String, String, String) {
        let view = View { object: &pod, now: time::parse("2026-01-01T01:00:00Z").unwrap() };
        let cell = |name| text(&view.pod(name));
        (cell("Ready"), cell("Status"), cell("Restarts"))
    }

    #[test]
    fn pods_are_summed_up() {
        let running = json!({"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:50:00Z"}}});
        let done = json!({"name": "b", "restartCount": 0, "state": {"terminated": {"reason": "Completed"}}});
        let waits =
            json!({"name": "i", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        for (status, deleted, expected) in [
            (json!({"phase": "Pending"}), false, ("0/2", "Pending", "0")),
            (
                json!({"phase": "Running", "containerStatuses": [running, done], "conditions": ready}),
                false,
                ("1/2", "Running", "2 (10m ago)"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running, done]}),
                true,
                ("1/2", "Terminating", "2 (10m ago)"),
            ),
            (json!({"phase": "Succeeded", "containerStatuses": [done]}), true, ("0/2", "Completed", "0")),
            (
                json!({"phase": "Pending", "initContainerStatuses": [waits]}),
                false,
                ("0/2", "Init:CrashLoopBackOff", "1"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                false,
                ("0/2", "Init:0/1", "0"),
            ),
        ] {
            let mut pod = json!({"spec": spec, "status": status});
            if deleted {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:59:00Z".into();
            }
            let (ready, status, restarts) = row(pod);
            assert_eq!((ready.as_str(), status.as_str(), restarts.as_str()), expected);
        }
    }
}
