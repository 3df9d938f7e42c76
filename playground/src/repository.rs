//! The team's Git repository of the demonstration: a bare one that the agent reads, and a working clone to
//! edit and push from.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use git2::{IndexAddOption, Oid, PushOptions, RemoteCallbacks, RepositoryInitOptions, Signature};

/// The branch that is deployed.
pub const BRANCH: &str = "main";
/// Folders of the checkout that the repository is made from.
const SEED: [&str; 2] = ["environments", "policies"];

/// What goes wrong with the repository.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Git refused.
    #[error("git cannot {action}: {source}")]
    Git {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: git2::Error,
    },
    /// A push arrived, and the branch was not moved.
    #[error("the repository refused the push of {reference}: {reason}")]
    Refused {
        /// Which reference.
        reference: String,
        /// In Git's words.
        reason: String,
    },
    /// A change was asked for that the file does not allow.
    #[error("{}: {problem}", path.display())]
    Edit {
        /// The file, from the clone's root.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

fn git_error(action: &'static str) -> impl FnOnce(git2::Error) -> Error {
    move |source| Error::Git { action, source }
}

/// A commit, as `git log --oneline` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full id.
    pub id: String,
    /// First line of its message.
    pub subject: String,
    /// The whole message.
    pub message: String,
    /// Seconds since 1970.
    pub time: i64,
}

impl Commit {
    /// The first seven digits.
    pub fn short(&self) -> &str {
        self.id.get(..7).unwrap_or(&self.id)
    }
}

/// A bare repository and a working clone of it.
#[derive(Debug, Clone)]
pub struct Repository {
    bare: PathBuf,
    work: PathBuf,
}

impl Repository {
    /// Makes the bare repository `bare` from the folders `environments` and `policies` of `checkout`, and
    /// the clone `work`. Neither may exist.
    ///
    /// # Errors
    ///
    /// When the file system or Git refuses.
    pub fn seed(checkout: &Path, bare: &Path, work: &Path) -> Result<Self, Error> {
        let repository = Self::empty(bare, work)?;
        for folder in SEED {
            let from = checkout.join(folder);
            copy(&from, &repository.work.join(folder))?;
        }
        repository.commit_and_push("The shop's environments and policies")?;
        Ok(repository)
    }

    /// Makes an empty bare repository and a clone of it. Neither may exist.
    ///
    /// # Errors
    ///
    /// When the file system or Git refuses.
    pub fn empty(bare: &Path, work: &Path) -> Result<Self, Error> {
        let init = |path: &Path, is_bare: bool| {
            let mut options = RepositoryInitOptions::new();
            options.bare(is_bare).no_reinit(true).mkpath(true).initial_head(BRANCH).external_template(false);
            git2::Repository::init_opts(path, &options).map_err(git_error("make a repository"))
        };
        init(bare, true)?;
        let clone = init(work, false)?;
        let absolute = |path: &Path| path.canonicalize().map_err(io_error("resolve", path));
        let repository = Self { bare: absolute(bare)?, work: absolute(work)? };
        clone.remote("origin", &repository.url()).map_err(git_error("name the remote"))?;
        let configure = || -> Result<(), git2::Error> {
            let mut config = clone.config()?;
            config.set_str(&format!("branch.{BRANCH}.remote"), "origin")?;
            config.set_str(&format!("branch.{BRANCH}.merge"), &format!("refs/heads/{BRANCH}"))?;
            // A person who has told Git their name keeps it; another can commit all the same.
            for (key, value) in [("user.name", "DhakaCart Team"), ("user.email", "team@dhakacart.example")] {
                if config.get_string(key).is_err() {
                    config.set_str(key, value)?;
                }
            }
            Ok(())
        };
        configure().map_err(git_error("configure the clone"))?;
        Ok(repository)
    }

    /// The address that the agent reads: `file:///…/shop.git`.
    pub fn url(&self) -> String {
        file_url(&self.bare)
    }

    /// The bare repository.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// The working clone.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Reads a file of the clone.
    ///
    /// # Errors
    ///
    /// When it is not there or not text.
    pub fn read(&self, path: &str) -> Result<String, Error> {
        let path = self.inside(path)?;
        fs::read_to_string(&path).map_err(io_error("read", &path))
    }

