//! From YAML documents to objects.

use serde_json::Value;

use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes};

use super::error::RenderError;
use super::resource::{Resource, Source};

/// Objects with this annotation serve other tools and are not rendered.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// Reads the objects of a file. Lists are opened; objects for other tools are left out.
pub(super) fn read(text: &str, file: &str) -> Result<Vec<Resource>, RenderError> {
    let mut queue: Vec<Node> = read_nodes(text, file, Dialect::Manifest)?;
    queue.reverse();
    let mut resources = Vec::new();
    while let Some(node) = queue.pop() {
        let source = Source::new(file, node.line);
        match items_of_list(node) {
            // The items of a list stand where the list stood.
            Ok(items) => queue.extend(items.into_iter().rev()),
            Err(node) => {
                let value = with_annotation_texts(*node).into_value();
                let resource = Resource::new(value, source.clone())
                    .map_err(|problem| RenderError::Object { source_at: source, problem })?;
                if !is_for_other_tools(&resource.value) {
                    resources.push(resource);
                }
            }
        }
    }
    Ok(resources)
}

/// Whether an object is marked as not meant for the cluster.
pub(super) fn is_for_other_tools(value: &Value) -> bool {
    value["metadata"]["annotations"].get(LOCAL_CONFIG).is_some_and(|mark| mark != "false")
}

/// The items of a `List`, `ConfigMapList` and so on; the node itself if it is none.
fn items_of_list(node: Node) -> Result<Vec<Node>, Box<Node>> {
    let is_list = match &node.kind {
        NodeKind::Map(entries) => {
            let kind = entries.iter().find(|(key, _)| key.text == "kind");
            let named = kind.is_some_and(
                |(_, v)| matches!(&v.kind, NodeKind::Scalar(Value::String(k)) if k.ends_with("List")),
            );
            let items = entries.iter().find(|(key, _)| key.text == "items");
            named
                && items
                    .is_some_and(|(_, v)| matches!(v.kind, NodeKind::List(_) | NodeKind::Scalar(Value::Null)))
        }
        _ => false,
    };
    match node.kind {
        NodeKind::Map(entries) if is_list => Ok(entries
            .into_iter()
            .filter(|(key, _)| key.text == "items")
            .flat_map(|(_, items)| match items.kind {
                NodeKind::List(items) => items,
                _ => Vec::new(),
            })
            .filter(|item| item.kind != NodeKind::Scalar(Value::Null))
            .collect()),
        kind => Err(Box::new(Node { kind, ..node })),
    }
}

/// Annotations are texts as written: `0x10` without quotes is the text `0x10`, not 16.
fn with_annotation_texts(mut node: Node) -> Node {
    if let Some(Node { kind: NodeKind::Map(annotations), .. }) =
        field(&mut node, "metadata").and_then(|metadata| field(metadata, "annotations"))
    {
        for (_, value) in annotations {
            if let NodeKind::Scalar(scalar) = &mut value.kind
                && let Some(raw) = &value.raw
            {
                *scalar = Value::String(raw.to_string());
            }
        }
    }
    node
}

fn field<'a>(node: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    match &mut node.kind {
        NodeKind::Map(entries) => {
            entries.iter_mut().find(|(key, _)| key.text == name).map(|(_, value)| value)
        }
        _ => None,
    }
}
