//! One task per repository: decides when to fetch, and tells the subscribers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mirror::{Limits, Mirror};
use super::transport::{HttpContext, HttpTimeouts, http_client};
use super::url::{RepositoryUrl, Transport};
use super::watch::ReferenceWatch;
use super::{Credentials, Reference, Snapshot, SourceError, SourceState, SourcesConfig};
use crate::retry::Backoff;

/// One subscriber.
pub(super) struct Subscription {
    pub(super) reference: Reference,
    pub(super) interval: Duration,
    pub(super) sender: watch::Sender<SourceState>,
}

/// What a repository's task is told.
pub(super) enum Request {
    Subscribe(Subscription),
    Poke,
}

/// Whether a task with this queue may end.
pub(super) type Retirement = Box<dyn Fn(&mpsc::UnboundedReceiver<Request>) -> bool + Send>;

/// The result of one fetch, for everyone who asked.
type Outcome = Vec<(Reference, Result<Snapshot, (SourceError, Option<Snapshot>)>)>;

/// The task of one repository, as one set of credentials sees it.
pub(super) struct Worker {
    pub(super) url: RepositoryUrl,
    pub(super) credentials: Option<Credentials>,
    pub(super) config: Arc<SourcesConfig>,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    /// Held while two mirrors that share a directory would write to it.
    pub(super) writing: Arc<Mutex<()>>,
    /// Takes the repository out of the list, unless a request came in meanwhile; says whether it did.
    pub(super) retire: Retirement,
}

/// How often a local repository is looked at if it cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(2);

impl Worker {
    pub(super) async fn run(mut self) {
        let mut subscriptions: Vec<Subscription> = Vec::new();
        let shared: Arc<Shared> = Arc::default();
        let mut backoff = Backoff::new(self.config.retry_first, self.config.retry_last);
        let bell = Arc::new(Notify::new());
        let mut references: Option<ReferenceWatch> = None;
        let mut due = Instant::now();
        // A fetch that runs, with the time at which it is given up; `None` after that, while its thread
        // has not come back yet.
        let mut running: Option<(JoinHandle<Outcome>, Option<Instant>)> = None;
        let mut again = false;
        loop {
            let cut_off = running.as_ref().and_then(|(_, cut_off)| *cut_off);
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    None => return,
                    Some(Request::Subscribe(subscription)) => {
                        subscriptions.push(subscription);
                        (due, again) = (Instant::now(), running.is_some());
                    }
                    Some(Request::Poke) => (due, again) = (Instant::now(), running.is_some()),
                },
                outcome = finished(&mut running), if running.is_some() => {
                    let given_up = running.take().is_some_and(|(_, cut_off)| cut_off.is_none());
                    // A result that comes after it was reported as late is as good as any other.
                    let wait = match tell(&mut subscriptions, outcome) {
                        true => {
                            backoff.reset();
                            self.interval(&subscriptions, references.is_some())
                        }
                        false => backoff.next_delay(),
                    };
                    due = if again || given_up { Instant::now() } else { Instant::now() + wait };
                    again = false;
                }
                () = sleep_until(cut_off) => {
                    if let Some((_, cut_off)) = &mut running {
                        *cut_off = None;
                    }
                    self.time_out(&mut subscriptions, &shared);
                    due = Instant::now() + backoff.next_delay();
                }
                () = bell.notified() => (due, again) = (Instant::now(), running.is_some()),
                () = tokio::time::sleep_until(due), if cut_off.is_none() => {
                    subscriptions.retain(|subscription| !subscription.sender.is_closed());
                    if subscriptions.is_empty() {
                        if (self.retire)(&self.requests) {
                            return;
                        }
                        // A subscription is in the queue and is taken first.
                        continue;
                    }
                    if running.is_some() {
                        // The thread of an earlier fetch still hangs; a second one would wait for it.
                        self.time_out(&mut subscriptions, &shared);
                        due = Instant::now() + backoff.next_delay();
                        continue;
                    }
                    self.watch(&mut references, &bell);
                    let wanted = wanted(&subscriptions);
                    running = Some((self.fetch(wanted, Arc::clone(&shared)), Some(Instant::now() + self.config.timeout)));
                }
            }
        }
    }

    fn interval(&self, subscriptions: &[Subscription], watched: bool) -> Duration {
        let shortest = subscriptions.iter().map(|subscription| subscription.interval).min();
        let interval = shortest.unwrap_or(Duration::from_secs(60)).max(Duration::from_millis(100));
        let interval = match self.url.local_path() {
            Some(_) if !watched => interval.min(UNWATCHED),
            _ => interval,
        };
        // Up to a tenth longer, so that many repositories of one server do not fall into step.
        interval + (interval / 10).mul_f64(fastrand::f64())
    }

    /// Begins, or begins anew, to watch a local repository.
    fn watch(&self, watch: &mut Option<ReferenceWatch>, bell: &Arc<Notify>) {
        let Some(path) = self.url.local_path().filter(|_| self.config.watch) else { return };
        if watch.as_ref().is_some_and(ReferenceWatch::is_current) {
            return;
        }
        *watch = match ReferenceWatch::new(path, Arc::clone(bell)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::debug!(url = %self.url, %error, "the repository cannot be watched yet and is polled");
                None
            }
        };
    }

    fn fetch(&self, wanted: Vec<Reference>, shared: Arc<Shared>) -> JoinHandle<Outcome> {
        let (url, credentials, config) =
            (self.url.clone(), self.credentials.clone(), Arc::clone(&self.config));
        let writing = Arc::clone(&self.writing);
        let runtime = tokio::runtime::Handle::current();
        let deadline = std::time::Instant::now() + config.timeout;
        tokio::task::spawn_blocking(move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            let started = std::time::Instant::now();
            let result = match &mut *open {
                Some(open) => Ok(open),
                None => Open::new(&url, credentials.as_ref(), &config).map(|new| open.insert(new)),
            };
            let result = result.and_then(|open| {
                shared.remember(&wanted, |reference| open.mirror.last(reference));
                let auth = credentials.as_ref().and_then(|credentials| credentials.auth.clone());
                let http = HttpContext::new(open.client.clone(), runtime, auth, deadline);
                let limits = Limits { deadline, timeout: config.timeout, max_bytes: config.max_fetch_bytes };
                open.mirror.fetch(&wanted, &http, &limits)
            });
            (config.observer)(&url, started.elapsed(), result.as_ref().err());
            let failed = |reference: Reference, error: SourceError| {
                let last = shared.known(&reference);
                (reference, Err((error, last)))
            };
            match result {
                Ok(results) => results
                    .into_iter()
                    .map(|(reference, result)| match result {
                        Ok(snapshot) => (reference, Ok(snapshot)),
                        Err(error) => failed(reference, error),
                    })
                    .collect(),
                Err(error) => wanted.into_iter().map(|reference| failed(reference, error.clone())).collect(),
            }
        })
    }

    fn time_out(&self, subscriptions: &mut [Subscription], shared: &Shared) {
        let error = SourceError::FetchTimedOut { url: self.url.to_string(), after: self.config.timeout };
        (self.config.observer)(&self.url, self.config.timeout, Some(&error));
        for subscription in subscriptions {
            set(&subscription.sender, Err((error.clone(), shared.known(&subscription.reference))));
        }
    }
}

