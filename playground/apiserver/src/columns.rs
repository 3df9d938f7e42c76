//! Printer columns of the built-in kinds.

mod pod;

pub use pod::conditions;

use crate::time;
use serde_json::{Value, json};

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `date`, ...
    pub kind: String,
    /// `name` for the object's name.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i64,
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may \
allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation \
idempotence and configuration definition. Cannot be updated. More info: \
https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented \
in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const DATA: &str = "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys \
in the BinaryData field, this is enforced during validation process.";

impl Column {
    /// The object's name.
    pub fn name() -> Column {
        Column { format: "name".into(), description: NAME.into(), ..Column::text("Name") }
    }

    /// The object's age.
    pub fn age() -> Column {
        Column { description: AGE.into(), ..Column::text("Age") }
    }

    fn text(name: &str) -> Column {
        Column {
            name: name.into(),
            kind: "string".into(),
            format: String::new(),
            description: String::new(),
            priority: 0,
        }
    }
}

/// What marks headings: columns of `-o wide`, whole numbers, dates, truth values.
const MARKS: [char; 4] = ['*', '#', '@', '?'];

/// Headings by resource, with their marks.
fn headings(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => {
            &["Ready", "Status", "Restarts", "Age", "*IP", "*Node", "*Nominated Node", "*Readiness Gates"]
        }
        ("", "configmaps") => &["Data", "Age"],
        ("", "secrets") => &["Type", "Data", "Age"],
        ("", "services") => &["Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "*Selector"],
        ("", "namespaces") => &["Status", "Age"],
        ("", "nodes") => &["Status", "Roles", "Age", "Version", "*Internal-IP", "*OS-Image"],
        ("", "serviceaccounts") => &["Age"],
        ("", "endpoints") => &["Endpoints", "Age"],
        ("", "persistentvolumeclaims") => &[
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "*VolumeMode",
        ],
        ("", "persistentvolumes") => {
            &["Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass", "Age"]
        }
        ("" | "events.k8s.io", "events") => &[
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "*Subobject",
            "*Source",
            "Message",
            "*First Seen",
            "*Count",
            "*Name",
        ],
        ("", "resourcequotas") => &["Request", "Limit", "Age"],
        ("", "limitranges") => &["@Created At"],
        ("apps", "deployments") => {
            &["Ready", "Up-to-date", "Available", "Age", "*Containers", "*Images", "*Selector"]
        }
        ("apps", "replicasets") => {
            &["#Desired", "#Current", "#Ready", "Age", "*Containers", "*Images", "*Selector"]
        }
        ("apps", "statefulsets") => &["Ready", "Age", "*Containers", "*Images"],
        ("apps", "daemonsets") => &[
            "#Desired",
            "#Current",
            "#Ready",
            "#Up-to-date",
            "#Available",
            "Node Selector",
            "Age",
            "*Containers",
            "*Images",
            "*Selector",
        ],
        ("batch", "jobs") => {
            &["Status", "Completions", "Duration", "Age", "*Containers", "*Images", "*Selector"]
        }
        ("batch", "cronjobs") => &[
            "Schedule",
            "Timezone",
            "?Suspend",
            "#Active",
            "Last Schedule",
            "Age",
            "*Containers",
            "*Images",
            "*Selector",
        ],
        ("networking.k8s.io", "ingresses") => &["Class", "Hosts", "Address", "Ports", "Age"],
        ("networking.k8s.io", "networkpolicies") => &["Pod-Selector", "Age"],
        ("networking.k8s.io", "ingressclasses") => &["Controller", "Parameters", "Age"],
        ("discovery.k8s.io", "endpointslices") => &["AddressType", "Ports", "Endpoints", "Age"],
        ("coordination.k8s.io", "leases") => &["Holder", "Age"],
        ("policy", "poddisruptionbudgets") => {
            &["Min Available", "Max Unavailable", "#Allowed Disruptions", "Age"]
        }
        ("autoscaling", "horizontalpodautoscalers") => {
            &["Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"]
        }
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => &["@Created At"],
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            &["Role", "Age", "*Users", "*Groups", "*ServiceAccounts"]
        }
        ("storage.k8s.io", "storageclasses") => &["Provisioner", "ReclaimPolicy", "VolumeBindingMode", "Age"],
        ("scheduling.k8s.io", "priorityclasses") => &["#Value", "Global-Default", "Age"],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &["@Created At"],
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            &["#Validations", "ParamKind", "Age"]
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            &["PolicyName", "ParamRef", "Age"]
        }
        _ => &["Age"],
    }
}

