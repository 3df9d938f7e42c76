//! The evidence of one repository: written locally, pushed by a task of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use engine::audit::{Anchor, Context, Record, commit_message, note_line};
use engine::object::Digest;
use engine::rollout::Transition;
use git2::{Oid, Repository};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};

use super::chain::{self, Entry, Meeting, Tip};
use super::remote::{Remote, RemoteError, mirrored};
use super::sign::SigningKey;
use super::{EvidenceError, EvidenceTarget, Progress, Written};
use crate::retry::Backoff;
use crate::source::{Credentials, RepositoryUrl};

/// How long the first fetch of a branch may take; somebody waits for it.
const FIRST_FETCH: Duration = Duration::from_secs(15);
/// How long a fetch or push in the background may take.
const TRANSFER: Duration = Duration::from_secs(60);
/// How many attempts to push meet a branch that moved again meanwhile before it waits.
const RACES: usize = 5;
/// Where the one-line mirror is.
const NOTES: &str = "refs/notes/deployments";
/// How many lines for the mirror wait at most; it is a convenience, the records are the evidence.
const NOTES_KEPT: usize = 1000;

/// The evidence branches of one repository.
pub(super) struct Ledger {
    path: PathBuf,
    /// The remote repository, with the credentials that were given last.
    remote: RwLock<(String, Arc<Remote>)>,
    /// Held while references of the local repository move; never while the network is used.
    writing: Mutex<()>,
    branches: Mutex<HashMap<String, Branch>>,
    /// Lines for the mirror that are not pushed yet.
    notes: Mutex<Vec<Note>>,
    bell: Notify,
}

struct Branch {
    progress: watch::Sender<Progress>,
    /// The key of the newest append: what records are signed with if they have to move.
    key: Option<Arc<SigningKey>>,
}

/// One line of the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    /// The commit that it is about.
    revision: Oid,
    line: String,
    at: Timestamp,
}

