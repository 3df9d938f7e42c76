//! What is read from a source, whatever stands behind it.

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; reading it gives its target.
    Symlink,
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Differs whenever the content does.
    pub id: String,
}

/// Why something in a tree cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct TreeError {
    /// Where.
    pub path: String,
    /// Why, in a sentence.
    pub detail: String,
}

/// A tree of files that does not change.
pub trait Tree {
    /// The entry at a path; `None` if there is none.
    ///
    /// # Errors
    /// Objects that are damaged, and submodules, which are refused.
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError>;

    /// The content of a file, or the target of a link.
    ///
    /// # Errors
    /// As for [`Tree::entry`], and where there is nothing to read.
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError>;

    /// The names right below a directory, sorted.
    ///
    /// # Errors
    /// As for [`Tree::entry`], and where there is no directory.
    fn list(&self, path: &str) -> Result<Vec<String>, TreeError>;
}
