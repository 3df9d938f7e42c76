//! A directory of this machine as a tree of files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use engine::kustomize::{Entry, EntryKind, Tree, TreeError};
use sha2::{Digest as _, Sha256};

use super::SourceError;

/// The most files and directories that a directory source may have.
const MAX_ENTRIES: usize = 50_000;
/// The most bytes that it may have altogether.
const MAX_TOTAL: u64 = 128 << 20;
/// The largest file whose content is kept; a larger one is an entry that cannot be read.
const MAX_FILE: u64 = 16 << 20;
/// The deepest nesting of directories.
const MAX_DEPTH: usize = 64;

/// The files of a directory at one moment, in memory.
///
/// Symbolic links are entries with a target, never followed here, so nothing outside of the directory
/// is ever opened; whoever reads the tree resolves them inside it. Left out are `.git`, directories that
/// are marked as caches (a file `CACHEDIR.TAG`, as cargo's `target` has one), what is neither file nor
/// directory nor link, and names that are no UTF-8.
pub struct DirTree {
    nodes: BTreeMap<String, Node>,
    digest: String,
}

#[derive(Clone)]
struct Node {
    /// SHA-256 of the content in hexadecimal, for directories of their listing.
    id: String,
    content: Content,
    stamp: Stamp,
}

#[derive(Clone)]
enum Content {
    Directory,
    File(Arc<[u8]>),
    Symlink(Arc<[u8]>),
    TooLarge(u64),
}

impl Node {
    fn kind(&self) -> EntryKind {
        match self.content {
            Content::Directory => EntryKind::Directory,
            Content::File(_) | Content::TooLarge(_) => EntryKind::File,
            Content::Symlink(_) => EntryKind::Symlink,
        }
    }
}

/// What changes whenever a file's content does: device, inode, size, and the time of the last change
/// in nanoseconds, which nobody can set back.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}

struct Scan<'a> {
    root: &'a Path,
    previous: Option<&'a DirTree>,
    nodes: BTreeMap<String, Node>,
    total: u64,
}

impl DirTree {
    /// Reads a directory. Files that did not change since `previous` are taken from there.
    ///
    /// # Errors
    /// [`SourceError::DirectoryUnreadable`] and [`SourceError::SourceTooLarge`].
    pub fn scan(root: &Path, previous: Option<&Self>) -> Result<Self, SourceError> {
        let metadata = fs::metadata(root).map_err(|error| unreadable(root, &error))?;
        if !metadata.is_dir() {
            let detail = "it is not a directory".to_owned();
            return Err(SourceError::DirectoryUnreadable { path: root.display().to_string(), detail });
        }
        let mut scan = Scan { root, previous, nodes: BTreeMap::new(), total: 0 };
        let digest = scan.directory("", 0)?;
        Ok(Self { nodes: scan.nodes, digest })
    }

    /// SHA-256 over everything in it, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }
}

impl Tree for DirTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if path.is_empty() {
            return Ok(Some(Entry::new(EntryKind::Directory, Some(self.digest.clone()))));
        }
        Ok(self.node(path).map(|node| Entry::new(node.kind(), Some(node.id.clone()))))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        match self.node(path).map(|node| &node.content) {
            None => Err(refused(path, "there is no such file")),
            Some(Content::Directory) => Err(refused(path, "it is a directory, not a file")),
            Some(Content::File(content) | Content::Symlink(content)) => Ok(content.to_vec()),
            Some(Content::TooLarge(size)) => {
                Err(refused(path, &format!("it has {size} bytes; at most {MAX_FILE} are read")))
            }
        }
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        if !path.is_empty() && self.node(path).is_none_or(|node| node.kind() != EntryKind::Directory) {
            return Err(refused(path, "there is no such directory"));
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let below = self
            .nodes
            .range(prefix.clone()..)
            .map_while(|(name, node)| Some((name.strip_prefix(prefix.as_str())?, node.kind())));
        let names = below.filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        Ok(names.map(|(name, kind)| (name.to_owned(), kind)).collect())
    }
}

