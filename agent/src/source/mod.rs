//! Sources: Git repositories and directories, watched and mirrored.
//!
//! Environments subscribe to a reference of a repository. There is one task and one bare mirror per
//! repository, whatever the number of environments that read it; files are read straight from the
//! mirror's object database, so there is no checkout that a path or a symbolic link could escape from.
//! A source that fails changes nothing: subscribers keep the last snapshot and learn what is wrong.

mod compact;
mod credentials;
mod dir_tree;
mod directory;
mod error;
mod git_tree;
mod mirror;
mod reference;
mod transport;
mod url;
mod watch;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::rollout::{Revision, SourceProblem};
use tokio::sync::{mpsc, watch as channel};

pub use credentials::{Auth, Credentials, CredentialsError};
pub use dir_tree::DirTree;
pub use engine::kustomize::Tree;
pub use error::SourceError;
pub use git_tree::GitTree;
pub use reference::Reference;
pub(crate) use transport::{HttpContext, HttpFailure, HttpTimeouts, chain, http_client};
pub use url::{RepositoryUrl, Transport};
use worker::{Request, Retirement, Subscription, Worker, directory_of};

/// Told of every fetch: the repository, how long it took, and what went wrong.
pub type FetchObserver = Arc<dyn Fn(&RepositoryUrl, Duration, Option<&SourceError>) + Send + Sync>;

/// Where mirrors live and how patient the agent is with Git servers.
#[derive(Clone)]
pub struct SourcesConfig {
    /// The agent's data directory; mirrors are in `mirrors/` below it.
    pub data_dir: PathBuf,
    /// How long one fetch may take altogether. Default: 60 s.
    pub timeout: Duration,
    /// How long connecting may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long a server may be silent within a fetch. Default: 30 s.
    pub read_timeout: Duration,
    /// How long to wait after a first failure. Default: 1 s.
    pub retry_first: Duration,
    /// How long to wait between attempts at most. Default: 60 s.
    pub retry_last: Duration,
    /// The most bytes that one fetch may transfer. Default: 1 GiB.
    pub max_fetch_bytes: u64,
    /// Whether repositories and directories of this machine are watched. Default: yes. Without it they are
    /// polled, at least every 2 s: for file systems that report no changes, such as NFS.
    pub watch: bool,
    /// Told of every fetch, for metrics. Default: nobody.
    pub observer: FetchObserver,
}

impl SourcesConfig {
    /// The defaults, with mirrors in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retry_first: Duration::from_secs(1),
            retry_last: Duration::from_secs(60),
            max_fetch_bytes: 1 << 30,
            watch: true,
            observer: Arc::new(|_, _, _| {}),
        }
    }
}

/// What an environment reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// The repository: `https://`, `http://`, `git://`, `file://` or a path.
    pub url: String,
    /// What is followed in it.
    pub reference: Reference,
    /// How often the repository is asked, at least; 100 ms is the shortest. Repositories on this machine
    /// are watched besides, so that a push is seen at once.
    pub interval: Duration,
    /// What the server is shown. Takes precedence over a user and password inside the URL.
    pub credentials: Option<Credentials>,
}

/// One commit, ready to be read.
#[derive(Clone)]
pub struct Snapshot {
    /// Which commit.
    pub revision: Revision,
    /// Its files.
    pub tree: Arc<dyn Tree + Send + Sync>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.revision.short()).finish()
    }
}

/// Snapshots are equal if their revisions are: a commit determines its files.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

/// What a source gives now.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceState {
    /// Nothing was heard yet.
    Pending,
    /// The newest commit.
    Ready(Snapshot),
    /// Nothing usable.
    Failed {
        /// What is wrong.
        problem: SourceProblem,
        /// What it gave before, perhaps before the agent was restarted.
        last: Option<Snapshot>,
    },
}

impl SourceState {
    /// The newest snapshot that is known, whatever happened since.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Pending => None,
            Self::Ready(snapshot) => Some(snapshot),
            Self::Failed { last, .. } => last.as_ref(),
        }
    }
}

