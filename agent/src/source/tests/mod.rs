//! Sources against real repositories, made by libgit2 in temporary directories.

mod directories;
mod faults;
pub(crate) mod http;
mod packs;
mod repositories;

use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{Oid, Repository, Signature};
use tokio::sync::watch;

use super::*;

/// A bare repository to fetch from.
pub(super) struct Remote {
    directory: tempfile::TempDir,
}

impl Remote {
    pub(super) fn new() -> Self {
        let remote = Self { directory: tempfile::tempdir().unwrap() };
        Repository::init_bare(remote.path()).unwrap();
        remote
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("shop.git")
    }

    pub(super) fn url(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub(super) fn repository(&self) -> Repository {
        Repository::open(self.path()).unwrap()
    }

    /// Commits a file on a branch, on top of `parent` (the branch's tip by default).
    pub(super) fn commit(&self, branch: &str, file: &str, content: &str) -> Oid {
        let parent = self.repository().refname_to_id(&format!("refs/heads/{branch}")).ok();
        self.commit_on(branch, parent, file, content)
    }

    pub(super) fn commit_on(&self, branch: &str, parent: Option<Oid>, file: &str, content: &str) -> Oid {
        let repository = self.repository();
        let base = parent.map(|parent| repository.find_commit(parent).unwrap());
        let mut update = git2::build::TreeUpdateBuilder::new();
        update.upsert(file, repository.blob(content.as_bytes()).unwrap(), git2::FileMode::Blob);
        let empty = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let tree = base.as_ref().map_or(empty, |base| base.tree().unwrap());
        let tree = repository.find_tree(update.create_updated(&repository, &tree).unwrap()).unwrap();
        let author = Signature::now("Ada", "ada@example.com").unwrap();
        let parents: Vec<&git2::Commit<'_>> = base.iter().collect();
        let message = format!("Write {file}\n\nMore words.\n");
        let id = repository.commit(None, &author, &author, &message, &tree, &parents).unwrap();
        repository.reference(&format!("refs/heads/{branch}"), id, true, "push").unwrap();
        id
    }

    pub(super) fn tag(&self, name: &str, id: Oid) {
        let repository = self.repository();
        let target = repository.find_object(id, None).unwrap();
        let tagger = Signature::now("Ada", "ada@example.com").unwrap();
        repository.tag(name, &target, &tagger, "release", true).unwrap();
    }
}

/// Patient for slow machines; no test takes that long when it passes.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn config(data_dir: &Path) -> SourcesConfig {
    SourcesConfig {
        retry_first: Duration::from_millis(20),
        retry_last: Duration::from_millis(50),
        ..SourcesConfig::new(data_dir)
    }
}

/// An interval that never comes within a test: what is seen was seen by watching.
pub(super) const NEVER: Duration = Duration::from_secs(3600);

pub(super) fn spec(url: &str, reference: Reference, interval: Duration) -> SourceSpec {
    SourceSpec { url: url.to_owned(), reference, interval, credentials: None }
}

pub(super) fn main_branch() -> Reference {
    Reference::Branch("main".into())
}

/// Waits until the source is as it should be.
pub(super) async fn until(
    receiver: &mut watch::Receiver<SourceState>,
    wanted: impl FnMut(&SourceState) -> bool,
) -> SourceState {
    let waited = tokio::time::timeout(DEADLINE, receiver.wait_for(wanted)).await;
    let waited = waited.map(|state| state.expect("the source's task ended").clone());
    match waited {
        Ok(state) => state,
        Err(_) => panic!("the source stayed at {:?}", *receiver.borrow()),
    }
}

pub(super) async fn ready(receiver: &mut watch::Receiver<SourceState>, commit: Oid) -> Snapshot {
    let commit = commit.to_string();
    let state = until(
        receiver,
        |state| matches!(state, SourceState::Ready(snapshot) if snapshot.revision.commit == commit),
    )
    .await;
    state.snapshot().unwrap().clone()
}

pub(super) async fn failed(
    receiver: &mut watch::Receiver<SourceState>,
    reason: &str,
) -> (SourceProblem, Option<Snapshot>) {
    let state = until(
        receiver,
        |state| matches!(state, SourceState::Failed { problem, .. } if problem.reason == reason),
    )
    .await;
    match state {
        SourceState::Failed { problem, last } => (problem, last),
        _ => unreachable!(),
    }
}
