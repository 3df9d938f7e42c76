//! The local copy of a repository: a bare mirror, updated by fetches, read by trees.
//!
//! Everything here blocks; callers run it on a blocking thread.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::rollout::Revision;
use git2::{AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, RemoteCallbacks, Repository};
use sha2::{Digest as _, Sha256};

use super::compact::compact;
use super::git_tree::{GitTree, Objects};
use super::reference::choose_tag;
use super::transport::{HttpContext, HttpFailure};
use super::url::{RepositoryUrl, Transport};
use super::{Credentials, Reference, Snapshot, SourceError};

/// How many packs of fetches are kept before they are put into one.
const PACKS: usize = 32;

/// What the remote repository has, by full name of the reference; annotated tags are peeled.
type Advertised = BTreeMap<String, Oid>;

/// A bare mirror of one repository, seen with one set of credentials.
///
/// Mirrors of one address share their directory, and so their objects; the references that a set of
/// credentials was shown live in a namespace of its own, so that nobody is given a commit that only
/// somebody else may read.
pub(crate) struct Mirror {
    url: RepositoryUrl,
    path: PathBuf,
    namespace: String,
    objects: Arc<Objects>,
    /// What was resolved last, so that an unchanged commit gives the very same snapshot.
    resolved: HashMap<Reference, Snapshot>,
}

/// What became of one reference that was asked for.
pub(crate) type Resolved = (Reference, Result<Snapshot, SourceError>);

/// The limits of one fetch.
#[derive(Clone)]
pub(crate) struct Limits {
    /// When it is cut off.
    pub(crate) deadline: Instant,
    /// How long that was in the beginning, for the error's text.
    pub(crate) timeout: Duration,
    /// The most bytes that one fetch may transfer.
    pub(crate) max_bytes: u64,
}

