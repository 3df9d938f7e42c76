//! Reading a tree, and remembering what was read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::object::Digest;
use crate::sops::KeyRing;

use super::error::RenderError;
use super::tree::{EntryKind, Tree, join, parent};

/// The largest file that a render reads, in bytes.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// How much a render reads altogether, in bytes.
pub const MAX_READ_BYTES: usize = 256 * 1024 * 1024;
/// How many symlinks may lead from a path to its file.
const MAX_SYMLINKS: usize = 40;

/// What a render saw at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Nothing was there.
    Missing,
    /// Something of this kind was there; its content was not looked at.
    Kind(EntryKind),
    /// A file's or symlink's content.
    Content { kind: EntryKind, id: Option<String>, digest: Digest },
    /// A directory's names.
    Listing(Vec<(String, EntryKind)>),
}

/// Everything that a render read: files with their ids, directories' listings, and misses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// The id of the tree's root, by which an equal tree is known at once.
    root: Option<String>,
    seen: BTreeMap<String, Seen>,
    /// The ids of directories, where the tree knows them: below an equal one all is equal.
    directories: BTreeMap<String, String>,
    /// The name of the keys that encrypted files were to be opened with, where there were such files.
    keys: Option<String>,
    /// What sub-results read that were made for this render or for others.
    included: Vec<Arc<ReadSet>>,
}

impl ReadSet {
    /// Whether a render of another tree without keys would read the same, and so give the same.
    ///
    /// Looks only at what was read. A tree that cannot be read counts as changed.
    pub fn unchanged(&self, tree: &dyn Tree) -> bool {
        self.unchanged_with(tree, None)
    }

    /// As [`ReadSet::unchanged`], for a render with these keys: others matter where a file is encrypted.
    pub fn unchanged_with(&self, tree: &dyn Tree, keys: Option<&dyn KeyRing>) -> bool {
        self.keys.as_deref().is_none_or(|known| known == name_of(keys)) && self.same_files(tree)
    }

    fn same_files(&self, tree: &dyn Tree) -> bool {
        let root = tree.entry("").ok().flatten().and_then(|entry| entry.id);
        if root.is_some() && root == self.root {
            return true;
        }
        // A directory sorts before what is in it.
        let mut same: HashSet<&str> = HashSet::new();
        let own = self.seen.iter().all(|(path, seen)| {
            if ancestors(path).any(|directory| same.contains(directory)) {
                return true;
            }
            if let Some(id) = self.directories.get(path) {
                let entry = tree.entry(path).ok().flatten();
                if entry.is_some_and(|entry| entry.id.as_ref() == Some(id)) {
                    same.insert(path);
                    return true;
                }
            }
            Self::is_same(tree, path, seen).unwrap_or(false)
        });
        own && self.included.iter().all(|included| included.same_files(tree))
    }

    /// About how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        self.seen.keys().map(|path| path.len() + 160).sum()
    }

    fn is_same(tree: &dyn Tree, path: &str, seen: &Seen) -> Option<bool> {
        let entry = tree.entry(path).ok()?;
        Some(match (seen, entry) {
            (Seen::Missing, entry) => entry.is_none(),
            (_, None) => false,
            (Seen::Kind(kind), Some(entry)) => entry.kind == *kind,
            (Seen::Content { kind, id, digest }, Some(entry)) => {
                entry.kind == *kind
                    && match (id, &entry.id) {
                        (Some(old), Some(new)) => old == new,
                        _ => Digest::of_bytes(&tree.read(path).ok()?) == *digest,
                    }
            }
            (Seen::Listing(names), Some(entry)) => {
                entry.kind == EntryKind::Directory && sorted(tree.list(path).ok()?) == *names
            }
        })
    }

    /// The paths of the files and symlinks that were read, with their ids where the tree knows them.
    pub fn files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut files = BTreeMap::new();
        self.add_files(&mut files);
        files.into_iter()
    }

    fn add_files<'a>(&'a self, files: &mut BTreeMap<&'a str, Option<&'a str>>) {
        files.extend(self.seen.iter().filter_map(|(path, seen)| match seen {
            Seen::Content { id, .. } => Some((path.as_str(), id.as_deref())),
            _ => None,
        }));
        for included in &self.included {
            included.add_files(files);
        }
    }
}

/// The name of keys, by which a result is known to depend on them.
pub(super) fn name_of(keys: Option<&dyn KeyRing>) -> &str {
    keys.map_or("", KeyRing::id)
}

/// The directories that a path is in, from the innermost.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(directory, _)| directory), |directory| {
        directory.rsplit_once('/').map(|(outer, _)| outer)
    })
}

fn sorted(mut names: Vec<(String, EntryKind)>) -> Vec<(String, EntryKind)> {
    names.sort();
    names
}

/// Reads a tree through its symlinks and remembers what was read.
pub struct Reader<'t> {
    tree: &'t dyn Tree,
    reads: RefCell<ReadSet>,
    /// What was read before the parts began that are read now, from the outermost.
    outer: RefCell<Vec<ReadSet>>,
    bytes: Cell<usize>,
    /// The name of the keys at hand.
    keys: String,
}

impl<'t> Reader<'t> {
    /// Nothing was read yet.
    pub fn new(tree: &'t dyn Tree) -> Self {
        Self::with_keys(tree, None)
    }

    /// Nothing was read yet; encrypted files are to be opened with these keys.
    pub fn with_keys(tree: &'t dyn Tree, keys: Option<&dyn KeyRing>) -> Self {
        Self {
            tree,
            reads: RefCell::default(),
            outer: RefCell::default(),
            bytes: Cell::new(0),
            keys: name_of(keys).to_owned(),
        }
    }

