//! From YAML documents to objects.

use serde_json::Value;

use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes};

use super::error::RenderError;
use super::resource::{Resource, Source};

/// Objects with this annotation serve other tools and are not rendered.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";

/// What a document is read as: kustomize treats the texts in metadata differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An object to render: annotations are texts as written.
    Object,
    /// A patch that finds its object itself: a null in annotations deletes.
    Patch,
    /// A patch with a target: labels and annotations are texts as written, even `null`.
    TargetedPatch,
}

/// Reads the objects of a file. Lists are opened.
pub(super) fn read(text: &str, file: &str, role: Role) -> Result<Vec<Resource>, RenderError> {
    let mut queue: Vec<Node> = read_nodes(text, file, Dialect::Manifest)?;
    queue.reverse();
    let mut resources = Vec::new();
    while let Some(node) = queue.pop() {
        let source = Source::new(file, node.line);
        match items_of_list(node) {
            // The items of a list stand where the list stood.
            Ok(items) => queue.extend(items.into_iter().rev()),
            Err(mut node) => {
                let mut empty_fields = Vec::new();
                if role == Role::Object {
                    note_empty_fields(&mut node, Some(&mut Vec::new()), &mut empty_fields);
                }
                let mut value = with_metadata_texts(*node, role).into_value();
                if let Value::Object(map) = &mut value
                    && role == Role::TargetedPatch
                {
                    // The target says which objects are meant; the patch takes their version.
                    map.entry("apiVersion").or_insert_with(|| Value::from("v1"));
                }
                let mut resource = Resource::new(value, source.clone())
                    .map_err(|problem| RenderError::Object { source_at: source, problem })?;
                if role == Role::Object {
                    resource.settle_annotations();
                }
                resource.empty_fields = empty_fields;
                resources.push(resource);
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
fn with_metadata_texts(mut node: Node, role: Role) -> Node {
    let fields: &[&str] =
        if role == Role::TargetedPatch { &["labels", "annotations"] } else { &["annotations"] };
    for name in fields {
        let map = field(&mut node, "metadata").and_then(|metadata| field(metadata, name));
        if let Some(Node { kind: NodeKind::Map(entries), .. }) = map {
            for (_, value) in entries {
                if let NodeKind::Scalar(scalar) = &mut value.kind
                    && let Some(raw) = &value.raw
                    && !(scalar.is_null() && role == Role::Patch)
                {
                    *scalar = Value::String(raw.to_string());
                }
            }
        }
    }
    node
}

/// Notes fields that are written without any value: unlike an explicit null, they do not survive a
/// strategic merge patch. In braces (`{a: }`) kustomize makes them empty texts.
///
/// `path` is none inside of lists, whose items no path names; there the texts are set at once.
fn note_empty_fields(
    node: &mut Node,
    mut path: Option<&mut Vec<String>>,
    found: &mut Vec<(Vec<String>, bool)>,
) {
    match &mut node.kind {
        NodeKind::List(items) => items.iter_mut().for_each(|item| note_empty_fields(item, None, found)),
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                let is_empty = value.raw.as_deref() == Some("");
                if is_empty && value.in_flow && path.is_none() {
                    value.kind = NodeKind::Scalar(Value::String(String::new()));
                }
                if let Some(path) = path.as_deref_mut() {
                    path.push(key.text.clone());
                    if is_empty {
                        found.push((path.clone(), value.in_flow));
                    }
                }
                note_empty_fields(value, path.as_deref_mut(), found);
                if let Some(path) = path.as_deref_mut() {
                    path.pop();
                }
            }
        }
        NodeKind::Scalar(_) => {}
    }
}

fn field<'a>(node: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    match &mut node.kind {
        NodeKind::Map(entries) => {
            entries.iter_mut().find(|(key, _)| key.text == name).map(|(_, value)| value)
        }
        _ => None,
    }
}
