//! Printer columns of the built-in kinds.

mod core;
mod other;
mod workload;

use crate::time;
use serde_json::Value;

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

/// Headings by resource; before a name, `*` marks those of `-o wide`, `#` whole numbers, `?` truth values, `@` dates.
fn headings(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => {
            &["Ready", "Status", "Restarts", "Age", "*IP", "*Node", "*Nominated Node", "*Readiness Gates"]
        }
        ("", "configmaps") => &["Data", "Age"],
        ("", "secrets") => &["Type", "Data", "Age"],
        ("", "services") => &["Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "*Selector"],
        ("", "namespaces") => &["Status", "Age"],
        ("", "nodes") => &[
            "Status",
            "Roles",
            "Age",
            "Version",
            "*Internal-IP",
            "*External-IP",
            "*OS-Image",
            "*Kernel-Version",
            "*Container-Runtime",
        ],
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
        ("", "persistentvolumes") => &[
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "*VolumeMode",
        ],
        ("", "resourcequotas") => &["Request", "Limit", "Age"],
        ("", "limitranges") => &["@Created At"],
        ("", "podtemplates") => &["Containers", "Images", "Pod Labels"],
        ("", "componentstatuses") => &["Status", "Message", "Error"],
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
        ("apps", "deployments") => {
            &["Ready", "Up-to-date", "Available", "Age", "*Containers", "*Images", "*Selector"]
        }
        ("apps", "replicasets") | ("", "replicationcontrollers") => {
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
        ("apps", "controllerrevisions") => &["Controller", "Revision", "Age"],
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
        ("networking.k8s.io", "servicecidrs") => &["CIDRs", "Age"],
        ("networking.k8s.io", "ipaddresses") => &["ParentRef"],
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
        ("storage.k8s.io", "storageclasses") => {
            &["Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"]
        }
        ("scheduling.k8s.io", "priorityclasses") => &["#Value", "?Global-Default", "Age", "PreemptionPolicy"],
        ("node.k8s.io", "runtimeclasses") => &["Handler", "Age"],
        ("apiregistration.k8s.io", "apiservices") => &["Service", "Available", "Age"],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &["@Created At"],
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            &["#Validations", "ParamKind", "Age"]
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &["#Mutations", "ParamKind", "Age"],
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings",
        ) => &["PolicyName", "ParamRef", "Age"],
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations" | "mutatingwebhookconfigurations",
        ) => &["#Webhooks", "Age"],
        _ => &["Age"],
    }
}

/// What stands before a heading.
const MARKS: [char; 4] = ['*', '#', '?', '@'];

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
            Some('#') => "integer",
            Some('?') => "boolean",
            Some('@') => "date",
            _ => "string",
        }
        .into();
        if plural == "events" && name == "Name" {
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

/// A label selector as `kubectl` shows it.
fn selector(value: &Value) -> String {
    if value.is_null() {
        return NONE.into();
    }
    match crate::sub::selector_text(value) {
        text if text.is_empty() => NONE.into(),
        text => text,
    }
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

fn list(value: &Value) -> impl DoubleEndedIterator<Item = &Value> + Clone {
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
            "Selector" if plural == "replicationcontrollers" => {
                return or_none(labels(self.at("/spec/selector")));
            }
            "Selector" if plural == "cronjobs" => return NONE.into(),
            "Selector" if plural != "services" => return selector(self.at("/spec/selector")).into(),
            _ => {}
        }
        match (group, plural) {
            ("", "pods") => self.pod(name),
            ("", "services") => self.service(name),
            ("", "nodes") => self.node(name),
            ("apps" | "batch" | "autoscaling", _) | ("", "replicationcontrollers") => {
                self.workload(plural, name)
            }
            ("" | "events.k8s.io", "events") => self.event(name),
            ("networking.k8s.io" | "discovery.k8s.io", _) => self.network(plural, name),
            _ => self.simple(plural, name),
        }
    }

    fn containers(&self, key: &str) -> Value {
        let places = ["/spec/template", "/spec/jobTemplate/spec/template", "/template"];
        let template = places.iter().find_map(|place| self.object.pointer(place)).unwrap_or(&Value::Null);
        let names = list(&template["spec"]["containers"]).map(|c| text(&c[key]));
        names.collect::<Vec<_>>().join(",").into()
    }
}