fn refused(path: &str, detail: &str) -> TreeError {
    TreeError::new(path, detail)
}

impl Scan<'_> {
    /// Reads the directory at `path` (relative to the root, empty for the root) and gives its digest.
    fn directory(&mut self, path: &str, depth: usize) -> Result<String, SourceError> {
        if depth > MAX_DEPTH {
            return Err(self.too_large(format!("directories are nested deeper than {MAX_DEPTH}, at {path}")));
        }
        let full = self.root.join(path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(|error| unreadable(&full, &error))? {
            let entry = entry.map_err(|error| unreadable(&full, &error))?;
            match entry.file_name().into_string() {
                Ok(name) if name == ".git" => {}
                Ok(name) => names.push(name),
                Err(name) => tracing::debug!(?name, "a name that is no UTF-8 is left out"),
            }
        }
        names.sort();
        let mut listing = Sha256::new();
        for name in names {
            let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let Some((kind, id)) = self.entry(&child, depth)? else { continue };
            if self.nodes.len() > MAX_ENTRIES {
                return Err(self.too_large(format!(
                    "it has more than {MAX_ENTRIES} files; point to a smaller directory"
                )));
            }
            listing.update(format!("{kind} {}:{name} {id}\n", name.len()));
        }
        Ok(hexadecimal(listing))
    }

    /// Reads one entry; `None` if it is left out or went away meanwhile.
    fn entry(&mut self, path: &str, depth: usize) -> Result<Option<(&'static str, String)>, SourceError> {
        let full = self.root.join(path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&full, &error)),
        };
        let stamp = stamp(&metadata);
        let kind = metadata.file_type();
        let (word, id, content) = if kind.is_dir() {
            if full.join("CACHEDIR.TAG").is_file() {
                return Ok(None);
            }
            ("directory", self.directory(path, depth + 1)?, Content::Directory)
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(|error| unreadable(&full, &error))?;
            let target: Arc<[u8]> = target.as_os_str().as_encoded_bytes().into();
            ("symlink", digest(&target), Content::Symlink(target))
        } else if kind.is_file() {
            let Some((id, content)) = self.file(path, &full, stamp, metadata.len())? else { return Ok(None) };
            ("file", id, content)
        } else {
            return Ok(None);
        };
        self.nodes.insert(path.to_owned(), Node { id: id.clone(), content, stamp });
        Ok(Some((word, id)))
    }

    fn file(
        &mut self,
        path: &str,
        full: &Path,
        expected: Stamp,
        size: u64,
    ) -> Result<Option<(String, Content)>, SourceError> {
        if size > MAX_FILE {
            return Ok(Some((digest(format!("{expected:?}").as_bytes()), Content::TooLarge(size))));
        }
        self.total += size;
        if self.total > MAX_TOTAL {
            let detail =
                format!("its files have more than {} MiB; point to a smaller directory", MAX_TOTAL >> 20);
            return Err(self.too_large(detail));
        }
        let known =
            self.previous.and_then(|previous| previous.node(path)).filter(|node| node.stamp == expected);
        if let Some(Node { id, content: content @ Content::File(_), .. }) = known {
            return Ok(Some((id.clone(), content.clone())));
        }
        let file = match fs::File::open(full) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(full, &error)),
        };
        // What was opened must be what was looked at, not a link that took its place meanwhile.
        let opened = file.metadata().map_err(|error| unreadable(full, &error))?;
        if (opened.dev(), opened.ino()) != (expected.0, expected.1) {
            return Ok(None);
        }
        let mut content = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut content).map_err(|error| unreadable(full, &error))?;
        Ok(Some((digest(&content), Content::File(content.into()))))
    }

    fn too_large(&self, detail: String) -> SourceError {
        SourceError::SourceTooLarge { url: self.root.display().to_string(), detail }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> SourceError {
    SourceError::DirectoryUnreadable { path: path.display().to_string(), detail: error.to_string() }
}

fn digest(content: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(content))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