/// A repository as one set of credentials sees it. The fingerprint stands for the credentials.
type Key = (RepositoryUrl, String);

struct Repository {
    requests: mpsc::UnboundedSender<Request>,
    identity: String,
}

#[derive(Default)]
struct Registry {
    repositories: HashMap<Key, Repository>,
    directories: HashMap<PathBuf, directory::Handle>,
    /// One lock per mirror directory. Few and small, so they stay.
    writing: HashMap<PathBuf, Arc<Mutex<()>>>,
}

/// All sources of the agent. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Sources {
    config: Arc<SourcesConfig>,
    registry: Arc<Mutex<Registry>>,
}

impl Sources {
    /// No sources yet.
    pub fn new(config: SourcesConfig) -> Self {
        Self { config: Arc::new(config), registry: Arc::default() }
    }

    /// Follows a reference. The receiver is told of every change, and dropping it ends the
    /// subscription; a repository that nobody subscribes to any more is left alone.
    ///
    /// Must be called inside a tokio runtime.
    pub fn subscribe(&self, spec: SourceSpec) -> channel::Receiver<SourceState> {
        let (sender, receiver) = channel::channel(SourceState::Pending);
        let (url, embedded) = match RepositoryUrl::parse(&spec.url) {
            Ok(parsed) => parsed,
            Err(error) => {
                worker::set(&sender, Err((error, None)));
                return receiver;
            }
        };
        let credentials = spec.credentials.or(embedded);
        let key = (url, Credentials::fingerprint(credentials.as_ref()));
        let subscription = Subscription { reference: spec.reference, interval: spec.interval, sender };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let request = match registry.repositories.get(&key) {
            Some(repository) => match repository.requests.send(Request::Subscribe(subscription)) {
                Ok(()) => return receiver,
                Err(returned) => returned.0,
            },
            None => Request::Subscribe(subscription),
        };
        let (requests, queue) = mpsc::unbounded_channel();
        // The queue is in hand, so this cannot fail.
        let _ = requests.send(request);
        let writing = registry.writing.entry(directory_of(&self.config, &key.0)).or_default();
        let worker = Worker {
            url: key.0.clone(),
            credentials,
            config: Arc::clone(&self.config),
            requests: queue,
            writing: Arc::clone(writing),
            retire: self.retirement(key.clone()),
        };
        let identity = key.0.identity();
        registry.repositories.insert(key, Repository { requests, identity });
        tokio::spawn(worker.run());
        receiver
    }

    /// Follows a directory of this machine instead of a repository: the inner loop of an author.
    ///
    /// Must be called inside a tokio runtime.
    pub fn subscribe_directory(&self, path: &Path) -> channel::Receiver<SourceState> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = registry.directories.get(path).and_then(directory::Handle::subscribe) {
            return receiver;
        }
        let (handle, receiver) = directory::start(path.to_path_buf(), Arc::clone(&self.config));
        registry.directories.insert(path.to_path_buf(), handle);
        receiver
    }

    /// Fetches now what the address means, or everything, and says how many repositories and
    /// directories that are. For webhooks: any spelling of the address will do.
    pub fn poke(&self, url: Option<&str>) -> usize {
        let identity = url.map(url::identity);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let repositories = registry
            .repositories
            .values()
            .filter(|repository| identity.as_ref().is_none_or(|identity| *identity == repository.identity))
            .filter(|repository| repository.requests.send(Request::Poke).is_ok())
            .count();
        let directories = match identity {
            None => registry.directories.values().filter(|handle| handle.poke()).count(),
            Some(_) => 0,
        };
        repositories + directories
    }

    /// Takes a repository out of the list when its task ends, under the lock that subscribing takes, so
    /// that no subscription is sent to a task that is about to end.
    fn retirement(&self, key: Key) -> Retirement {
        let registry = Arc::downgrade(&self.registry);
        Box::new(move |queue| {
            let Some(registry) = registry.upgrade() else { return true };
            let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = queue.is_empty();
            if idle {
                registry.repositories.remove(&key);
            }
            idle
        })
    }
}
