//! Whole files: which format they have, and what they are when decrypted.

use serde_json::Value;

use super::error::{SopsError, SopsProblem};
use super::metadata::Metadata;
use super::rewrite::{MetadataAt, rewrite};
use super::tree::Opening;
use super::{Format, KeyRing, dotenv, ini, may_be_encrypted};
use crate::object::Confidential;
use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes, write_documents};

/// The field with sops's own part.
const METADATA: &str = "sops";
/// The field that holds a file of another format.
const DATA: &str = "data";

/// How many times comments of one file are tried to be opened.
const MAX_ATTEMPTS: usize = 200_000;

/// How many parts that were encrypted apart one file may have: each has a key to open.
const MAX_PARTS: usize = 500;

/// How a decrypted file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Every line keeps its number: for files that errors point into.
    Lines,
    /// As `sops decrypt` writes it: for files that are used as they are.
    AsSops,
}

/// A decrypted file.
pub(crate) struct Opened {
    /// What it says.
    pub content: Vec<u8>,
    /// What must not be repeated in messages.
    pub values: Confidential,
}

/// Decrypts a file; none where it is not encrypted. `format` is what the file's name, or the name that its
/// content is used by, stands for.
pub(crate) fn decrypt(
    content: &[u8],
    format: Format,
    file: &str,
    keys: Option<&dyn KeyRing>,
    style: Style,
) -> Result<Option<Opened>, SopsError> {
    if !may_be_encrypted(content) {
        return Ok(None);
    }
    let Ok(text) = std::str::from_utf8(content) else { return Ok(None) };
    let at = |(line, problem)| SopsError::new(file, line, problem);
    if dotenv::is_encrypted(text) {
        let (content, values) = dotenv::decrypt(text, keys).map_err(at)?;
        return Ok(Some(Opened { content, values }));
    }
    if format != Format::Yaml && ini::is_encrypted(text) {
        let (content, values) = ini::decrypt(text, keys).map_err(at)?;
        return Ok(Some(Opened { content, values }));
    }
    // Text that only quotes an encrypted value need not be YAML at all.
    let Ok(mut documents) = read_nodes(text, file, Dialect::Manifest) else { return Ok(None) };
    if !documents.iter().any(is_encrypted) {
        return Ok(None);
    }
    if format == Format::Binary
        && let [document] = documents.as_slice()
        && let Some(content) = binary(document, file, keys)?
    {
        return Ok(Some(content));
    }
    tree(text, &mut documents, file, keys, style).map(Some)
}

/// The documents of a text with their values left encrypted and sops's own part taken out; none where
/// nothing is encrypted. For a look at everything else where no key is at hand.
pub(crate) fn keep_encrypted(content: &[u8], file: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok().filter(|_| may_be_encrypted(content))?;
    let mut documents = read_nodes(text, file, Dialect::Manifest).ok()?;
    let mut removed = Vec::new();
    for document in documents.iter_mut().filter(|document| is_encrypted(document) && !has_to_stay(document)) {
        removed.extend(take_metadata(document).map(|(at, _)| at));
    }
    if removed.is_empty() {
        return None;
    }
    let expected = plain_values(&documents);
    Some(faithful(rewrite(text, &[], &removed, Style::Lines), &expected, file))
}

/// Takes sops's own part out of a document.
fn take_metadata(document: &mut Node) -> Option<(MetadataAt, Node)> {
    let NodeKind::Map(entries) = &mut document.kind else { return None };
    let at = entries.iter().position(|(key, _)| key.text == METADATA)?;
    let next_line = entries.get(at + 1).map(|(key, _)| key.line);
    let (key, value) = entries.remove(at);
    Some((MetadataAt { line: key.line, column: key.column, next_line, alone: entries.is_empty() }, value))
}

fn plain_values(documents: &[Node]) -> Vec<Value> {
    documents.iter().cloned().map(Node::into_value).filter(|value| !is_empty(value)).collect()
}

/// The rewritten text if it says what is expected: what does not was laid out in a way that sops does not
/// write, and is written anew.
fn faithful(rewritten: Option<String>, expected: &[Value], file: &str) -> Vec<u8> {
    let faithful = rewritten.filter(|rewritten| {
        read_nodes(rewritten, file, Dialect::Manifest).is_ok_and(|nodes| plain_values(&nodes) == expected)
    });
    faithful.unwrap_or_else(|| write_documents(expected)).into_bytes()
}

/// Whether a document was encrypted by sops.
fn is_encrypted(document: &Node) -> bool {
    let metadata = field(document, METADATA);
    metadata.and_then(|metadata| field(metadata, "mac")).is_some_and(
        |mac| matches!(&mac.kind, NodeKind::Scalar(Value::String(mac)) if mac.starts_with("ENC[")),
    )
}

/// What says that another program reads an object encrypted, or that it is decrypted in the cluster.
const LEAVE_ALONE: [&str; 2] = ["holdfast.dev/decrypt", "kustomize.toolkit.fluxcd.io/decrypt"];

/// As [`is_left_alone`], for a document that is read.
fn has_to_stay(document: &Node) -> bool {
    let annotations = field(document, "metadata").and_then(|metadata| field(metadata, "annotations"));
    LEAVE_ALONE.iter().any(|name| {
        annotations.and_then(|annotations| field(annotations, name)).is_some_and(
            |value| matches!(&value.kind, NodeKind::Scalar(Value::String(text)) if text.eq_ignore_ascii_case("disabled")),
        )
    })
}

