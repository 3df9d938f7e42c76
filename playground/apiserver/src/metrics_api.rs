//! `metrics.k8s.io/v1beta1`: what pods and nodes use at present. The node measures; the API server hands it on, as
//! metrics-server does behind a real one.

use crate::app::App;
use crate::read::Selection;
use crate::request::{Request, Target};
use crate::respond::{self, Body, Format, Shape};
use crate::schema::Type;
use crate::schema::catalogue::Resource;
use crate::status::{About, Refusal};
use crate::{table, time};
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The group that is served when somebody measures.
pub const GROUP: &str = "metrics.k8s.io";

/// What something uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Amounts {
    /// Billionths of a CPU, on average over the window.
    pub cpu_nanocores: u64,
    /// Memory in bytes at the end of the window.
    pub memory_bytes: u64,
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The end of the window.
    pub at: Timestamp,
    /// The time over which CPU was counted.
    pub window: Duration,
    /// Its containers by name.
    pub containers: Vec<(String, Amounts)>,
}

/// What a node uses.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeUsage {
    /// Its name.
    pub name: String,
    /// The end of the window.
    pub at: Timestamp,
    /// The time over which CPU was counted.
    pub window: Duration,
    /// All of it together.
    pub amounts: Amounts,
}

/// Whoever measures pods. Both methods are asked once per request, and must not block.
pub trait PodMetrics: Send + Sync {
    /// The pods that were measured.
    fn pods(&self) -> Vec<PodUsage>;
    /// The nodes that were measured.
    fn nodes(&self) -> Vec<NodeUsage>;
}

/// The resources of the group.
pub fn resources() -> [Resource; 2] {
    let resource = |plural: &str, kind: &str, namespaced| Resource {
        group: GROUP.into(),
        version: "v1beta1".into(),
        plural: plural.into(),
        singular: String::new(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: vec!["get".into(), "list".into()],
        subresources: Vec::new(),
        ty: Arc::new(Type::Any),
        custom: None,
    };
    [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)]
}

/// GET of one object or of a collection.
pub fn answer(
    app: &App,
    source: &dyn PodMetrics,
    target: &Target,
    request: &Request,
    format: Format,
) -> Result<Response<Body>, Refusal> {
    let resource = &target.resource;
    let mut items = if resource.namespaced { pods(app, source, target) } else { nodes(app, source) };
    if !target.name.is_empty() {
        items.retain(|item| item["metadata"]["name"] == target.name.as_str());
        let item = items
            .pop()
            .ok_or_else(|| Refusal::not_found(About::new(GROUP, &resource.plural, &target.name)))?;
        let shaped = respond::shaped(&item, resource, format, time::now());
        return Ok(respond::value(200, &shaped, format.yaml));
    }
    let selection = Selection::read(target, request)?;
    items.retain(|item| selection.labels.matches(item) && selection.fields.matches(item));
    let body = match format.shape {
        Shape::Table => {
            let include = format.include;
            table::render(resource, items.iter(), json!({}), time::now(), include)
        }
        Shape::Metadata => {
            let items: Vec<Value> = items.iter().map(respond::partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                "items": items})
        }
        Shape::Whole | Shape::Discovery => {
            json!({"kind": resource.list_kind, "apiVersion": resource.group_version(), "metadata": {},
                "items": items})
        }
    };
    Ok(respond::value(200, &body, format.yaml))
}

/// Measurements of pods that exist, with their labels.
fn pods(app: &App, source: &dyn PodMetrics, target: &Target) -> Vec<Value> {
    let store = app.store();
    let mut found: Vec<(String, Value)> = source
        .pods()
        .into_iter()
        .filter(|pod| target.namespace.is_empty() || pod.namespace == target.namespace)
        .filter_map(|pod| {
            let key = format!("{}/{}", pod.namespace, pod.name);
            let object = store.get("pods", &key)?;
            let containers: Vec<Value> = pod
                .containers
                .iter()
                .map(|(name, amounts)| json!({"name": name, "usage": usage(*amounts)}))
                .collect();
            let mut item = head("PodMetrics", &pod.name, &object.value, pod.at, pod.window);
            item["metadata"]["namespace"] = pod.namespace.into();
            item["containers"] = containers.into();
            Some((key, item))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.into_iter().map(|(_, item)| item).collect()
}

fn nodes(app: &App, source: &dyn PodMetrics) -> Vec<Value> {
    let store = app.store();
    let measured: HashMap<String, NodeUsage> =
        source.nodes().into_iter().map(|node| (node.name.clone(), node)).collect();
    store
        .range("nodes", "", "")
        .filter_map(|object| {
            let node = measured.get(object.value["metadata"]["name"].as_str()?)?;
            let mut item = head("NodeMetrics", &node.name, &object.value, node.at, node.window);
            item["usage"] = usage(node.amounts);
            Some(item)
        })
        .collect()
}

fn head(kind: &str, name: &str, object: &Value, at: Timestamp, window: Duration) -> Value {
    let mut item = json!({"kind": kind, "apiVersion": format!("{GROUP}/v1beta1"),
        "metadata": {"name": name, "creationTimestamp": time::seconds(time::now())},
        "timestamp": time::seconds(at), "window": duration(window)});
    if let Some(labels) = object["metadata"].get("labels") {
        item["metadata"]["labels"] = labels.clone();
    }
    item
}

/// Amounts with the units that metrics-server uses.
fn usage(amounts: Amounts) -> Value {
    json!({"cpu": format!("{}n", amounts.cpu_nanocores), "memory": format!("{}Ki", amounts.memory_bytes / 1024)})
}

/// A duration as Go writes one below a minute.
fn duration(window: Duration) -> String {
    let millis = window.as_millis();
    match millis % 1000 {
        0 => format!("{}s", millis / 1000),
        rest => {
            let fraction = format!("{rest:03}");
            format!("{}.{}s", millis / 1000, fraction.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_written_as_go_does() {
        for (millis, text) in
            [(10_000, "10s"), (1_500, "1.5s"), (15_061, "15.061s"), (0, "0s"), (50, "0.05s")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn amounts_have_their_units() {
        let amounts = Amounts { cpu_nanocores: 250_000_000, memory_bytes: 3 * 1024 * 1024 };
        assert_eq!(usage(amounts), json!({"cpu": "250000000n", "memory": "3072Ki"}));
    }
}
