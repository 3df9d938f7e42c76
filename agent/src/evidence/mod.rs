//! Evidence: what ran where and when, as signed commits on a branch of its own.
//!
//! Records are written to a local repository first, so that neither a rollout nor a rollback ever waits
//! for Git, and pushed in the background. Nothing is ever pushed by force: a branch that somebody else
//! moved is fetched, and either contains the same records (then the missing ones are put onto it) or
//! contradicts them (then pushing stops, and that is reported as tampering).

mod chain;
mod ledger;
mod remote;
mod sign;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::audit::{Anchor, Context};
use engine::object::Digest;
use engine::rollout::Transition;
use git2::Repository;
use tokio::sync::watch;

use crate::secret::Secret;
use crate::source::{Credentials, RepositoryUrl};
use ledger::Ledger;

/// Where the evidence of an environment goes.
#[derive(Debug, Clone)]
pub struct EvidenceTarget {
    /// The repository: the environment's own, as a rule.
    pub url: String,
    /// What its server is shown; they must be allowed to push.
    pub credentials: Option<Credentials>,
    /// The branch: `audit/dev`. Each environment needs one of its own.
    pub branch: String,
    /// `namespace/name` of the Environment, for the commit messages.
    pub environment: String,
    /// An ed25519 key in OpenSSH's format that signs the commits, without a passphrase.
    pub signing_key: Option<Secret<String>>,
}

/// The newest record of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The commit that holds it. It changes if the record has to be put onto another commit.
    pub commit: String,
    /// Its number in the chain.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

impl Written {
    /// Number and digest, for the next [`Evidence::append`].
    pub fn anchor(&self) -> Anchor {
        (self.sequence, self.digest)
    }
}

/// How far the records of a branch have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of the newest record written locally; 0 if there is none.
    pub written: u64,
    /// Number of the newest record that the remote repository has; 0 if there is none.
    pub pushed: u64,
    /// What keeps the rest from being pushed.
    pub problem: Option<EvidenceError>,
}

/// Why evidence could not be written, read or pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The repository's address or the branch's name makes no sense.
    #[error("evidence cannot be kept there: {detail}")]
    InvalidTarget {
        /// What is wrong.
        detail: String,
    },
    /// The key cannot sign.
    #[error(
        "the signing key of the evidence cannot be used: {detail}; make one with `ssh-keygen -t ed25519 -N \"\"`"
    )]
    InvalidKey {
        /// What is wrong with it. Never its text.
        detail: String,
    },
    /// The branch is not known locally, and the remote cannot be asked for it.
    #[error("the evidence branch must be fetched once before it can be continued, and that failed: {detail}")]
    Unreachable {
        /// What happened.
        detail: String,
    },
    /// The push failed; it is tried again.
    #[error("evidence could not be pushed: {detail}")]
    PushFailed {
        /// What happened.
        detail: String,
    },
    /// Records are missing that the status knows of.
    #[error(
        "the evidence branch {branch} ends at record {found}, but record {expected} is known to exist: records were \
         removed or never pushed"
    )]
    Truncated {
        /// The branch.
        branch: String,
        /// The newest record that is there.
        found: u64,
        /// The newest record that should be there.
        expected: u64,
    },
    /// A record was replaced.
    #[error(
        "record {sequence} of the evidence branch {branch} is not the one that was written: somebody changed it"
    )]
    Tampered {
        /// The branch.
        branch: String,
        /// The record.
        sequence: u64,
    },
    /// A commit of the branch is not one that the agent makes.
    #[error("commit {commit} of the evidence branch is not made by the agent: {detail}")]
    Altered {
        /// The commit.
        commit: String,
        /// What it does.
        detail: String,
    },
    /// There is no such branch to read.
    #[error("there is no branch {branch} in {path}; fetch it first: git fetch origin {branch}:{branch}")]
    NoBranch {
        /// The branch.
        branch: String,
        /// The repository.
        path: String,
    },
    /// The local repository cannot be read or written.
    #[error("evidence cannot be stored: {detail}; check the agent's data directory")]
    Storage {
        /// What happened.
        detail: String,
    },
}

impl EvidenceError {
    /// Whether somebody changed what was written: a person has to look, and waiting does not help.
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Tampered { .. } | Self::Altered { .. })
    }

    /// A word for metrics and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidTarget { .. } | Self::InvalidKey { .. } => "EvidenceMisconfigured",
            Self::Unreachable { .. } | Self::PushFailed { .. } => "EvidencePushFailed",
            Self::Truncated { .. } | Self::Tampered { .. } | Self::Altered { .. } => "EvidenceTampered",
            Self::NoBranch { .. } => "EvidenceNotFound",
            Self::Storage { .. } => "EvidenceStorageFailed",
        }
    }
}