/// Whether an object says that what is encrypted in it stays so.
pub(crate) fn is_left_alone(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    LEAVE_ALONE
        .iter()
        .any(|name| annotations[name].as_str().is_some_and(|text| text.eq_ignore_ascii_case("disabled")))
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.kind {
        NodeKind::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value),
        _ => None,
    }
}

/// The content of a file of another format; none where the document is none.
fn binary(document: &Node, file: &str, keys: Option<&dyn KeyRing>) -> Result<Option<Opened>, SopsError> {
    let NodeKind::Map(entries) = &document.kind else { return Ok(None) };
    let Some(NodeKind::Scalar(Value::String(data))) = field(document, DATA).map(|node| &node.kind) else {
        return Ok(None);
    };
    let Some(metadata) = field(document, METADATA).filter(|_| entries.len() == 2) else { return Ok(None) };
    let at = |problem| SopsError::new(file, document.line, problem);
    let metadata = Metadata::read(&metadata.clone().into_value()).map_err(at)?;
    let mut opening = Opening::new(metadata, keys).map_err(at)?;
    let content = opening.flat(&[DATA], data).map_err(at)?.unwrap_or_else(|| data.as_bytes().to_vec());
    let (_, values) = opening.finish().map_err(at)?;
    Ok(Some(Opened { content, values }))
}

/// Decrypts the documents of a text.
///
/// Sops gives all documents of a file one MAC. Documents that were encrypted apart and put into one file
/// have one each; others are plain.
fn tree(
    text: &str,
    documents: &mut [Node],
    file: &str,
    keys: Option<&dyn KeyRing>,
    style: Style,
) -> Result<Opened, SopsError> {
    let mut openings: Vec<(usize, Opening)> = Vec::new();
    let mut removed = Vec::new();
    for document in documents.iter_mut().filter(|document| is_encrypted(document)) {
        if has_to_stay(document) {
            continue;
        }
        let line = document.line;
        let Some((at, value)) = take_metadata(document) else { continue };
        let metadata_line = at.line;
        removed.push(at);
        let fail = |problem| SopsError::new(file, metadata_line, problem);
        let metadata = Metadata::read(&value.into_value()).map_err(fail)?;
        let known = openings.iter().position(|(_, opening)| opening.is_of(&metadata));
        let at = match known {
            Some(at) => at,
            None if openings.len() >= MAX_PARTS => {
                let problem =
                    format!("it is made of more than {MAX_PARTS} parts that were encrypted apart; split it");
                return Err(fail(SopsProblem::Unreadable(problem)));
            }
            None => {
                openings.push((line, Opening::new(metadata, keys).map_err(fail)?));
                openings.len() - 1
            }
        };
        openings[at].1.document(document).map_err(|(line, problem)| SopsError::new(file, line, problem))?;
    }
    let comments = text.contains("type:comment]").then(|| comments(text, documents, &openings));
    let mut found = Vec::new();
    let mut values = Confidential::default();
    for (line, opening) in openings {
        let (more, hidden) = opening.finish().map_err(|problem| SopsError::new(file, line, problem))?;
        found.extend(more);
        values.extend(&hidden);
    }
    let expected = plain_values(documents);
    let rewritten = rewrite(comments.as_deref().unwrap_or(text), &found, &removed, style);
    let content = faithful(rewritten, &expected, file);
    Ok(Opened { content, values })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// The text with its comments decrypted: one line stays one line. A comment belongs to one of the mappings
/// around it, and only the right one opens it.
fn comments(text: &str, documents: &[Node], openings: &[(usize, Opening)]) -> String {
    let mut paths = vec![Vec::new()];
    for document in documents {
        mappings(document, &mut Vec::new(), &mut paths);
    }
    paths.sort();
    paths.dedup();
    let mut out = String::with_capacity(text.len());
    // Each attempt costs a decryption: a file of nothing but comments must not cost its square.
    paths.truncate(MAX_ATTEMPTS / text.matches("type:comment]").count().max(1));
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let plain = content.rfind("#ENC[AES256_GCM,data:").and_then(|at| {
            let (before, comment) = (&content[..at], &content[at + 1..]);
            let opened = openings.iter().find_map(|(_, opening)| opening.comment(comment, &paths))?;
            Some(format!("{before}#{}{}", opened.replace('\n', " "), &line[content.len()..]))
        });
        out.push_str(plain.as_deref().unwrap_or(line));
    }
    out
}

/// The paths of the mappings and lists in a document.
fn mappings(node: &Node, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    match &node.kind {
        NodeKind::Scalar(_) => return,
        NodeKind::List(items) => items.iter().for_each(|item| mappings(item, path, paths)),
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                path.push(key.text.clone());
                mappings(value, path, paths);
                path.pop();
            }
        }
    }
    paths.push(path.clone());
}

impl SopsProblem {
    /// Whether keys are missing, so that other keys would help.
    pub fn lacks_keys(&self) -> bool {
        matches!(self, Self::NoKeys { .. } | Self::WrongKeys { .. } | Self::TooFewGroups { .. })
    }
}
