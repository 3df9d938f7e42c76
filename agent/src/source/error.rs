//! What can go wrong with a source.

use std::time::Duration;

use engine::rollout::SourceProblem;

/// Why a source gives no commit. The texts name the repository and the reference, never credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The address cannot be used.
    #[error("the repository address `{url}` cannot be used: {why}")]
    UnsupportedUrl {
        /// The address.
        url: String,
        /// Why not, and what to do.
        why: String,
    },
    /// There is no such repository.
    #[error(
        "there is no repository at {url}: {detail}; check the address, and whether the credentials may see it"
    )]
    RepositoryNotFound {
        /// The address.
        url: String,
        /// What was found instead.
        detail: String,
    },
    /// The repository has no commit yet.
    #[error("the repository {url} is empty; push a first commit to {reference}")]
    EmptyRepository {
        /// The address.
        url: String,
        /// What was asked for.
        reference: String,
    },
    /// The branch never existed, as far as this agent knows.
    #[error("the repository {url} has no branch `{branch}`; it has {others}")]
    BranchNotFound {
        /// The address.
        url: String,
        /// The branch.
        branch: String,
        /// Some branches that there are.
        others: String,
    },
    /// The branch was there before.
    #[error(
        "the branch `{branch}` of {url} is gone; it was at {last} before. What was deployed from it stays"
    )]
    BranchVanished {
        /// The address.
        url: String,
        /// The branch.
        branch: String,
        /// The commit that it was at.
        last: String,
    },
    /// No tag fits.
    #[error("no tag of {url} is a version that fits `{range}`; {detail}")]
    TagNotFound {
        /// The address.
        url: String,
        /// The range of versions.
        range: String,
        /// What there is.
        detail: String,
    },
    /// The commit is nowhere.
    #[error("the repository {url} has no commit {commit} on any of its branches and tags")]
    CommitNotFound {
        /// The address.
        url: String,
        /// The commit id.
        commit: String,
    },
    /// The wish itself makes no sense.
    #[error("`{reference}` cannot be looked for in {url}: {why}")]
    InvalidReference {
        /// The address.
        url: String,
        /// What was asked for.
        reference: String,
        /// Why not.
        why: String,
    },
    /// The server wants other credentials.
    #[error("{url} refuses the credentials ({detail}); check the secret of the source")]
    AuthenticationFailed {
        /// The address.
        url: String,
        /// The server's answer.
        detail: String,
    },
    /// The server did not answer in time.
    #[error("{url} did not answer within {} s; the fetch was cut off and is tried again", .after.as_secs_f32())]
    FetchTimedOut {
        /// The address.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// The server cannot be reached, or answers nonsense.
    #[error("fetching {url} failed: {detail}")]
    FetchFailed {
        /// The address.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The repository, or the local copy, has damaged or missing objects.
    #[error("the repository {url} is damaged: {detail}")]
    RepositoryCorrupted {
        /// The address.
        url: String,
        /// What is missing.
        detail: String,
    },
    /// The agent's own disk fails.
    #[error("the local mirror of {url} cannot be used: {detail}; check the agent's data directory")]
    MirrorFailed {
        /// The address.
        url: String,
        /// What happened.
        detail: String,
    },
    /// More than the agent is willing to hold.
    #[error("{url} is too large: {detail}")]
    SourceTooLarge {
        /// The address.
        url: String,
        /// The limit that was passed.
        detail: String,
    },
    /// A directory source cannot be read.
    #[error("the directory {path} cannot be read: {detail}")]
    DirectoryUnreadable {
        /// The directory.
        path: String,
        /// What happened.
        detail: String,
    },
}

impl SourceError {
    /// The reason as conditions and metrics have it: a word in CamelCase.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnsupportedUrl { .. } => "UnsupportedUrl",
            Self::RepositoryNotFound { .. } => "RepositoryNotFound",
            Self::EmptyRepository { .. } => "EmptyRepository",
            Self::BranchNotFound { .. } => "BranchNotFound",
            Self::BranchVanished { .. } => "BranchVanished",
            Self::TagNotFound { .. } => "TagNotFound",
            Self::CommitNotFound { .. } => "CommitNotFound",
            Self::InvalidReference { .. } => "InvalidReference",
            Self::AuthenticationFailed { .. } => "AuthenticationFailed",
            Self::FetchTimedOut { .. } => "FetchTimedOut",
            Self::FetchFailed { .. } => "FetchFailed",
            Self::RepositoryCorrupted { .. } => "RepositoryCorrupted",
            Self::MirrorFailed { .. } => "MirrorFailed",
            Self::SourceTooLarge { .. } => "SourceTooLarge",
            Self::DirectoryUnreadable { .. } => "DirectoryUnreadable",
        }
    }

    /// As the rollout's state machine takes it. The way to the commit is at fault, never a commit.
    pub fn problem(&self) -> SourceProblem {
        SourceProblem { reason: self.reason().to_owned(), message: self.to_string(), commit_at_fault: false }
    }
}
