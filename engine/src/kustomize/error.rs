//! Why a render failed, and what to do about it.

use crate::object::yaml::{YamlError, YamlProblem};
use crate::object::{Confidential, InvalidObject};
use crate::sops::SopsError;

use super::resource::Source;
use super::tree::TreeError;

/// Why a render failed. Every message says where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The path to render does not exist.
    #[error("there is nothing at {path:?} in this revision; correct the path or commit the folder")]
    MissingPath {
        /// The path that was asked for.
        path: String,
    },
    /// A file is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A field that kustomize does not know.
    #[error("{source_at}: the field {field:?} is not known here{}", .suggestion.as_ref().map(|s| format!("; did you mean {s:?}?")).unwrap_or_else(|| "; remove it".to_owned()))]
    UnknownField {
        /// Where it stands.
        source_at: Source,
        /// The field.
        field: String,
        /// The nearest known field.
        suggestion: Option<String>,
    },
    /// An encrypted file cannot be read.
    #[error(transparent)]
    Sops(#[from] SopsError),
    /// A feature that needs the network or runs programs.
    #[error("{source_at}: {what} is refused: {instead}")]
    Refused {
        /// Where it stands.
        source_at: Source,
        /// The feature.
        what: String,
        /// What to do instead.
        instead: String,
    },
    /// A file or folder that a kustomization names does not exist.
    #[error("{source_at}: {path:?} does not exist; correct the path or commit the file")]
    NotFound {
        /// Where it is named.
        source_at: Source,
        /// The path as resolved from the root of the tree.
        path: String,
    },
    /// A setting or a patch that cannot be followed.
    #[error("{source_at}: {problem}")]
    Invalid {
        /// Where it stands.
        source_at: Source,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A document that is no Kubernetes object.
    #[error("{source_at}: {problem}")]
    Object {
        /// Where it stands.
        source_at: Source,
        /// What is missing.
        problem: InvalidObject,
    },
    /// Two objects have one identity.
    #[error("{object} is in {first} and again in {second}; remove one of the two or rename it")]
    Duplicate {
        /// The identity.
        object: String,
        /// The first.
        first: Source,
        /// The second.
        second: Source,
    },
    /// Kustomizations that include each other.
    #[error("these kustomizations include each other: {}; remove one of the links", .chain.join(" → "))]
    Cycle {
        /// The folders from the first to its repetition.
        chain: Vec<String>,
    },
    /// A symlink that leads out of the tree.
    #[error("{path} is a symlink that leads out of the repository; commit the file itself")]
    Escape {
        /// The symlink.
        path: String,
    },
    /// Symlinks that lead to each other.
    #[error("{path} is reached only through more symlinks than are followed; link to the file itself")]
    SymlinkLoop {
        /// Where following ended.
        path: String,
    },
    /// A file that should be text is not UTF-8.
    #[error("{path} is not UTF-8 text; save it as UTF-8")]
    NotText {
        /// The file.
        path: String,
    },
    /// A file, or all files together, are too large.
    #[error("{path} is larger than a render may read; keep big files out of the kustomization")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// More objects or kustomizations than a render may hold.
    #[error("{source_at}: this render has more than {limit} {what}; split the environment")]
    TooMany {
        /// Where the limit was passed.
        source_at: Source,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl RenderError {
    /// The file at fault, where one is known.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Yaml(error) => Some(&error.file),
            Self::Sops(error) => Some(&error.file),
            Self::Tree(error) => Some(&error.path),
            Self::UnknownField { source_at, .. }
            | Self::Refused { source_at, .. }
            | Self::NotFound { source_at, .. }
            | Self::Invalid { source_at, .. }
            | Self::Object { source_at, .. }
            | Self::TooMany { source_at, .. }
            | Self::Duplicate { second: source_at, .. } => Some(&source_at.file),
            Self::Escape { path }
            | Self::SymlinkLoop { path }
            | Self::NotText { path }
            | Self::TooLarge { path } => Some(path),
            Self::MissingPath { .. } | Self::Cycle { .. } => None,
        }
    }

    /// The 1-based line at fault, where one is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Yaml(error) => Some(error.line),
            Self::Sops(error) => Some(error.line),
            Self::UnknownField { source_at, .. }
            | Self::Refused { source_at, .. }
            | Self::NotFound { source_at, .. }
            | Self::Invalid { source_at, .. }
            | Self::Object { source_at, .. }
            | Self::TooMany { source_at, .. }
            | Self::Duplicate { second: source_at, .. } => Some(source_at.line),
            _ => None,
        }
    }

    /// The error without the values that must not be repeated; places stay.
    pub(super) fn mask(mut self, values: &Confidential) -> Self {
        if values.is_empty() {
            return self;
        }
        let text = match &mut self {
            Self::Invalid { problem, .. } => problem,
            Self::Duplicate { object, .. } => object,
            Self::UnknownField { field, .. } => field,
            Self::Refused { what, .. } => what,
            Self::NotFound { path, .. } => path,
            Self::Yaml(error) => match &mut error.problem {
                YamlProblem::Syntax(text)
                | YamlProblem::NotFinite(text)
                | YamlProblem::DuplicateKey { key: text, .. }
                | YamlProblem::TagMismatch { value: text, .. } => text,
                _ => return self,
            },
            _ => return self,
        };
        *text = values.mask(text);
        self
    }

    /// Whether the path to render does not exist at all.
    pub fn is_missing_path(&self) -> bool {
        matches!(self, Self::MissingPath { .. })
    }
}
