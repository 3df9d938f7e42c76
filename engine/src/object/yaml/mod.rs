//! YAML in and out, with the exact meanings kustomize gives to YAML.
//!
//! Kustomize reads manifests through go-yaml: YAML 1.2 structure with some YAML 1.1 scalars. The rules
//! were verified against `kubectl kustomize` (kustomize 5.5); the table stands as a test beside
//! `scalar.rs`. Text from a repository is hostile: size, depth and the expansion of aliases are bounded.

mod lines;
mod node;
mod reader;
mod scalar;
mod writer;

use serde_json::Value;

pub(crate) use lines::Lines;
pub(crate) use node::{Key, Node, NodeKind};
pub(crate) use reader::read_nodes;
pub use scalar::Dialect;
pub(crate) use writer::{is_written_plain, write_text_at};
pub use writer::{write, write_documents};

/// The longest YAML text that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How deep lists and mappings may nest.
pub const MAX_DEPTH: usize = 100;
/// How many values aliases and merge keys may add to one text.
pub const MAX_ALIASED_VALUES: usize = 100_000;

/// One document of a YAML text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What the document says, as JSON; mappings keep the order of their fields.
    pub value: Value,
    /// The 1-based line of the document's first value.
    pub line: usize,
}

/// Why a YAML text was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct YamlError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: YamlProblem,
}

/// What is wrong with a YAML text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlProblem {
    /// The text does not follow the grammar of YAML.
    #[error("this is not YAML: {0}")]
    Syntax(String),
    /// A mapping says one key twice.
    #[error("the key {key:?} is already set in line {first_line}; keep one of the two")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stands first.
        first_line: usize,
    },
    /// A key is a list, a mapping or null.
    #[error("a key must be a text, a number or a boolean, this is {0}")]
    UnusableKey(&'static str),
    /// `<<` with something else than mappings.
    #[error("a merge key (<<) takes a mapping or a list of mappings")]
    UnusableMerge,
    /// A number that JSON cannot hold.
    #[error("{0} cannot be said in JSON; write a finite number, or quote it to make it a text")]
    NotFinite(String),
    /// A tag such as `!!int` before a value that is not one.
    #[error("{value:?} is not a {tag}; correct the value or remove the tag")]
    TagMismatch {
        /// The tag as written.
        tag: String,
        /// The scalar as written.
        value: String,
    },
    /// An anchor that contains an alias to itself.
    #[error("this alias stands inside of its own anchor, which never ends; write the value out")]
    RecursiveAlias,
    /// Aliases that expand to more than [`MAX_ALIASED_VALUES`].
    #[error("aliases expand to more than {MAX_ALIASED_VALUES} values; write fewer of them")]
    TooManyAliased,
    /// Nesting beyond [`MAX_DEPTH`].
    #[error("values nest deeper than {MAX_DEPTH} levels; make the document flatter")]
    TooDeep,
    /// More than [`MAX_BYTES`].
    #[error("the text has more than {MAX_BYTES} bytes; split the file")]
    TooLong,
}

/// Reads every document of a text. Documents that are empty or hold nothing but comments are skipped.
///
/// `file` names the text in errors.
///
/// # Errors
/// [`YamlError`] with the file, line and column of the first problem.
///
/// ```
/// let documents = engine::object::yaml::read_documents("---\na: 0644\n---\n# empty\n", "a.yaml")?;
/// assert_eq!(documents[0].value, serde_json::json!({"a": 420}));
/// assert_eq!((documents.len(), documents[0].line), (1, 2));
/// # Ok::<(), engine::object::yaml::YamlError>(())
/// ```
pub fn read_documents(text: &str, file: &str) -> Result<Vec<Document>, YamlError> {
    read_documents_as(text, file, Dialect::Manifest)
}

/// Reads every document of a text in one of the two dialects that kustomize knows.
///
/// # Errors
/// As [`read_documents`].
pub fn read_documents_as(text: &str, file: &str, dialect: Dialect) -> Result<Vec<Document>, YamlError> {
    let nodes = read_nodes(text, file, dialect)?;
    Ok(nodes.into_iter().map(|node| Document { line: node.line, value: node.into_value() }).collect())
}