    /// Notes that the result depends on the keys at hand.
    pub(super) fn depend_on_keys(&self) {
        self.reads.borrow_mut().keys = Some(self.keys.clone());
    }

    /// What was read, when the render is done.
    pub fn into_read_set(self) -> ReadSet {
        while !self.outer.borrow().is_empty() {
            self.end_part();
        }
        let root = self.root();
        ReadSet { root, ..self.reads.into_inner() }
    }

    fn root(&self) -> Option<String> {
        self.tree.entry("").ok().flatten().and_then(|entry| entry.id)
    }

    /// The tree that is read.
    pub(super) fn tree(&self) -> &'t dyn Tree {
        self.tree
    }

    /// How much was read so far, in bytes.
    pub(super) fn bytes_read(&self) -> usize {
        self.bytes.get()
    }

    /// Begins to note a part of the reads for itself.
    pub(super) fn begin_part(&self) {
        self.outer.borrow_mut().push(self.reads.take());
    }

    /// Ends the part that began last and says what it read.
    pub(super) fn end_part(&self) -> Arc<ReadSet> {
        let outer = self.outer.borrow_mut().pop().unwrap_or_default();
        let part = Arc::new(ReadSet { root: self.root(), ..self.reads.replace(outer) });
        self.add(&part);
        part
    }

    /// Counts the reads of a sub-result that was made before.
    pub(super) fn include(&self, part: &Arc<ReadSet>, bytes: usize, path: &str) -> Result<(), RenderError> {
        self.count(bytes, path)?;
        self.add(part);
        Ok(())
    }

    fn add(&self, part: &Arc<ReadSet>) {
        let mut reads = self.reads.borrow_mut();
        if part.keys.is_some() {
            reads.keys.clone_from(&part.keys);
        }
        reads.included.push(Arc::clone(part));
    }

    fn count(&self, bytes: usize, path: &str) -> Result<(), RenderError> {
        let total = self.bytes.get().saturating_add(bytes);
        if total > MAX_READ_BYTES {
            return Err(RenderError::TooLarge { path: path.to_owned() });
        }
        self.bytes.set(total);
        Ok(())
    }

    /// Follows symlinks: where a path really leads and what stands there. None where nothing does.
    pub fn resolve(&self, path: &str) -> Result<Option<(String, EntryKind)>, RenderError> {
        let mut path = path.to_owned();
        'restart: for _ in 0..=MAX_SYMLINKS {
            if path.is_empty() {
                return Ok(Some((path, EntryKind::Directory)));
            }
            let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
            for end in ends {
                let step = &path[..end];
                match self.kind(step)? {
                    None => return Ok(None),
                    Some(EntryKind::Symlink) => {
                        let target = String::from_utf8(self.content(step, EntryKind::Symlink)?).ok();
                        let led = target.and_then(|target| join(parent(step), &target));
                        let Some(led) = led else {
                            return Err(RenderError::Escape { path: step.to_owned() });
                        };
                        let rest = &path[end..];
                        path = join(&led, rest.trim_start_matches('/')).unwrap_or_default();
                        continue 'restart;
                    }
                    Some(EntryKind::File) if end < path.len() => return Ok(None),
                    Some(kind) if end == path.len() => return Ok(Some((path, kind))),
                    Some(_) => {}
                }
            }
        }
        Err(RenderError::SymlinkLoop { path })
    }

    /// The text of a file; `path` must come from [`Reader::resolve`].
    pub fn text(&self, path: &str) -> Result<String, RenderError> {
        String::from_utf8(self.bytes(path)?).map_err(|_| RenderError::NotText { path: path.to_owned() })
    }

    /// The content of a file; `path` must come from [`Reader::resolve`].
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, RenderError> {
        self.content(path, EntryKind::File)
    }

    /// The sorted names in a directory; `path` must come from [`Reader::resolve`].
    pub fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, RenderError> {
        if let Some(Seen::Listing(names)) = self.reads.borrow().seen.get(path) {
            return Ok(names.clone());
        }
        let names = sorted(self.tree.list(path)?);
        self.reads.borrow_mut().seen.insert(path.to_owned(), Seen::Listing(names.clone()));
        Ok(names)
    }

    fn kind(&self, path: &str) -> Result<Option<EntryKind>, RenderError> {
        match self.reads.borrow().seen.get(path) {
            Some(Seen::Missing) => return Ok(None),
            Some(Seen::Kind(kind) | Seen::Content { kind, .. }) => return Ok(Some(*kind)),
            Some(Seen::Listing(_)) => return Ok(Some(EntryKind::Directory)),
            None => {}
        }
        let entry = self.tree.entry(path)?;
        let seen = entry.as_ref().map_or(Seen::Missing, |entry| Seen::Kind(entry.kind));
        let mut reads = self.reads.borrow_mut();
        reads.seen.insert(path.to_owned(), seen);
        let kind = entry.as_ref().map(|entry| entry.kind);
        if kind == Some(EntryKind::Directory)
            && let Some(id) = entry.and_then(|entry| entry.id)
        {
            reads.directories.insert(path.to_owned(), id);
        }
        Ok(kind)
    }

    fn content(&self, path: &str, kind: EntryKind) -> Result<Vec<u8>, RenderError> {
        let content = self.tree.read(path)?;
        if content.len() > MAX_FILE_BYTES {
            return Err(RenderError::TooLarge { path: path.to_owned() });
        }
        self.count(content.len(), path)?;
        let id = self.tree.entry(path)?.and_then(|entry| entry.id);
        let digest = Digest::of_bytes(&content);
        self.reads.borrow_mut().seen.insert(path.to_owned(), Seen::Content { kind, id, digest });
        Ok(content)
    }
}