impl Mirror {
    /// Where the mirror of a repository lives: a readable part, and a hash that makes it unique.
    pub(crate) fn directory(root: &Path, url: &RepositoryUrl) -> PathBuf {
        let address = url.to_string();
        let hash: String =
            Sha256::digest(&address).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let name: String = address
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".git")
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
            .take(40)
            .collect();
        root.join("mirrors").join(format!("{name}-{hash}.git"))
    }

    /// Opens the mirror, or makes an empty one. One that cannot be opened is made anew: it is a copy.
    pub(crate) fn open(
        root: &Path,
        url: RepositoryUrl,
        credentials: Option<&Credentials>,
    ) -> Result<Self, SourceError> {
        let path = Self::directory(root, &url);
        let repository = Repository::open_bare(&path).or_else(|_| create(&path)).map_err(|error| {
            SourceError::MirrorFailed { url: url.to_string(), detail: error.message().to_owned() }
        })?;
        Ok(Self {
            namespace: format!("refs/holdfast/{}", Credentials::fingerprint(credentials)),
            objects: Arc::new(Objects::new(repository)),
            resolved: HashMap::new(),
            url,
            path,
        })
    }

    /// Fetches what is wanted and resolves it. A problem of the whole repository is everybody's.
    pub(crate) fn fetch(
        &mut self,
        wanted: &[Reference],
        http: &HttpContext,
        limits: &Limits,
    ) -> Result<Vec<Resolved>, SourceError> {
        match self.fetch_once(wanted, http, limits) {
            Err(SourceError::RepositoryCorrupted { detail, .. }) if self.local_copy_is_damaged() => {
                tracing::warn!(url = %self.url, detail, "the local mirror is damaged and is fetched anew");
                self.renew()?;
                self.fetch_once(wanted, http, limits)
            }
            result => result,
        }
    }

    fn fetch_once(
        &mut self,
        wanted: &[Reference],
        http: &HttpContext,
        limits: &Limits,
    ) -> Result<Vec<Resolved>, SourceError> {
        self.check_local_source()?;
        // A handle of its own, so that readers are not held up by the network.
        let repository = Repository::open_bare(&self.path).map_err(|error| self.mirror_failed(&error))?;
        let (advertised, failure) = http.scope(|| self.download(&repository, wanted, limits));
        let advertised = advertised.map_err(|error| match error {
            Download::Refused(problem) => problem,
            Download::Git(error) => self.explain(&error, failure, limits),
        })?;
        let resolved = wanted
            .iter()
            .map(|reference| match self.resolve(&repository, reference, &advertised) {
                Err(problem @ SourceError::RepositoryCorrupted { .. }) => Err(problem),
                result => Ok((reference.clone(), result)),
            })
            .collect();
        if let Err(error) = compact(&self.path, PACKS) {
            tracing::warn!(url = %self.url, %error, "the packs of the mirror could not be put together");
        }
        resolved
    }

    /// Lists the remote's references and downloads what is missing.
    fn download(
        &self,
        repository: &Repository,
        wanted: &[Reference],
        limits: &Limits,
    ) -> Result<Advertised, Download> {
        let mut remote = repository.remote_anonymous(self.url.address())?;
        let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(limits)), None)?;
        let advertised = advertised(connection.list()?);
        let mut names: Vec<&str> = Vec::new();
        for reference in wanted {
            match reference {
                Reference::Commit(id) => {
                    let id = Oid::from_str(id)?;
                    if repository.find_commit(id).is_err() {
                        // Servers need not give a commit by its id, so everything is fetched.
                        names.extend(advertised.keys().map(String::as_str));
                    }
                }
                reference => names.extend(target(reference, &advertised)),
            }
        }
        let odb = repository.odb()?;
        names.retain(|name| advertised.get(*name).is_some_and(|id| !odb.exists(*id)));
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(advertised);
        }
        let specs: Vec<String> =
            names.iter().map(|name| format!("+{name}:{}", self.local_name(name))).collect();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks(limits))
            .download_tags(AutotagOption::None)
            .update_fetchhead(false);
        connection.remote().download(&specs, Some(&mut options))?;
        let transferred = u64::try_from(connection.remote().stats().received_bytes()).unwrap_or(u64::MAX);
        if transferred > limits.max_bytes {
            return Err(Download::Refused(self.too_large(limits)));
        }
        Ok(advertised)
    }

    /// Turns what the remote advertised into a snapshot, and remembers it for the next time.
    fn resolve(
        &mut self,
        repository: &Repository,
        reference: &Reference,
        advertised: &Advertised,
    ) -> Result<Snapshot, SourceError> {
        let url = self.url.to_string();
        reference.check().map_err(|why| SourceError::InvalidReference {
            url: url.clone(),
            reference: reference.to_string(),
            why,
        })?;
        let (id, name) = match (reference, target(reference, advertised)) {
            (Reference::Commit(text), _) => {
                let id = Oid::from_str(text).ok().filter(|id| repository.find_commit(*id).is_ok());
                let id = id.filter(|id| self.may_see(repository, *id, advertised));
                (id.ok_or(SourceError::CommitNotFound { url, commit: text.clone() })?, None)
            }
            (_, Some(name)) => (advertised[name], Some(name)),
            (_, None) => return Err(self.not_found(repository, reference, advertised)),
        };
        let (local, label) = match name {
            Some(name) => (self.local_name(name), short(name).to_owned()),
            None => (format!("{}/commits/{id}", self.namespace), String::new()),
        };
        let corrupted = |error: git2::Error| self.corrupted(&error);
        let before = repository.refname_to_id(&local).ok();
        let forced = match before {
            Some(before) if before != id => !repository.graph_descendant_of(id, before).unwrap_or(false),
            _ => false,
        };
        let snapshot = match self.resolved.get(reference) {
            Some(snapshot)
                if snapshot.revision.commit == id.to_string() && snapshot.revision.reference == label =>
            {
                snapshot.clone()
            }
            _ => self.snapshot(repository, id, label, forced).map_err(corrupted)?,
        };
        if before != Some(id) {
            repository.reference(&local, id, true, "fetch").map_err(|error| self.mirror_failed(&error))?;
        }
        self.resolved.insert(reference.clone(), snapshot.clone());
        Ok(snapshot)
    }

    /// What was fetched last, by this process or one before it: all there is while the remote is away.
    pub(crate) fn last(&self, reference: &Reference) -> Option<Snapshot> {
        if let Some(snapshot) = self.resolved.get(reference) {
            return Some(snapshot.clone());
        }
        let repository = Repository::open_bare(&self.path).ok()?;
        let (name, label) = match reference {
            Reference::Branch(branch) => (format!("{}/heads/{branch}", self.namespace), branch.clone()),
            Reference::Commit(id) => (format!("{}/commits/{id}", self.namespace), String::new()),
            Reference::Tag(range) => {
                let prefix = format!("{}/tags/", self.namespace);
                let mut tags = Vec::new();
                for tag in repository.references_glob(&format!("{prefix}*")).ok()?.flatten() {
                    tags.extend(
                        tag.name().ok().and_then(|name| Some(name.strip_prefix(&prefix)?.to_owned())),
                    );
                }
                let tag = choose_tag(range, tags.iter().map(String::as_str))?;
                (format!("{prefix}{tag}"), tag.to_owned())
            }
        };
        let id = repository.refname_to_id(&name).ok()?;
        self.snapshot(&repository, id, label, false).ok()
    }

    fn snapshot(
        &self,
        repository: &Repository,
        id: Oid,
        reference: String,
        forced: bool,
    ) -> Result<Snapshot, git2::Error> {
        let commit = repository.find_object(id, None)?.peel_to_commit()?;
        let tree = commit.tree()?;
        let author = commit.author();
        let subject = String::from_utf8_lossy(commit.message_bytes()).trim_start().lines().next().map(clip);
        let revision = Revision {
            commit: commit.id().to_string(),
            reference,
            tree: tree.id().to_string(),
            author: clip(&format!(
                "{} <{}>",
                String::from_utf8_lossy(author.name_bytes()),
                String::from_utf8_lossy(author.email_bytes())
            )),
            subject: subject.unwrap_or_default(),
            signer: None,
            forced,
        };
        Ok(Snapshot { revision, tree: Arc::new(GitTree::new(Arc::clone(&self.objects), tree.id())) })
    }

    fn local_name(&self, name: &str) -> String {
        format!("{}/{}", self.namespace, name.trim_start_matches("refs/"))
    }

    /// Whether a commit is reachable from something that the remote shows to these credentials.
    fn may_see(&self, repository: &Repository, id: Oid, advertised: &Advertised) -> bool {
        repository.refname_to_id(&format!("{}/commits/{id}", self.namespace)).is_ok()
            || advertised
                .values()
                .any(|tip| *tip == id || repository.graph_descendant_of(*tip, id).unwrap_or(false))
    }

    fn not_found(
        &self,
        repository: &Repository,
        reference: &Reference,
        advertised: &Advertised,
    ) -> SourceError {
        let url = self.url.to_string();
        if advertised.is_empty() {
            return SourceError::EmptyRepository { url, reference: reference.to_string() };
        }
        match reference {
            Reference::Branch(branch) => {
                match repository.refname_to_id(&format!("{}/heads/{branch}", self.namespace)) {
                    Ok(last) => {
                        let last = last.to_string();
                        SourceError::BranchVanished {
                            url,
                            branch: branch.clone(),
                            last: last[..12].to_owned(),
                        }
                    }
                    Err(_) => {
                        let others = some_names(advertised, "refs/heads/", "no branch at all");
                        SourceError::BranchNotFound { url, branch: branch.clone(), others }
                    }
                }
            }
            Reference::Tag(range) => {
                let detail = format!("it has {}", some_names(advertised, "refs/tags/", "no tag at all"));
                SourceError::TagNotFound { url, range: range.clone(), detail }
            }
            Reference::Commit(commit) => SourceError::CommitNotFound { url, commit: commit.clone() },
        }
    }

    /// Says precisely what is wrong with a local source; libgit2 would say "failed to resolve path".
    fn check_local_source(&self) -> Result<(), SourceError> {
        let Some(path) = self.url.local_path() else { return Ok(()) };
        let not_found =
            |detail: String| SourceError::RepositoryNotFound { url: self.url.to_string(), detail };
        match fs::metadata(path) {
            Err(error) => return Err(not_found(error.to_string())),
            Ok(metadata) if !metadata.is_dir() => return Err(not_found("that is a file".to_owned())),
            Ok(_) => {}
        }
        match Repository::open(path) {
            Ok(_) => Ok(()),
            Err(error) if error.code() == ErrorCode::NotFound => {
                Err(not_found("the directory is no Git repository".to_owned()))
            }
            Err(error) => Err(self.corrupted(&error)),
        }
    }

    fn explain(&self, error: &git2::Error, failure: Option<HttpFailure>, limits: &Limits) -> SourceError {
        let url = self.url.to_string();
        let timed_out = || SourceError::FetchTimedOut { url: self.url.to_string(), after: limits.timeout };
        match failure {
            Some(HttpFailure::Refused(status)) => {
                return SourceError::AuthenticationFailed { url, detail: format!("HTTP status {status}") };
            }
            Some(HttpFailure::NotFound) => {
                return SourceError::RepositoryNotFound { url, detail: "the server answers 404".to_owned() };
            }
            Some(HttpFailure::Status(status)) => {
                return SourceError::FetchFailed {
                    url,
                    detail: format!("the server answers with status {status}"),
                };
            }
            Some(HttpFailure::TimedOut) => return timed_out(),
            Some(HttpFailure::Network(detail) | HttpFailure::NotGit(detail)) => {
                return SourceError::FetchFailed { url, detail };
            }
            None => {}
        }
        let message = error.message();
        if Instant::now() >= limits.deadline
            || error.code() == ErrorCode::Timeout
            || message.contains("timed out")
        {
            return timed_out();
        }
        if error.code() == ErrorCode::User {
            return self.too_large(limits);
        }
        let remote_says_no = ["not exported", "not found", "no such repository", "does not exist"];
        if self.url.transport() == Transport::Git && remote_says_no.iter().any(|word| message.contains(word))
        {
            return SourceError::RepositoryNotFound { url, detail: message.to_owned() };
        }
        match error.class() {
            ErrorClass::Odb
            | ErrorClass::Object
            | ErrorClass::Zlib
            | ErrorClass::Indexer
            | ErrorClass::Reference
            | ErrorClass::Sha1 => self.corrupted(error),
            _ => SourceError::FetchFailed { url, detail: message.to_owned() },
        }
    }

    fn too_large(&self, limits: &Limits) -> SourceError {
        let detail = format!("a fetch would transfer more than {} MiB", limits.max_bytes >> 20);
        SourceError::SourceTooLarge { url: self.url.to_string(), detail }
    }

    fn corrupted(&self, error: &git2::Error) -> SourceError {
        SourceError::RepositoryCorrupted { url: self.url.to_string(), detail: error.message().to_owned() }
    }

    fn mirror_failed(&self, error: &git2::Error) -> SourceError {
        SourceError::MirrorFailed { url: self.url.to_string(), detail: error.message().to_owned() }
    }

    /// Whether it is the copy, not the source, that lost objects: some tip in it has no readable tree.
    fn local_copy_is_damaged(&self) -> bool {
        let Ok(repository) = Repository::open_bare(&self.path) else { return true };
        let Ok(references) = repository.references() else { return true };
        references.into_iter().any(|reference| {
            reference.is_err() || reference.is_ok_and(|reference| reference.peel_to_tree().is_err())
        })
    }

    fn renew(&mut self) -> Result<(), SourceError> {
        let repository = create(&self.path).map_err(|error| self.mirror_failed(&error))?;
        self.objects = Arc::new(Objects::new(repository));
        self.resolved.clear();
        Ok(())
    }
}