/// The columns of a built-in resource.
pub fn of(group: &str, plural: &str) -> Vec<Column> {
    let mut out = if plural == "events" { Vec::new() } else { vec![Column::name()] };
    for heading in headings(group, plural) {
        let name = heading.trim_start_matches(MARKS);
        let mut column = if name == "Age" { Column::age() } else { Column::text(name) };
        if heading.starts_with('*') {
            column.priority = 1;
        }
        column.kind = match heading.chars().next() {
            Some('#') => "integer".into(),
            Some('@') => "date".into(),
            Some('?') => "boolean".into(),
            _ => column.kind,
        };
        if (plural, name) == ("events", "Name") {
            column = Column { priority: 1, ..Column::name() };
        }
        if (group, plural, name) == ("", "configmaps", "Data") {
            column.description = DATA.into();
        }
        out.push(column);
    }
    out
}

/// The cells of an object, one per column.
pub fn cells(group: &str, plural: &str, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let view = View { object, now };
    let mut out = if plural == "events" { Vec::new() } else { vec![object["metadata"]["name"].clone()] };
    for heading in headings(group, plural) {
        out.push(view.cell(group, plural, heading.trim_start_matches(MARKS)));
    }
    out
}

struct View<'a> {
    object: &'a Value,
    now: jiff::Timestamp,
}

const NONE: &str = "<none>";

fn or_none(text: String) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> + Clone {
    value.as_array().into_iter().flatten()
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v)));
    pairs.collect::<Vec<_>>().join(",")
}