impl Ledger {
    /// Begins to keep the evidence of a repository. Must be called inside a tokio runtime.
    pub(super) fn start(
        data_dir: &Path,
        url: RepositoryUrl,
        credentials: Option<Credentials>,
    ) -> Result<Arc<Self>, String> {
        let fingerprint = Credentials::fingerprint(credentials.as_ref());
        let hash: String =
            Sha256::digest(url.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let ledger = Arc::new(Self {
            path: data_dir.join("evidence").join(format!("{hash}.git")),
            remote: RwLock::new((
                fingerprint,
                Arc::new(Remote::new(url, credentials, tokio::runtime::Handle::current())?),
            )),
            writing: Mutex::default(),
            branches: Mutex::default(),
            notes: Mutex::default(),
            bell: Notify::new(),
        });
        tokio::spawn(push_forever(Arc::downgrade(&ledger)));
        Ok(ledger)
    }

    fn remote(&self) -> Arc<Remote> {
        Arc::clone(&self.remote.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Uses these credentials from now on.
    pub(super) fn use_credentials(&self, credentials: Option<Credentials>) -> Result<(), String> {
        let fingerprint = Credentials::fingerprint(credentials.as_ref());
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        if remote.0 != fingerprint {
            let url = remote.1.url().clone();
            *remote =
                (fingerprint, Arc::new(Remote::new(url, credentials, tokio::runtime::Handle::current())?));
        }
        Ok(())
    }

    /// Pushes what there is to push, soon.
    pub(super) fn wake(&self) {
        self.bell.notify_one();
    }

    pub(super) fn progress(&self, branch: &str) -> watch::Receiver<Progress> {
        self.with(branch, |branch| branch.progress.subscribe())
    }

    /// Returns when all records are pushed.
    pub(super) async fn settled(&self) {
        let waiting: Vec<watch::Receiver<Progress>> = {
            let branches = self.branches.lock().unwrap_or_else(PoisonError::into_inner);
            branches.values().map(|branch| branch.progress.subscribe()).collect()
        };
        for mut progress in waiting {
            // The sender lives as long as this ledger.
            let _ = progress.wait_for(|progress| progress.pushed >= progress.written).await;
        }
    }

    /// Writes a record. Blocks.
    pub(super) fn append(
        &self,
        target: &EvidenceTarget,
        transition: &Transition,
        context: &Context,
        anchor: Option<Anchor>,
    ) -> Result<Written, EvidenceError> {
        let key = target.signing_key.as_ref().map(SigningKey::parse).transpose()?.map(Arc::new);
        self.with(&target.branch, |branch| branch.key = key.clone());
        let repository = self.repository()?;
        let name = format!("refs/heads/{}", target.branch);
        self.know(&repository, &name)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let tip = tip(&repository, &name)?;
        check(&repository, tip.as_ref(), anchor, &target.branch)?;
        let before = tip.as_ref().map(|tip| &tip.record);
        let record = match (Record::following(before, &target.environment, transition, context), &tip) {
            (Some(record), _) => record,
            (None, Some(tip)) => return Ok(written(tip)),
            (None, None) => {
                let detail = "the first transition counts as recorded".to_owned();
                return Err(EvidenceError::Storage { detail });
            }
        };
        let bytes = record.to_bytes();
        let (sequence, message) = (record.sequence, commit_message(&record));
        let entry = Entry { sequence, bytes: &bytes, message: &message, at: record.at };
        let parent = tip.as_ref().map(|tip| tip.commit);
        let commit = chain::commit(&repository, parent, &entry, key.as_deref())?;
        repository.reference(&name, commit, true, "append")?;
        self.note(&record);
        self.tell(&target.branch, |progress| progress.written = sequence);
        Ok(written(&Tip { commit, record: record.tip() }))
    }

    /// Makes sure that the branch is known: the first time it is fetched, since continuing a chain takes
    /// its newest record.
    fn know(&self, repository: &Repository, name: &str) -> Result<(), EvidenceError> {
        if repository.refname_to_id(name).is_ok() {
            return Ok(());
        }
        self.remote().fetch(repository, &[name], FIRST_FETCH).map_err(|error| match error {
            RemoteError::Failed(detail) => EvidenceError::Unreachable { detail },
            RemoteError::NotFastForward => {
                EvidenceError::Unreachable { detail: "the branch moved".to_owned() }
            }
        })?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(tip) = repository.refname_to_id(&mirrored(name))
            && repository.refname_to_id(name).is_err()
        {
            repository.reference(name, tip, false, "fetch")?;
            let newest = chain::tip(repository, tip)?.map_or(0, |tip| tip.record.sequence);
            let branch = name.trim_start_matches("refs/heads/");
            self.tell(branch, |progress| (progress.written, progress.pushed) = (newest, newest));
        }
        Ok(())
    }

    fn repository(&self) -> Result<Repository, EvidenceError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(repository) = Repository::open_bare(&self.path) {
            return Ok(repository);
        }
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false);
        Ok(Repository::init_opts(&self.path, &options)?)
    }

    fn with<T>(&self, branch: &str, use_it: impl FnOnce(&mut Branch) -> T) -> T {
        let mut branches = self.branches.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(
            branches
                .entry(branch.to_owned())
                .or_insert_with(|| Branch { progress: watch::channel(Progress::default()).0, key: None }),
        )
    }

    fn tell(&self, branch: &str, change: impl FnOnce(&mut Progress)) {
        self.with(branch, |branch| {
            branch.progress.send_if_modified(|progress| {
                let before = progress.clone();
                change(progress);
                *progress != before
            })
        });
    }

    /// Takes up the branches that an earlier process left, so that they are pushed too.
    fn take_up(&self) {
        let Ok(repository) = Repository::open_bare(&self.path) else { return };
        let Ok(found) = repository.references_glob("refs/heads/*") else { return };
        for reference in found.flatten() {
            let Ok(name) = reference.name() else { continue };
            if let (Some(branch), Ok(Some(tip))) = (name.strip_prefix("refs/heads/"), tip(&repository, name))
            {
                self.tell(branch, |progress| progress.written = progress.written.max(tip.record.sequence));
            }
        }
    }

    /// Pushes every branch; false if some could not be pushed. Blocks.
    fn push_all(&self) -> bool {
        let names: Vec<String> =
            self.branches.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let Ok(repository) = self.repository() else { return false };
        let mut well = true;
        for branch in names {
            let result = self.push(&repository, &branch);
            if let Err(problem) = &result {
                well = false;
                let news =
                    self.with(&branch, |branch| branch.progress.borrow().problem.as_ref() != Some(problem));
                match news {
                    true if problem.is_tampering() => {
                        tracing::error!(branch, %problem, "evidence is not pushed")
                    }
                    true => tracing::warn!(branch, %problem, "evidence is not pushed yet"),
                    false => {}
                }
            }
            self.tell(&branch, |progress| match result {
                Ok(pushed) => {
                    progress.pushed = pushed;
                    progress.written = progress.written.max(pushed);
                    progress.problem = None;
                }
                Err(problem) => progress.problem = Some(problem),
            });
        }
        if well && let Err(problem) = self.push_notes(&repository) {
            tracing::debug!(%problem, "the one-line mirror is not pushed yet");
        }
        well
    }

    /// Pushes one branch and says up to which record the remote has it.
    fn push(&self, repository: &Repository, branch: &str) -> Result<u64, EvidenceError> {
        let name = format!("refs/heads/{branch}");
        let failed = |detail: String| EvidenceError::PushFailed { detail };
        for _ in 0..RACES {
            let Some(local) = tip(repository, &name)? else { return Ok(0) };
            if repository.refname_to_id(&mirrored(&name)).is_ok_and(|remote| remote == local.commit) {
                return Ok(local.record.sequence);
            }
            match self.remote().push(repository, &name, TRANSFER) {
                // What was pushed may be newer than `local` by now; the next round says so.
                Ok(()) => continue,
                Err(RemoteError::Failed(detail)) => return Err(failed(detail)),
                Err(RemoteError::NotFastForward) => {}
            }
            self.remote().fetch(repository, &[&name], TRANSFER).map_err(|error| match error {
                RemoteError::Failed(detail) => failed(detail),
                RemoteError::NotFastForward => failed("the branch moved".to_owned()),
            })?;
            self.join(repository, branch, &name)?;
        }
        Err(failed(format!("{} is moved by others all the time", self.remote().url())))
    }

    /// Puts local records onto a remote branch that has other commits, if no record contradicts another.
    fn join(&self, repository: &Repository, branch: &str, name: &str) -> Result<(), EvidenceError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(remote) = repository.refname_to_id(&mirrored(name)) else { return Ok(()) };
        let Some(local) = tip(repository, name)? else { return Ok(()) };
        let ours = chain::records(repository, local.commit)?;
        let mut onto = remote;
        match chain::meet(&ours, &chain::records(repository, remote)?) {
            Meeting::Conflict(sequence) => {
                return Err(EvidenceError::Tampered { branch: branch.to_owned(), sequence });
            }
            Meeting::Adopt => {}
            Meeting::Add(missing) => {
                let key = self.with(branch, |branch| branch.key.clone());
                for sequence in missing {
                    let bytes = chain::blob_bytes(repository, ours[&sequence])?;
                    let original = chain::commit_of(repository, local.commit, sequence)?;
                    if key.is_none() && repository.extract_signature(&original, None).is_ok() {
                        let detail =
                            "a signed record has to move, and its key is not known until the next record";
                        return Err(EvidenceError::PushFailed { detail: detail.to_owned() });
                    }
                    let original = repository.find_commit(original)?;
                    let entry = Entry {
                        sequence,
                        bytes: &bytes,
                        message: &String::from_utf8_lossy(original.message_bytes()),
                        at: Timestamp::from_second(original.time().seconds()).unwrap_or_default(),
                    };
                    onto = chain::commit(repository, Some(onto), &entry, key.as_deref())?;
                }
            }
        }
        repository.reference(name, onto, true, "join")?;
        tracing::info!(branch, "the evidence branch was moved by somebody else; all records are kept");
        Ok(())
    }