impl From<git2::Error> for EvidenceError {
    fn from(error: git2::Error) -> Self {
        Self::Storage { detail: error.message().to_owned() }
    }
}

/// By repository and credentials.
type Ledgers = HashMap<RepositoryUrl, Arc<Ledger>>;

/// All evidence branches of the agent. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Evidence {
    data_dir: PathBuf,
    ledgers: Arc<Mutex<Ledgers>>,
}

impl Evidence {
    /// Evidence that is kept below `data_dir`, in `evidence/`, until it is pushed.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ledgers: Arc::default() }
    }

    /// Writes the record of a transition and says what the newest record is now.
    ///
    /// A transition that is recorded already is not recorded again: a repetition after a crash does no
    /// harm. The remote repository is asked only if the branch is not known locally yet, and for no longer
    /// than 15 s; pushing happens in the background.
    ///
    /// `anchor` is the newest record that the Environment's status knows of: with it, a shortened or
    /// changed branch is noticed.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing was written.
    pub async fn append(
        &self,
        target: &EvidenceTarget,
        transition: &Transition,
        context: &Context,
        anchor: Option<Anchor>,
    ) -> Result<Written, EvidenceError> {
        let ledger = self.ledger(target)?;
        let (target, known) = (target.clone(), Arc::clone(&ledger));
        let (transition, context) = (transition.clone(), context.clone());
        let written =
            tokio::task::spawn_blocking(move || known.append(&target, &transition, &context, anchor));
        let written =
            written.await.map_err(|error| EvidenceError::Storage { detail: error.to_string() })??;
        ledger.wake();
        Ok(written)
    }

    /// How far the records of a target have come, and every change of that.
    ///
    /// # Errors
    /// [`EvidenceError::InvalidTarget`].
    pub fn progress(&self, target: &EvidenceTarget) -> Result<watch::Receiver<Progress>, EvidenceError> {
        Ok(self.ledger(target)?.progress(&target.branch))
    }

    /// Pushes everything now; false if some records are not pushed when the deadline is over. Those are
    /// pushed after the next start, if the data directory outlives the agent.
    pub async fn flush(&self, deadline: Duration) -> bool {
        let ledgers: Vec<Arc<Ledger>> =
            self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let all = async {
            for ledger in &ledgers {
                ledger.wake();
            }
            for ledger in &ledgers {
                ledger.settled().await;
            }
        };
        tokio::time::timeout(deadline, all).await.is_ok()
    }

    fn ledger(&self, target: &EvidenceTarget) -> Result<Arc<Ledger>, EvidenceError> {
        let invalid = |detail: String| EvidenceError::InvalidTarget { detail };
        if !git2::Reference::is_valid_name(&format!("refs/heads/{}", target.branch)) {
            return Err(invalid(format!("`{}` is no valid name of a branch", target.branch)));
        }
        let (url, embedded) =
            RepositoryUrl::parse(&target.url).map_err(|error| invalid(error.to_string()))?;
        let credentials = target.credentials.clone().or(embedded);
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = ledgers.get(&url) {
            // Tokens are renewed; the records that wait for a push must not be left behind.
            ledger.use_credentials(credentials).map_err(invalid)?;
            return Ok(Arc::clone(ledger));
        }
        let ledger = Ledger::start(&self.data_dir, url.clone(), credentials).map_err(invalid)?;
        ledgers.insert(url, Arc::clone(&ledger));
        Ok(ledger)
    }
}

/// The records of a branch in a repository on this machine, oldest first, each with the commit that
/// added it: the branch itself or, in a clone, that of `origin`.
///
/// # Errors
/// [`EvidenceError::NoBranch`], [`EvidenceError::Storage`], and [`EvidenceError::Altered`] for commits
/// that do anything but add one record. Whether the records form a chain is for `engine::audit` to say.
pub fn read(repository: &Path, branch: &str) -> Result<Vec<(String, Vec<u8>)>, EvidenceError> {
    let no_branch =
        || EvidenceError::NoBranch { branch: branch.to_owned(), path: repository.display().to_string() };
    let repository = Repository::open(repository)
        .map_err(|error| EvidenceError::Storage { detail: error.message().to_owned() })?;
    let tip = [format!("refs/heads/{branch}"), format!("refs/remotes/origin/{branch}")]
        .iter()
        .find_map(|name| repository.refname_to_id(name).ok())
        .ok_or_else(no_branch)?;
    chain::read(&repository, tip)
}