    /// Reads a file as it was at a commit.
    ///
    /// # Errors
    ///
    /// When there is no such commit, or no such text file in it.
    pub fn read_at(&self, commit: &str, path: &str) -> Result<String, Error> {
        let clone = open(&self.work)?;
        let bytes = clone
            .revparse_single(&format!("{commit}:{path}"))
            .and_then(|object| object.peel_to_blob())
            .map(|blob| blob.content().to_owned())
            .map_err(git_error("read a file of a commit"))?;
        String::from_utf8(bytes)
            .map_err(|_| Error::Edit { path: PathBuf::from(path), problem: "is not text".to_owned() })
    }

    /// Writes a file of the clone, and the folders above it.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write(&self, path: &str, content: &str) -> Result<(), Error> {
        let path = self.inside(path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        fs::write(&path, content).map_err(io_error("write", &path))
    }

    /// Removes a file of the clone.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        let path = self.inside(path)?;
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// Changes a file of the clone; a change that changes nothing is an error.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, or `change` returns a reason or the same text.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> Result<String, String>) -> Result<(), Error> {
        let before = self.read(path)?;
        let refuse = |problem| Error::Edit { path: PathBuf::from(path), problem };
        let after = change(&before).map_err(refuse)?;
        if after == before {
            return Err(refuse("the edit changed nothing".to_owned()));
        }
        self.write(path, &after)
    }

    /// Commits everything in the clone and pushes the branch, as `git commit -a` and `git push` do.
    ///
    /// # Errors
    ///
    /// When Git refuses.
    pub fn commit_and_push(&self, message: &str) -> Result<Commit, Error> {
        let commit = self.commit(message)?;
        self.push(false)?;
        Ok(commit)
    }

    /// Commits everything in the clone.
    ///
    /// # Errors
    ///
    /// When Git refuses.
    pub fn commit(&self, message: &str) -> Result<Commit, Error> {
        let clone = open(&self.work)?;
        let commit = || -> Result<Oid, git2::Error> {
            let mut index = clone.index()?;
            index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
            index.update_all(["*"], None)?;
            index.write()?;
            let tree = clone.find_tree(index.write_tree()?)?;
            let author = Signature::now("DhakaCart Team", "team@dhakacart.example")?;
            let parent = clone.head().and_then(|head| head.peel_to_commit()).ok();
            clone.commit(Some("HEAD"), &author, &author, message, &tree, &parent.iter().collect::<Vec<_>>())
        };
        let id = commit().map_err(git_error("commit"))?;
        described(&clone, id)
    }

    /// Pushes the branch.
    ///
    /// # Errors
    ///
    /// When Git refuses; without `force` also when the branch moved on.
    pub fn push(&self, force: bool) -> Result<(), Error> {
        let clone = open(&self.work)?;
        let mut refused = None;
        let pushed = {
            let mut callbacks = RemoteCallbacks::new();
            callbacks.push_update_reference(|reference, status| {
                if let Some(reason) = status {
                    refused = Some((reference.to_owned(), reason.to_owned()));
                }
                Ok(())
            });
            let mut options = PushOptions::new();
            options.remote_callbacks(callbacks);
            let sign = if force { "+" } else { "" };
            clone.find_remote("origin").and_then(|mut origin| {
                origin.push(&[format!("{sign}refs/heads/{BRANCH}:refs/heads/{BRANCH}")], Some(&mut options))
            })
        };
        pushed.map_err(git_error("push"))?;
        match refused {
            Some((reference, reason)) => Err(Error::Refused { reference, reason }),
            None => Ok(()),
        }
    }

    /// Takes the clone back to a commit, its files with it, as `git reset --hard` does.
    ///
    /// # Errors
    ///
    /// When Git refuses.
    pub fn reset(&self, commit: &str) -> Result<(), Error> {
        let clone = open(&self.work)?;
        clone
            .revparse_single(commit)
            .and_then(|object| clone.reset(&object, git2::ResetType::Hard, None))
            .map_err(git_error("reset the clone"))
    }

    /// Commits of a branch of the bare repository, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When there is no such branch.
    pub fn log(&self, branch: &str, limit: usize) -> Result<Vec<Commit>, Error> {
        let bare = open(&self.bare)?;
        let ids = || -> Result<Vec<Oid>, git2::Error> {
            let tip = bare.find_reference(&format!("refs/heads/{branch}"))?.peel_to_commit()?;
            let mut walk = bare.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL)?;
            walk.push(tip.id())?;
            walk.take(limit).collect()
        };
        let ids = ids().map_err(git_error("read the log"))?;
        ids.into_iter().map(|id| described(&bare, id)).collect()
    }

    /// The commit at the tip of the deployed branch, in the bare repository.
    ///
    /// # Errors
    ///
    /// When there is no such branch.
    pub fn tip(&self) -> Result<Commit, Error> {
        let bare = open(&self.bare)?;
        let tip = bare
            .find_reference(&format!("refs/heads/{BRANCH}"))
            .and_then(|reference| reference.peel_to_commit())
            .map_err(git_error("read the branch"))?;
        described(&bare, tip.id())
    }

    /// Paths stay inside the clone, whoever wrote them.
    fn inside(&self, path: &str) -> Result<PathBuf, Error> {
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if plain {
            Ok(self.work.join(path))
        } else {
            let problem = "only paths inside the repository can be edited".to_owned();
            Err(Error::Edit { path: PathBuf::from(path), problem })
        }
    }
}

