//! Where a render reads from: a tree of files, directories and symlinks.

use std::collections::BTreeMap;

use crate::object::Digest;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file with content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; reading it gives its target.
    Symlink,
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// A name for the content, equal only for equal content: a Git object id, a digest. Without one, a
    /// render reads the content again to see whether it changed.
    pub id: Option<String>,
}

impl Entry {
    /// An entry of a kind, with the id of its content where one is known.
    pub fn new(kind: EntryKind, id: Option<String>) -> Self {
        Self { kind, id }
    }
}

/// A tree could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TreeError {
    /// The path that was asked for.
    pub path: String,
    /// What happened, as a sentence.
    pub problem: String,
}

impl TreeError {
    /// Says what happened at a path.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// A tree of files, such as a Git commit's or a directory's.
///
/// Paths are relative to the tree's root, parted by `/`, without `.`, `..`, empty parts or a leading or
/// trailing `/`; the root is the empty path. The engine resolves symlinks itself: of the parts of a path
/// that it asks for, only the last may be a symlink.
pub trait Tree {
    /// What stands at a path, without following a symlink; none where nothing stands.
    ///
    /// # Errors
    /// The tree cannot be read.
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError>;

    /// The content of a file, or the target of a symlink.
    ///
    /// # Errors
    /// The path is not a file or a symlink, or cannot be read.
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// The path is not a directory, or cannot be read.
    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError>;
}

/// Resolves a path against a directory. None where it leaves the root, is absolute or is not usable.
///
/// ```
/// use engine::kustomize::join;
/// assert_eq!(join("a/b", "../c/./d.yaml"), Some("a/c/d.yaml".to_owned()));
/// assert_eq!(join("a", "../../c"), None);
/// ```
pub fn join(directory: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The directory of a path; the empty path is the root.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// A tree in memory, for tests and previews. Its ids are digests of the content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapTree {
    entries: BTreeMap<String, (EntryKind, Vec<u8>)>,
}

impl MapTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.entries.insert(path.to_owned(), (EntryKind::File, content.into()));
        self
    }

    /// Adds or replaces a symlink.
    #[must_use]
    pub fn with_symlink(mut self, path: &str, target: &str) -> Self {
        self.entries.insert(path.to_owned(), (EntryKind::Symlink, target.as_bytes().to_vec()));
        self
    }

    /// Removes a file or symlink.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.entries.remove(path);
        self
    }

    /// What stands below a directory, by path relative to it.
    fn below<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, EntryKind)> + 'a {
        self.entries.iter().filter_map(move |(name, (kind, _))| {
            let rest =
                if path.is_empty() { name.as_str() } else { name.strip_prefix(path)?.strip_prefix('/')? };
            Some((rest, *kind))
        })
    }
}

impl Tree for MapTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if let Some((kind, content)) = self.entries.get(path) {
            return Ok(Some(Entry::new(*kind, Some(Digest::of_bytes(content).hex()))));
        }
        let is_directory = path.is_empty() || self.below(path).next().is_some();
        Ok(is_directory.then(|| Entry::new(EntryKind::Directory, None)))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let (_, content) =
            self.entries.get(path).ok_or_else(|| TreeError::new(path, "there is no such file"))?;
        Ok(content.clone())
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        let mut names = BTreeMap::new();
        for (rest, kind) in self.below(path) {
            match rest.split_once('/') {
                Some((name, _)) => names.insert(name.to_owned(), EntryKind::Directory),
                None => names.insert(rest.to_owned(), kind),
            };
        }
        Ok(names.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_tree() {
        for (directory, path, joined) in [
            ("", "a", Some("a")),
            ("a/b", "../../c", Some("c")),
            ("a", "./b//c/", Some("a/b/c")),
            ("a", "..", Some("")),
            ("", "..", None),
            ("a", "../../a/b", None),
            ("a", "/b", None),
            ("a", "b\0", None),
        ] {
            assert_eq!(join(directory, path).as_deref(), joined, "{directory} {path}");
        }
    }

    #[test]
    fn a_map_tree_has_directories_where_files_need_them() {
        let tree = MapTree::new().with("a/b/c.yaml", "x").with("a/d.yaml", "y");
        assert_eq!(tree.entry("a/b").unwrap().unwrap().kind, EntryKind::Directory);
        assert_eq!(tree.entry("a/x").unwrap(), None);
        assert_eq!(
            tree.list("a").unwrap(),
            [("b".to_owned(), EntryKind::Directory), ("d.yaml".to_owned(), EntryKind::File)]
        );
    }
}