enum Download {
    Git(git2::Error),
    Refused(SourceError),
}

impl From<git2::Error> for Download {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

/// Makes an empty bare repository, in the place of whatever was there.
fn create(path: &Path) -> Result<Repository, git2::Error> {
    let failed = |error: std::io::Error| git2::Error::from_str(&format!("{}: {error}", path.display()));
    if path.exists() {
        fs::remove_dir_all(path).map_err(failed)?;
    }
    fs::create_dir_all(path).map_err(failed)?;
    let mut options = git2::RepositoryInitOptions::new();
    // No templates: hooks and the like of the machine have no place in a mirror.
    Repository::init_opts(path, options.bare(true).external_template(false))
}

/// Cuts a transfer off at the deadline or when it grows too large.
fn callbacks(limits: &Limits) -> RemoteCallbacks<'static> {
    let mut callbacks = RemoteCallbacks::new();
    let (deadline, max_bytes) = (limits.deadline, limits.max_bytes);
    callbacks.transfer_progress(move |progress| {
        let received = u64::try_from(progress.received_bytes()).unwrap_or(u64::MAX);
        Instant::now() < deadline && received <= max_bytes
    });
    callbacks.sideband_progress(move |_| Instant::now() < deadline);
    callbacks
}

fn advertised(heads: &[git2::RemoteHead<'_>]) -> Advertised {
    let mut references = Advertised::new();
    for head in heads {
        let name = head.name();
        if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
            continue;
        }
        match name.strip_suffix("^{}") {
            // The commit that an annotated tag stands for follows the tag itself.
            Some(tag) => references.insert(tag.to_owned(), head.oid()),
            None => references.insert(name.to_owned(), head.oid()),
        };
    }
    references
}

/// The full name of what a reference means now.
fn target<'a>(reference: &Reference, advertised: &'a Advertised) -> Option<&'a str> {
    match reference {
        Reference::Branch(branch) => {
            advertised.get_key_value(&format!("refs/heads/{branch}")).map(|(name, _)| name.as_str())
        }
        Reference::Tag(range) => {
            let tags: Vec<&str> =
                advertised.keys().filter_map(|name| name.strip_prefix("refs/tags/")).collect();
            let tag = choose_tag(range, tags.iter().copied())?;
            advertised.get_key_value(&format!("refs/tags/{tag}")).map(|(name, _)| name.as_str())
        }
        Reference::Commit(_) => None,
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
}

fn some_names(advertised: &Advertised, prefix: &str, none: &str) -> String {
    let mut names = advertised.keys().filter_map(|name| name.strip_prefix(prefix));
    let shown: Vec<&str> = names.by_ref().take(5).collect();
    match (shown.as_slice(), names.count()) {
        ([], _) => none.to_owned(),
        (shown, 0) => shown.join(", "),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// At most 200 characters, on one line: what a stranger writes into a commit ends up in messages.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