/// `file://` and the path, with everything encoded that a URL cannot hold.
pub fn file_url(path: &Path) -> String {
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

fn open(path: &Path) -> Result<git2::Repository, Error> {
    git2::Repository::open(path).map_err(git_error("open the repository"))
}

fn described(repository: &git2::Repository, id: Oid) -> Result<Commit, Error> {
    let commit = repository.find_commit(id).map_err(git_error("read a commit"))?;
    let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
    Ok(Commit {
        id: id.to_string(),
        subject: message.lines().next().unwrap_or_default().to_owned(),
        message,
        time: commit.time().seconds(),
    })
}

/// Copies a folder: its files and folders, and nothing else.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(io_error("create", to))?;
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let kind = entry.file_type().map_err(io_error("read", &entry.path()))?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).map_err(io_error("copy", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded() -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        let checkout = folder.path().join("checkout");
        fs::create_dir_all(checkout.join("environments/dev")).unwrap();
        fs::create_dir_all(checkout.join("policies")).unwrap();
        fs::write(checkout.join("environments/dev/a.yaml"), "tag: 1\n").unwrap();
        fs::write(checkout.join("policies/p.yaml"), "p\n").unwrap();
        let root = folder.path();
        let repository = Repository::seed(&checkout, &root.join("shop.git"), &root.join("shop")).unwrap();
        (folder, repository)
    }

    #[test]
    fn an_edit_is_committed_and_pushed() {
        let (_folder, repository) = seeded();
        let first = repository.tip().unwrap();
        repository.edit("environments/dev/a.yaml", |text| Ok(text.replace('1', "2"))).unwrap();
        let second = repository.commit_and_push("Release 2").unwrap();
        assert_eq!(repository.tip().unwrap(), second);
        let log = repository.log(BRANCH, 10).unwrap();
        assert_eq!(log, [second, first]);
        assert_eq!(log[0].subject, "Release 2");
    }

    #[test]
    fn an_edit_that_changes_nothing_is_refused() {
        let (_folder, repository) = seeded();
        let error = repository.edit("policies/p.yaml", |text| Ok(text.to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "policies/p.yaml: the edit changed nothing");
        assert!(repository.write("../out", "x").is_err());
        assert!(repository.read("/etc/hostname").is_err());
    }

    #[test]
    fn a_branch_is_rewritten_by_force_only() {
        let (_folder, repository) = seeded();
        let first = repository.tip().unwrap();
        repository.write("environments/dev/a.yaml", "tag: 2\n").unwrap();
        repository.commit_and_push("Release 2").unwrap();
        repository.reset(&first.id).unwrap();
        repository.write("environments/dev/a.yaml", "tag: 3\n").unwrap();
        let third = repository.commit("Release 3").unwrap();
        assert!(repository.push(false).is_err());
        repository.push(true).unwrap();
        assert_eq!(repository.tip().unwrap(), third);
        assert_eq!(repository.log(BRANCH, 10).unwrap().len(), 2);
    }

    #[test]
    fn removed_files_leave_the_commit() {
        let (_folder, repository) = seeded();
        repository.remove("policies/p.yaml").unwrap();
        repository.commit_and_push("No policies").unwrap();
        let bare = git2::Repository::open_bare(repository.bare()).unwrap();
        let tree = bare.head().unwrap().peel_to_tree().unwrap();
        assert!(tree.get_path(Path::new("policies/p.yaml")).is_err());
        assert!(tree.get_path(Path::new("environments/dev/a.yaml")).is_ok());
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(file_url(Path::new("/a b/ü.git")), "file:///a%20b/%C3%BC.git");
    }
}