impl View<'_> {
    fn at(&self, pointer: &str) -> &Value {
        self.object.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn number(&self, pointer: &str) -> Value {
        self.at(pointer).as_i64().unwrap_or(0).into()
    }

    fn age_of(&self, value: &Value) -> Value {
        value.as_str().map_or_else(|| "<unknown>".into(), |at| time::age(at, self.now)).into()
    }

    fn cell(&self, group: &str, plural: &str, name: &str) -> Value {
        match name {
            "Age" => return self.age_of(self.at("/metadata/creationTimestamp")),
            "Created At" => return self.at("/metadata/creationTimestamp").clone(),
            "Containers" => return self.containers("name"),
            "Images" => return self.containers("image"),
            "Selector" if matches!(group, "apps" | "batch") => {
                return or_none(labels(self.at("/spec/selector/matchLabels")));
            }
            _ => {}
        }
        match (group, plural) {
            ("", "pods") => self.pod(name),
            ("", "services") => self.service(name),
            ("", "nodes") => self.node(name),
            ("apps" | "batch" | "autoscaling", _) => self.workload(plural, name),
            ("" | "events.k8s.io", "events") => self.event(name),
            ("networking.k8s.io" | "discovery.k8s.io", _) => self.network(plural, name),
            _ => self.simple(plural, name),
        }
    }

    fn containers(&self, key: &str) -> Value {
        let template = match self.at("/spec/jobTemplate") {
            Value::Null => "/spec/template/spec/containers",
            _ => "/spec/jobTemplate/spec/template/spec/containers",
        };
        let names = list(self.at(template)).map(|c| text(&c[key]));
        names.collect::<Vec<_>>().join(",").into()
    }

    fn service(&self, name: &str) -> Value {
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

    fn node(&self, name: &str) -> Value {
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
            "Internal-IP" => {
                let ip = list(self.at("/status/addresses")).find(|a| a["type"] == "InternalIP");
                or_none(ip.map(|a| text(&a["address"])).unwrap_or_default())
            }
            _ => text(self.at("/status/nodeInfo/osImage")).into(),
        }
    }

    fn workload(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("deployments" | "statefulsets", "Ready") => {
                format!("{}/{}", self.number("/status/readyReplicas"), self.number("/spec/replicas")).into()
            }
            ("deployments", "Up-to-date") => self.number("/status/updatedReplicas"),
            ("deployments", "Available") => self.number("/status/availableReplicas"),
            ("replicasets", "Desired") => self.number("/spec/replicas"),
            ("replicasets", "Current") => self.number("/status/replicas"),
            ("replicasets", "Ready") => self.number("/status/readyReplicas"),
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
            ("cronjobs", "Timezone") => or_none(text(self.at("/spec/timeZone"))),
            ("jobs", "Duration") => {
                let start = self.at("/status/startTime");
                let end =
                    self.at("/status/completionTime").as_str().and_then(time::parse).unwrap_or(self.now);
                start.as_str().map(|s| time::age(s, end)).unwrap_or_default().into()
            }
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
            (_, "Targets") => self.targets().into(),
            (_, "Replicas") => self.number("/status/currentReplicas"),
            _ => "<unknown>".into(),
        }
    }

    fn event(&self, name: &str) -> Value {
        let first = |pointers: &[&str]| pointers.iter().map(|p| self.at(p)).find(|v| !v.is_null()).map(text);
        match name {
            "Last Seen" => {
                let at =
                    ["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp", "/eventTime"];
                let at = first(&at);
                at.map_or_else(|| "<unknown>".into(), |at| time::age(&at, self.now)).into()
            }
            "Type" => text(self.at("/type")).into(),
            "Reason" => text(self.at("/reason")).into(),
            "Subobject" => text(self.at("/involvedObject/fieldPath")).into(),
            "Source" => {
                let parts = [first(&["/source/component", "/reportingComponent"]), first(&["/source/host"])];
                let parts: Vec<String> = parts.into_iter().flatten().filter(|p| !p.is_empty()).collect();
                parts.join(", ").into()
            }
            "First Seen" => {
                let at = first(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
                at.map_or_else(|| "<unknown>".into(), |at| time::age(&at, self.now)).into()
            }
            "Count" => {
                let count = first(&["/series/count", "/count", "/deprecatedCount"]);
                count.and_then(|c| c.parse::<i64>().ok()).map_or(1, |c| c.max(1)).into()
            }
            "Name" => self.at("/metadata/name").clone(),
            "Object" => {
                let kind =
                    first(&["/involvedObject/kind", "/regarding/kind"]).unwrap_or_default().to_lowercase();
                let name = first(&["/involvedObject/name", "/regarding/name"]).unwrap_or_default();
                format!("{kind}/{name}").into()
            }
            _ => first(&["/message", "/note"]).unwrap_or_default().trim().into(),
        }
    }

    fn network(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("ingresses", "Class") => or_none(text(self.at("/spec/ingressClassName"))),
            ("ingresses", "Hosts") => {
                let hosts = list(self.at("/spec/rules")).map(|r| text(&r["host"])).filter(|h| !h.is_empty());
                let hosts = hosts.collect::<Vec<_>>().join(",");
                if hosts.is_empty() { "*".into() } else { hosts.into() }
            }
            ("ingresses", "Address") => {
                let addresses = list(self.at("/status/loadBalancer/ingress"))
                    .map(|i| if i["ip"].is_null() { text(&i["hostname"]) } else { text(&i["ip"]) });
                addresses.collect::<Vec<_>>().join(",").into()
            }
            ("ingresses", _) => {
                if list(self.at("/spec/tls")).next().is_some() { "80, 443" } else { "80" }.into()
            }
            ("networkpolicies", _) => or_none(labels(self.at("/spec/podSelector/matchLabels"))),
            ("ingressclasses", "Controller") => text(self.at("/spec/controller")).into(),
            ("endpointslices", "AddressType") => self.at("/addressType").clone(),
            ("endpointslices", "Ports") => {
                let ports = list(self.at("/ports")).map(|p| text(&p["port"])).collect::<Vec<_>>().join(",");
                if ports.is_empty() { "<unset>".into() } else { ports.into() }
            }
            ("endpointslices", _) => {
                let all = list(self.at("/endpoints")).flat_map(|e| list(&e["addresses"])).map(text);
                let all: Vec<String> = all.collect();
                if all.is_empty() { "<unset>".into() } else { all.join(",").into() }
            }
            _ => NONE.into(),
        }
    }

    fn simple(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("configmaps", _) => (size(self.at("/data")) + size(self.at("/binaryData"))).into(),
            ("resourcequotas", "Request") => self.quota(false).into(),
            ("resourcequotas", _) => self.quota(true).into(),
            ("persistentvolumeclaims", "Access Modes") if self.at("/spec/volumeName").is_null() => "".into(),
            (_, "VolumeAttributesClass") => match text(self.at("/spec/volumeAttributesClassName")) {
                unset if unset.is_empty() => "<unset>".into(),
                name => name.into(),
            },
            (_, "VolumeMode") => match text(self.at("/spec/volumeMode")) {
                unset if unset.is_empty() => "<unset>".into(),
                mode => mode.into(),
            },
            (_, "Users") => self.subjects("User").into(),
            (_, "Groups") => self.subjects("Group").into(),
            (_, "ServiceAccounts") => self.subjects("ServiceAccount").into(),
            ("secrets", "Type") => text(self.at("/type")).into(),
            ("secrets", _) => size(self.at("/data")).into(),
            ("namespaces", _) => text(self.at("/status/phase")).into(),
            ("endpoints", _) => {
                let all = list(self.at("/subsets")).flat_map(|s| {
                    list(&s["addresses"]).flat_map(move |a| {
                        list(&s["ports"]).map(move |p| format!("{}:{}", text(&a["ip"]), p["port"]))
                    })
                });
                or_none(all.collect::<Vec<_>>().join(","))
            }
            ("persistentvolumeclaims" | "persistentvolumes", "Status") => {
                text(self.at("/status/phase")).into()
            }
            ("persistentvolumeclaims", "Volume") => text(self.at("/spec/volumeName")).into(),
            ("persistentvolumeclaims", "Capacity") => text(self.at("/status/capacity/storage")).into(),
            ("persistentvolumes", "Capacity") => text(self.at("/spec/capacity/storage")).into(),
            (_, "Access Modes") => {
                let modes = list(self.at("/spec/accessModes")).map(|m| match m.as_str() {
                    Some("ReadWriteOnce") => "RWO",
                    Some("ReadOnlyMany") => "ROX",
                    Some("ReadWriteMany") => "RWX",
                    _ => "RWOP",
                });
                modes.collect::<Vec<_>>().join(",").into()
            }
            (_, "StorageClass") => text(self.at("/spec/storageClassName")).into(),
            (_, "Reclaim Policy") => text(self.at("/spec/persistentVolumeReclaimPolicy")).into(),
            (_, "Claim") => match self.at("/spec/claimRef") {
                Value::Null => "".into(),
                claim => format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])).into(),
            },
            ("leases", _) => text(self.at("/spec/holderIdentity")).into(),
            ("poddisruptionbudgets", "Min Available") => self.or_not_available("/spec/minAvailable"),
            ("poddisruptionbudgets", "Max Unavailable") => self.or_not_available("/spec/maxUnavailable"),
            ("poddisruptionbudgets", _) => self.number("/status/disruptionsAllowed"),
            (_, "Role") => {
                format!("{}/{}", text(self.at("/roleRef/kind")), text(self.at("/roleRef/name"))).into()
            }
            ("storageclasses", "Provisioner") => text(self.at("/provisioner")).into(),
            ("storageclasses", "ReclaimPolicy") => text(self.at("/reclaimPolicy")).into(),
            ("storageclasses", _) => text(self.at("/volumeBindingMode")).into(),
            ("priorityclasses", "Value") => self.number("/value"),
            ("priorityclasses", _) => json!(self.at("/globalDefault") == true),
            ("validatingadmissionpolicies", "Validations") => {
                list(self.at("/spec/validations")).count().into()
            }
            ("validatingadmissionpolicybindings", "PolicyName") => text(self.at("/spec/policyName")).into(),
            (_, "ParamKind" | "ParamRef") => "<unset>".into(),
            _ => NONE.into(),
        }
    }

    fn subjects(&self, kind: &str) -> String {
        let those = list(self.at("/subjects")).filter(|s| s["kind"] == kind);
        let names = those.map(|s| match s["namespace"].as_str() {
            Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{}", text(&s["name"])),
            _ => text(&s["name"]),
        });
        names.collect::<Vec<_>>().join(", ").replace(", ", ",")
    }

    /// What a quota counts, `used/hard`: limits or all the rest.
    fn quota(&self, limits: bool) -> String {
        let hard = self.at("/status/hard").as_object().into_iter().flatten();
        let mut parts: Vec<String> = hard
            .filter(|(name, _)| name.starts_with("limits.") == limits)
            .map(|(name, most)| {
                let used = self.at("/status/used").get(name).map_or("0".into(), text);
                format!("{name}: {used}/{}", text(most))
            })
            .collect();
        parts.sort();
        parts.join(", ")
    }

    /// What an autoscaler aims at, `current/target` for each metric.
    fn targets(&self) -> String {
        let current = |index: usize, pointer: &str| {
            let metric = list(self.at("/status/currentMetrics")).nth(index);
            metric.and_then(|m| m.pointer(pointer)).filter(|v| !v.is_null()).map(text)
        };
        let unknown = || "<unknown>".to_owned();
        let mut parts = Vec::new();
        for (index, metric) in list(self.at("/spec/metrics")).enumerate() {
            let kind = text(&metric["type"]);
            let key = match kind.as_str() {
                "ContainerResource" => "containerResource",
                "Resource" => "resource",
                "Pods" => "pods",
                "Object" => "object",
                _ => "external",
            };
            let target = &metric[key]["target"];
            let named = if key.to_lowercase().ends_with("resource") {
                format!("{}: ", text(&metric[key]["name"]))
            } else {
                String::new()
            };
            let now = |of: &str| current(index, &format!("/{key}/current/{of}"));
            parts.push(match (&target["averageUtilization"], &target["averageValue"]) {
                (Value::Number(wanted), _) => {
                    let now = now("averageUtilization").map_or_else(unknown, |v| format!("{v}%"));
                    format!("{named}{now}/{wanted}%")
                }
                (_, Value::String(wanted)) => {
                    let average = if named.is_empty() && key != "pods" { " (avg)" } else { "" };
                    format!("{named}{}/{wanted}{average}", now("averageValue").unwrap_or_else(unknown))
                }
                _ => format!("{named}{}/{}", now("value").unwrap_or_else(unknown), text(&target["value"])),
            });
        }
        // What else there is is only counted.
        let more = parts.len().saturating_sub(2);
        parts.truncate(2);
        match (parts.is_empty(), more) {
            (true, _) => "<none>".into(),
            (_, 0) => parts.join(", "),
            (_, more) => format!("{} + {more} more...", parts.join(", ")),
        }
    }

    fn or_not_available(&self, pointer: &str) -> Value {
        match self.at(pointer) {
            Value::Null => "N/A".into(),
            value => text(value).into(),
        }
    }
}
