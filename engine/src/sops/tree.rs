//! Walking a document: which values are encrypted, what they say, and the MAC over all of them.

use serde_json::Value;
use sha2::{Digest as _, Sha512};

use super::KeyRing;
use super::cipher::{self, DataKey, Kind, Plain};
use super::error::SopsProblem;
use super::metadata::Metadata;
use crate::object::Confidential;
use crate::object::yaml::{Node, NodeKind};

/// What a MAC over encrypted values only begins with, so that it differs from one over all values: the
/// SHA-256 of `sops`.
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b,
    0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// Stands for an item that is a comment until it is taken out: no value can say this.
const COMMENT: &str = "\0comment";

/// A value that was encrypted, and where it stands.
pub(super) struct Found {
    pub line: usize,
    pub column: usize,
    /// How deep the mapping or list that holds it is indented.
    pub indent: usize,
    pub content: Content,
}

/// What an encrypted value turned out to be.
pub(super) enum Content {
    Value(Value),
    /// A number with a point, as opposed to its value.
    Float(f64),
    /// A point in time.
    Time(String),
    /// A comment in a list: sops encrypts it as an item.
    Comment(String),
}

/// Opens the values of one file, in their order.
pub(super) struct Opening {
    metadata: Metadata,
    key: DataKey,
    mac: Sha512,
    path: Vec<String>,
    /// How deep the field at the path is indented.
    indent: usize,
    /// The values that were encrypted.
    pub found: Vec<Found>,
    /// What must not be repeated in messages.
    pub values: Confidential,
}

impl Opening {
    /// Opens a file's data key.
    pub fn new(metadata: Metadata, keys: Option<&dyn KeyRing>) -> Result<Self, SopsProblem> {
        let key = metadata.data_key(keys)?;
        let mut mac = Sha512::new();
        if metadata.mac_only_encrypted {
            mac.update(ONLY_ENCRYPTED);
        }
        Ok(Self {
            metadata,
            key,
            mac,
            path: Vec::new(),
            indent: 0,
            found: Vec::new(),
            values: Confidential::default(),
        })
    }

    /// Whether another document belongs to the same file.
    pub fn is_of(&self, metadata: &Metadata) -> bool {
        self.metadata.mac == metadata.mac
    }

    /// Decrypts a document in place.
    pub fn document(&mut self, node: &mut Node) -> Result<(), (usize, SopsProblem)> {
        self.path.clear();
        self.node(node, None)
    }

    /// `item` is where the dash of a list's item stands, for the item's own value.
    fn node(&mut self, node: &mut Node, item: Option<usize>) -> Result<(), (usize, SopsProblem)> {
        let (line, column) = (node.line, node.column);
        match &mut node.kind {
            NodeKind::List(items) => {
                items.iter_mut().try_for_each(|item| self.node(item, Some(item.column.saturating_sub(3))))?;
                items.retain(|item| item.kind != NodeKind::Scalar(Value::String(COMMENT.to_owned())));
                Ok(())
            }
            NodeKind::Map(entries) => entries.iter_mut().try_for_each(|(key, value)| {
                self.path.push(key.text.clone());
                self.indent = item.unwrap_or(key.column.saturating_sub(1));
                let result = self.node(value, None);
                self.path.pop();
                result
            }),
            NodeKind::Scalar(Value::Null) => Ok(()),
            NodeKind::Scalar(value) => {
                let opened = self.scalar(value).map_err(|problem| (line, problem))?;
                if let Some((plain, content)) = opened {
                    node.raw = (!plain.is_string()).then(|| plain.to_string().into());
                    let indent = item.unwrap_or(self.indent);
                    self.found.push(Found { line, column, indent, content });
                    *value = plain;
                }
                Ok(())
            }
        }
    }

    /// What an encrypted value says; none where it is not encrypted.
    fn scalar(&mut self, value: &Value) -> Result<Option<(Value, Content)>, SopsProblem> {
        let text = value.as_str();
        if !self.metadata.is_encrypted(&self.path, text.is_some_and(cipher::is_encrypted)) {
            if !self.metadata.mac_only_encrypted {
                self.mac.update(cipher::mac_bytes(value));
            }
            return Ok(None);
        }
        let text = text.ok_or_else(|| SopsProblem::Plain { path: self.place() })?;
        let plain = self.open(text)?;
        if plain.kind == Kind::Comment {
            let text = String::from_utf8_lossy(&plain.bytes).into_owned();
            return Ok(Some((Value::from(COMMENT), Content::Comment(text))));
        }
        let value = plain.value().ok_or_else(|| SopsProblem::NotText { path: self.place() })?;
        self.mac.update(cipher::mac_bytes(&value));
        if let Value::String(text) = &value {
            self.values.add(text);
        }
        let text = || String::from_utf8_lossy(&plain.bytes).into_owned();
        let content = match plain.kind {
            Kind::Float => text().parse().map_or_else(|_| Content::Value(value.clone()), Content::Float),
            Kind::Time => Content::Time(text()),
            _ => Content::Value(value.clone()),
        };
        Ok(Some((value, content)))
    }

    /// Decrypts a value that stands at the present path.
    fn open(&self, text: &str) -> Result<Plain, SopsProblem> {
        if !text.is_empty() && !cipher::is_encrypted(text) {
            return Err(SopsProblem::Plain { path: self.place() });
        }
        let additional = format!("{}:", self.path.join(":"));
        self.key.decrypt(text, &additional).ok_or_else(|| SopsProblem::Value { path: self.place() })
    }

    /// Opens a value of a file that has no tree, at a path. None where it is not encrypted.
    pub fn flat(&mut self, path: &[&str], text: &str) -> Result<Option<Vec<u8>>, SopsProblem> {
        self.path = path.iter().map(|part| (*part).to_owned()).collect();
        if !self.metadata.is_encrypted(&self.path, cipher::is_encrypted(text)) {
            if !self.metadata.mac_only_encrypted {
                self.mac.update(text.as_bytes());
            }
            return Ok(None);
        }
        let plain = self.open(text)?;
        self.mac.update(&plain.bytes);
        self.values.add(&String::from_utf8_lossy(&plain.bytes));
        Ok(Some(plain.bytes))
    }

    /// What an encrypted comment says; none where no path fits. Comments are not part of the MAC.
    pub fn comment(&self, text: &str, paths: &[Vec<String>]) -> Option<String> {
        paths.iter().find_map(|path| {
            let plain = self.key.decrypt(text, &format!("{}:", path.join(":")))?;
            String::from_utf8(plain.bytes).ok()
        })
    }

    /// Checks that the file is the one that was encrypted.
    pub fn finish(self) -> Result<(Vec<Found>, Confidential), SopsProblem> {
        let Self { metadata, key, mac, found, values, .. } = self;
        let noted = key.decrypt(&metadata.mac, &metadata.last_modified).ok_or(SopsProblem::Changed)?;
        let digest = mac.finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        if noted.bytes != hex.as_bytes() {
            return Err(SopsProblem::Changed);
        }
        Ok((found, values))
    }

    fn place(&self) -> String {
        self.path.join(".")
    }
}
