//! The files of a commit, read straight from Git's object database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::kustomize::{Entry, EntryKind, MAX_FILE_BYTES, Tree, TreeError};
use git2::{ObjectType, Oid, Repository};

/// How many directories are kept in memory; beyond, all are dropped and read again as needed.
const DIRECTORIES_KEPT: usize = 8192;

/// An object database, opened once for all trees of a mirror.
///
/// Directories that were read stay in memory by their id, which determines their content, so looking up
/// a path that is known costs no access to the database at all.
pub(crate) struct Objects {
    repository: Mutex<Repository>,
    directories: Mutex<HashMap<Oid, Arc<Directory>>>,
}

/// A directory: its entries by name, in byte order. Names that are no UTF-8 are left out, since no
/// manifest can mention them.
type Directory = Vec<(Box<str>, Kind, Oid)>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Symlink,
    Submodule,
}

impl Objects {
    pub(crate) fn new(repository: Repository) -> Self {
        Self { repository: Mutex::new(repository), directories: Mutex::default() }
    }

    fn directory(&self, id: Oid) -> Result<Arc<Directory>, git2::Error> {
        if let Some(known) = self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(self.read(|repository| Self::read_directory(repository, id))?);
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if directories.len() >= DIRECTORIES_KEPT {
            directories.clear();
        }
        directories.insert(id, Arc::clone(&read));
        Ok(read)
    }

    /// Reads something. A handle that fails is opened anew once: packs may have been replaced since.
    fn read<T>(&self, read: impl Fn(&Repository) -> Result<T, git2::Error>) -> Result<T, git2::Error> {
        let mut repository = self.repository.lock().unwrap_or_else(PoisonError::into_inner);
        read(&repository).or_else(|_| {
            *repository = Repository::open_bare(repository.path())?;
            read(&repository)
        })
    }

    fn read_directory(repository: &Repository, id: Oid) -> Result<Directory, git2::Error> {
        let tree = repository.find_tree(id)?;
        let mut entries: Directory = tree
            .iter()
            .filter_map(|entry| {
                let kind = match entry.filemode() & 0o170_000 {
                    0o040_000 => Kind::Directory,
                    0o120_000 => Kind::Symlink,
                    0o160_000 => Kind::Submodule,
                    _ => Kind::File,
                };
                let name = std::str::from_utf8(entry.name_bytes()).ok()?;
                Some((Box::from(name), kind, entry.id()))
            })
            .collect();
        // Git sorts directories as if their names ended in a slash; lookups want plain order.
        entries.sort_unstable_by(|one, two| one.0.cmp(&two.0));
        Ok(entries)
    }
}

/// The files of one commit.
pub struct GitTree {
    objects: Arc<Objects>,
    root: Oid,
}

impl GitTree {
    pub(crate) fn new(objects: Arc<Objects>, root: Oid) -> Self {
        Self { objects, root }
    }

    /// The entry at a path; `None` if there is none. The empty path is the root.
    fn find(&self, path: &str) -> Result<Option<(Kind, Oid)>, git2::Error> {
        let mut found = (Kind::Directory, self.root);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if found.0 != Kind::Directory {
                return Ok(None);
            }
            let directory = self.objects.directory(found.1)?;
            let Ok(at) = directory.binary_search_by(|entry| (*entry.0).cmp(part)) else { return Ok(None) };
            found = (directory[at].1, directory[at].2);
        }
        Ok(Some(found))
    }

    /// The content of a file, or the size of one that is too large.
    fn blob(&self, id: Oid) -> Result<Result<Vec<u8>, usize>, git2::Error> {
        self.objects.read(|repository| {
            let odb = repository.odb()?;
            // The size comes first: a blob of a gigabyte must not be unpacked to learn that it is too large.
            let (size, kind) = odb.read_header(id)?;
            if size > MAX_FILE_BYTES {
                return Ok(Err(size));
            }
            if kind != ObjectType::Blob {
                return Err(git2::Error::from_str("the object is no file"));
            }
            Ok(Ok(odb.read(id)?.data().to_vec()))
        })
    }
}

impl Tree for GitTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let Some((kind, id)) = self.find(path).map_err(|error| damaged(path, &error))? else {
            return Ok(None);
        };
        let kind = match kind {
            Kind::Directory => EntryKind::Directory,
            Kind::File => EntryKind::File,
            Kind::Symlink => EntryKind::Symlink,
            Kind::Submodule => return Err(refused(path, SUBMODULE)),
        };
        Ok(Some(Entry::new(kind, Some(id.to_string()))))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        match self.find(path).map_err(|error| damaged(path, &error))? {
            None => Err(refused(path, "there is no such file")),
            Some((Kind::Directory, _)) => Err(refused(path, "it is a directory, not a file")),
            Some((Kind::Submodule, _)) => Err(refused(path, SUBMODULE)),
            Some((Kind::File | Kind::Symlink, id)) => {
                self.blob(id).map_err(|error| damaged(path, &error))?.map_err(|size| {
                    refused(path, &format!("it has {size} bytes; at most {MAX_FILE_BYTES} are read"))
                })
            }
        }
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        match self.find(path).map_err(|error| damaged(path, &error))? {
            Some((Kind::Directory, id)) => {
                let directory = self.objects.directory(id).map_err(|error| damaged(path, &error))?;
                let names = directory.iter().map(|(name, kind, _)| {
                    let kind = match kind {
                        // Left to whoever opens it: a submodule that nothing refers to does no harm.
                        Kind::Directory | Kind::Submodule => EntryKind::Directory,
                        Kind::File => EntryKind::File,
                        Kind::Symlink => EntryKind::Symlink,
                    };
                    (name.to_string(), kind)
                });
                Ok(names.collect())
            }
            Some((Kind::Submodule, _)) => Err(refused(path, SUBMODULE)),
            _ => Err(refused(path, "there is no such directory")),
        }
    }
}

const SUBMODULE: &str =
    "it is a Git submodule, which is not followed; copy what is needed into the repository";

fn refused(path: &str, detail: &str) -> TreeError {
    TreeError::new(path, detail)
}

fn damaged(path: &str, error: &git2::Error) -> TreeError {
    refused(path, &format!("the repository is damaged: {}", error.message()))
}