    fn note(&self, record: &Record) {
        let revision =
            record.release.as_ref().and_then(|release| Oid::from_str(&release.revision.commit).ok());
        let Some(revision) = revision else { return };
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= NOTES_KEPT {
            notes.remove(0);
        }
        notes.push(Note { revision, line: note_line(record), at: record.at });
    }

    /// Adds the waiting lines to the notes that the remote has, and pushes them.
    fn push_notes(&self, repository: &Repository) -> Result<(), String> {
        let waiting = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if waiting.is_empty() {
            return Ok(());
        }
        let text = |error: RemoteError| format!("{error:?}");
        self.remote().fetch(repository, &[NOTES], TRANSFER).map_err(text)?;
        add_notes(repository, &waiting).map_err(|error| error.message().to_owned())?;
        self.remote().push(repository, NOTES, TRANSFER).map_err(text)?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.retain(|note| !waiting.contains(note));
        Ok(())
    }
}

/// Begins at what the remote has, so that a push never has to be forced.
fn add_notes(repository: &Repository, waiting: &[Note]) -> Result<(), git2::Error> {
    match repository.refname_to_id(&mirrored(NOTES)) {
        Ok(remote) => drop(repository.reference(NOTES, remote, true, "fetch")?),
        Err(_) => {
            if let Ok(mut stale) = repository.find_reference(NOTES) {
                stale.delete()?;
            }
        }
    }
    for Note { revision, line, at } in waiting {
        let before = repository.find_note(Some(NOTES), *revision).ok();
        let before = before.as_ref().and_then(|note| note.message().ok()).unwrap_or_default();
        if before.lines().any(|have| have == line) {
            continue;
        }
        let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        let who = chain::signature(*at)?;
        let text = format!("{before}{gap}{line}\n").replace('\0', "");
        repository.note(&who, &who, Some(NOTES), *revision, &text, true)?;
    }
    Ok(())
}