/// What the task and the threads of its fetches have in common.
#[derive(Default)]
struct Shared {
    /// Held by the thread of a fetch for as long as that takes.
    open: Mutex<Option<Open>>,
    /// What the mirror gave before; readable while a fetch hangs.
    known: Mutex<HashMap<Reference, Snapshot>>,
}

impl Shared {
    fn known(&self, reference: &Reference) -> Option<Snapshot> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    fn remember(&self, wanted: &[Reference], last: impl Fn(&Reference) -> Option<Snapshot>) {
        let found: HashMap<Reference, Snapshot> =
            wanted.iter().filter_map(|reference| Some((reference.clone(), last(reference)?))).collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// A mirror that is ready for fetches.
struct Open {
    mirror: Mirror,
    /// Where the repository is reached by HTTP; kept, so that connections are.
    client: Option<reqwest::Client>,
}

impl Open {
    fn new(
        url: &RepositoryUrl,
        credentials: Option<&Credentials>,
        config: &SourcesConfig,
    ) -> Result<Self, SourceError> {
        let client = match url.transport() {
            Transport::Http => {
                let timeouts = HttpTimeouts { connect: config.connect_timeout, read: config.read_timeout };
                let client = http_client(credentials, timeouts)
                    .map_err(|detail| SourceError::FetchFailed { url: url.to_string(), detail })?;
                Some(client)
            }
            Transport::Local | Transport::Git => None,
        };
        Ok(Self { mirror: Mirror::open(&config.data_dir, url.clone(), credentials)?, client })
    }
}

/// Tells everyone what became of the fetch; whether all of it is well.
fn tell(subscriptions: &mut [Subscription], outcome: Outcome) -> bool {
    let mut well = true;
    for (reference, result) in outcome {
        well &= result.is_ok();
        for subscription in subscriptions.iter().filter(|subscription| subscription.reference == reference) {
            set(&subscription.sender, result.clone());
        }
    }
    well
}

/// Wakes the subscriber only if there is news for it.
pub(super) fn set(
    sender: &watch::Sender<SourceState>,
    result: Result<Snapshot, (SourceError, Option<Snapshot>)>,
) {
    sender.send_if_modified(|state| {
        let next = match result {
            Ok(snapshot) => SourceState::Ready(snapshot),
            Err((error, last)) => {
                let last = last.or_else(|| state.snapshot().cloned());
                SourceState::Failed { problem: error.problem(), last }
            }
        };
        let news = *state != next;
        if news {
            *state = next;
        }
        news
    });
}

fn wanted(subscriptions: &[Subscription]) -> Vec<Reference> {
    let mut wanted: Vec<Reference> =
        subscriptions.iter().map(|subscription| subscription.reference.clone()).collect();
    wanted.sort();
    wanted.dedup();
    wanted
}

async fn finished(running: &mut Option<(JoinHandle<Outcome>, Option<Instant>)>) -> Outcome {
    match running {
        Some((handle, _)) => handle.await.unwrap_or_else(|error| {
            // A bug; the subscribers keep what they have, and it is tried again.
            tracing::error!(%error, "a fetch broke off");
            Outcome::new()
        }),
        None => std::future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Where the mirrors of a data directory are.
pub(super) fn directory_of(config: &SourcesConfig, url: &RepositoryUrl) -> PathBuf {
    Mirror::directory(&config.data_dir, url)
}
