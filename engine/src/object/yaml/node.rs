//! A YAML value that remembers where it stands.

use serde_json::{Map, Value};

/// A value and the place of its first character.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The text of an unquoted scalar that is no text: kustomize keeps `0x10` in an annotation as written.
    pub raw: Option<Box<str>>,
    /// Whether this is the value of a field in a mapping in braces.
    pub in_flow: bool,
    /// The value itself.
    pub kind: NodeKind,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeKind {
    /// A text, number, boolean or null.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The key's text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Node {
    /// The value without its places.
    pub fn into_value(self) -> Value {
        match self.kind {
            NodeKind::Scalar(value) => value,
            NodeKind::List(items) => Value::Array(items.into_iter().map(Node::into_value).collect()),
            NodeKind::Map(entries) => Value::Object(
                entries.into_iter().map(|(k, v)| (k.text, v.into_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// How many values this is, and how deep it nests.
    pub fn size(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match &self.kind {
            // Long texts count for what they take, or an alias to a megabyte could be repeated freely.
            NodeKind::Scalar(Value::String(text)) => return (1 + text.len() / 64, 0),
            NodeKind::Scalar(_) => return (1, 0),
            NodeKind::List(items) => items.iter().map(Node::size).collect(),
            NodeKind::Map(entries) => entries.iter().map(|(_, v)| v.size()).collect(),
        };
        let deepest = children.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
        (1 + children.iter().map(|(count, _)| count).sum::<usize>(), 1 + deepest)
    }

    /// What kind of value this is, for a message.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Scalar(Value::Null) => "null",
            NodeKind::Scalar(Value::String(_)) => "a text",
            NodeKind::Scalar(Value::Number(_)) => "a number",
            NodeKind::Scalar(_) => "a boolean",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a mapping",
        }
    }
}
