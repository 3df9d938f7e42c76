//! Cells of workloads and autoscalers.

use super::{NONE, View, labels, list, or_none, text};
use crate::time;
use serde_json::Value;

/// Targets beyond these are only counted.
const SHOWN: usize = 2;

/// `deployment.apps/web`.
fn owner_name(owner: &Value) -> String {
    let version = text(&owner["apiVersion"]);
    let group = version.rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", text(&owner["kind"]).to_lowercase(), text(&owner["name"]))
}

impl View<'_> {
    pub(super) fn workload(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("deployments" | "statefulsets", "Ready") => {
                format!("{}/{}", self.number("/status/readyReplicas"), self.number("/spec/replicas")).into()
            }
            ("deployments", "Up-to-date") => self.number("/status/updatedReplicas"),
            ("deployments", "Available") => self.number("/status/availableReplicas"),
            ("replicasets" | "replicationcontrollers", "Desired") => self.number("/spec/replicas"),
            ("replicasets" | "replicationcontrollers", "Current") => self.number("/status/replicas"),
            ("replicasets" | "replicationcontrollers", "Ready") => self.number("/status/readyReplicas"),
            ("daemonsets", "Desired") => self.number("/status/desiredNumberScheduled"),
            ("daemonsets", "Current") => self.number("/status/currentNumberScheduled"),
            ("daemonsets", "Ready") => self.number("/status/numberReady"),
            ("daemonsets", "Up-to-date") => self.number("/status/updatedNumberScheduled"),
            ("daemonsets", "Available") => self.number("/status/numberAvailable"),
            ("daemonsets", "Node Selector") => or_none(labels(self.at("/spec/template/spec/nodeSelector"))),
            ("jobs", "Status") => {
                let holds = |kind: &str| {
                    list(self.at("/status/conditions")).any(|c| c["type"] == kind && c["status"] == "True")
                };
                ["Complete", "Failed", "Suspended"].into_iter().find(|k| holds(k)).unwrap_or("Running").into()
            }
            ("jobs", "Completions") => {
                let wanted = self.at("/spec/completions").as_i64().unwrap_or(1);
                format!("{}/{wanted}", self.number("/status/succeeded")).into()
            }
            ("jobs", "Duration") => {
                let start = self.at("/status/startTime");
                let end =
                    self.at("/status/completionTime").as_str().and_then(time::parse).unwrap_or(self.now);
                start.as_str().map(|s| time::age(s, end)).unwrap_or_default().into()
            }
            ("cronjobs", "Timezone") => or_none(text(self.at("/spec/timeZone"))),
            ("cronjobs", "Schedule") => text(self.at("/spec/schedule")).into(),
            ("cronjobs", "Suspend") => if self.at("/spec/suspend") == true { "True" } else { "False" }.into(),
            ("cronjobs", "Active") => list(self.at("/status/active")).count().into(),
            ("cronjobs", "Last Schedule") => match self.at("/status/lastScheduleTime") {
                Value::String(at) => time::age(at, self.now).into(),
                _ => NONE.into(),
            },
            (_, "Reference") => format!(
                "{}/{}",
                text(self.at("/spec/scaleTargetRef/kind")),
                text(self.at("/spec/scaleTargetRef/name"))
            )
            .into(),
            (_, "MinPods") => or_none(text(self.at("/spec/minReplicas"))),
            (_, "MaxPods") => self.number("/spec/maxReplicas"),
            (_, "Replicas") => self.number("/status/currentReplicas"),
            (_, "Targets") => self.targets().into(),
            ("controllerrevisions", "Controller") => {
                let owner = list(self.at("/metadata/ownerReferences")).find(|o| o["controller"] == true);
                or_none(owner.map(owner_name).unwrap_or_default())
            }
            ("controllerrevisions", _) => text(self.at("/revision")).into(),
            _ => "<unknown>".into(),
        }
    }

    /// What an autoscaler sees and wants.
    ///
    /// Rules: `formatHPAMetrics` of Kubernetes' `pkg/printers/internalversion/printers.go`.
    fn targets(&self) -> String {
        if let Some(wanted) = self.at("/spec/targetCPUUtilizationPercentage").as_i64() {
            let current = self.at("/status/currentCPUUtilizationPercentage").as_i64();
            let current = current.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}%"));
            return format!("cpu: {current}/{wanted}%");
        }
        let current = self.at("/status/currentMetrics");
        let all: Vec<String> =
            list(self.at("/spec/metrics")).enumerate().map(|(at, spec)| target(spec, &current[at])).collect();
        match all.len() {
            0 => NONE.into(),
            count if count > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), count - SHOWN),
            _ => all.join(", "),
        }
    }
}

fn target(spec: &Value, status: &Value) -> String {
    let unknown = || "<unknown>".to_owned();
    let shown = |value: &Value| if value.is_null() { unknown() } else { text(value) };
    let kind = text(&spec["type"]);
    let field = match kind.as_str() {
        "ContainerResource" => "containerResource",
        "Resource" => "resource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let (wanted, current) = (&spec[field]["target"], &status[field]["current"]);
    let average = &wanted["averageValue"];
    match field {
        "resource" | "containerResource" => {
            let name = text(&spec[field]["name"]);
            if !average.is_null() {
                return format!("{name}: {}/{}", shown(&current["averageValue"]), text(average));
            }
            let percent = |value: &Value| value.as_i64().map(|n| format!("{n}%"));
            let now = percent(&current["averageUtilization"]).unwrap_or_else(unknown);
            let wanted = percent(&wanted["averageUtilization"]).unwrap_or_else(|| "<auto>".into());
            format!("{name}: {now}/{wanted}")
        }
        "pods" => format!("{}/{}", shown(&current["averageValue"]), text(average)),
        _ if !average.is_null() => format!("{}/{} (avg)", shown(&current["averageValue"]), text(average)),
        _ => format!("{}/{}", shown(&current["value"]), text(&wanted["value"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_told_with_what_is_known() {
        let cpu =
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}});
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}});
        let seen = json!([{"type": "Resource", "resource": {"current": {"averageUtilization": 7}}}]);
        for (metrics, current, expected) in [
            (json!([]), json!(null), "<none>"),
            (json!([cpu]), json!(null), "cpu: <unknown>/50%"),
            (json!([cpu, pods]), seen, "cpu: 7%/50%, <unknown>/10"),
            (json!([cpu, cpu, pods]), json!(null), "cpu: <unknown>/50%, cpu: <unknown>/50% + 1 more..."),
        ] {
            let object = json!({"spec": {"metrics": metrics}, "status": {"currentMetrics": current}});
            let view = View { object: &object, now: jiff::Timestamp::UNIX_EPOCH };
            assert_eq!(view.targets(), expected);
        }
    }
}