/// Pushes whenever there is news, until the ledger is gone.
async fn push_forever(ledger: Weak<Ledger>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(300));
    let mut wait = Some(Duration::ZERO);
    if let Some(strong) = ledger.upgrade() {
        // A panic there would be a bug; what it leaves out is pushed with the next record.
        let _ = tokio::task::spawn_blocking(move || strong.take_up()).await;
    }
    loop {
        let Some(strong) = ledger.upgrade() else { return };
        match wait {
            None => strong.bell.notified().await,
            Some(delay) => {
                // News does not hurry a remote that is away, but a flush does.
                let _ = tokio::time::timeout(delay, strong.bell.notified()).await;
            }
        }
        let pushed = tokio::task::spawn_blocking(move || strong.push_all()).await.unwrap_or(false);
        wait = if pushed {
            backoff.reset();
            None
        } else {
            Some(backoff.next_delay())
        };
    }
}

fn tip(repository: &Repository, name: &str) -> Result<Option<Tip>, EvidenceError> {
    match repository.refname_to_id(name) {
        Ok(commit) => chain::tip(repository, commit),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Compares the branch with what the status knows of it.
fn check(
    repository: &Repository,
    tip: Option<&Tip>,
    anchor: Option<Anchor>,
    branch: &str,
) -> Result<(), EvidenceError> {
    let Some((expected, digest)) = anchor else { return Ok(()) };
    let found = tip.map_or(0, |tip| tip.record.sequence);
    let Some(tip) = tip.filter(|_| found >= expected) else {
        return Err(EvidenceError::Truncated { branch: branch.to_owned(), found, expected });
    };
    match chain::record(repository, tip.commit, expected)? {
        Some(bytes) if Digest::of_bytes(&bytes) == digest => Ok(()),
        _ => Err(EvidenceError::Tampered { branch: branch.to_owned(), sequence: expected }),
    }
}

fn written(tip: &Tip) -> Written {
    Written { commit: tip.commit.to_string(), sequence: tip.record.sequence, digest: tip.record.digest }
}
