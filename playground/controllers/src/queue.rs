//! The work queue of one controller: keys that need a look, each at most once and by one worker at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::Error;

/// What a reconciliation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Settled,
    /// Time alone will change the decision: look again after this long.
    Again(Duration),
}

impl Outcome {
    /// The earlier of this and another reason to look again.
    pub fn or_after(self, other: Option<Duration>) -> Outcome {
        match (self, other) {
            (Outcome::Settled, None) => Outcome::Settled,
            (Outcome::Settled, Some(after)) => Outcome::Again(after),
            (Outcome::Again(after), None) => Outcome::Again(after),
            (Outcome::Again(a), Some(b)) => Outcome::Again(a.min(b)),
        }
    }
}

/// A queue of keys. A key added while it is worked on is handed out again afterwards.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    filled: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    active: HashSet<K>,
    timers: HashMap<K, AbortHandle>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                queued: HashSet::new(),
                active: HashSet::new(),
                timers: HashMap::new(),
                failures: HashMap::new(),
            }),
            filled: Notify::new(),
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl<K: Clone + Debug + Eq + Hash + Send + Sync + 'static> Queue<K> {
    /// Asks for a look at `key`.
    pub fn add(&self, key: K) {
        {
            let mut state = self.lock();
            if !state.queued.insert(key.clone()) || state.active.contains(&key) {
                return;
            }
            state.ready.push_back(key);
        }
        self.filled.notify_one();
    }

    async fn next(&self) -> K {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.active.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.filled.notify_one();
                    }
                    return key;
                }
            }
            filled.await;
        }
    }

    fn done(self: &Arc<Self>, key: K, result: Result<Outcome, Error>) {
        let pause = match result {
            Ok(outcome) => {
                self.lock().failures.remove(&key);
                match outcome {
                    Outcome::Settled => None,
                    Outcome::Again(after) => Some(after),
                }
            }
            Err(error) => {
                let mut state = self.lock();
                let failures = state.failures.entry(key.clone()).or_insert(0);
                let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LONGEST_PAUSE);
                *failures = failures.saturating_add(1);
                let often = *failures > 5;
                drop(state);
                if error.is_conflict() || !often {
                    tracing::debug!(?key, %error, "reconciliation is tried again");
                } else {
                    tracing::warn!(?key, %error, "reconciliation fails again and again");
                }
                Some(pause)
            }
        };
        let timer = pause.map(|pause| self.wake_later(key.clone(), pause));
        let mut state = self.lock();
        state.active.remove(&key);
        if state.queued.contains(&key) {
            state.ready.push_back(key.clone());
            self.filled.notify_one();
        }
        // Every look decides anew when time matters, so one timer per key is enough.
        let replaced = match timer {
            Some(timer) => state.timers.insert(key, timer),
            None => state.timers.remove(&key),
        };
        if let Some(replaced) = replaced {
            replaced.abort();
        }
    }

    fn wake_later(self: &Arc<Self>, key: K, pause: Duration) -> AbortHandle {
        let queue: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(queue) = queue.upgrade() {
                queue.add(key);
            }
        })
        .abort_handle()
    }

    /// Works on the queue until the future is dropped; run it several times for several workers.
    pub async fn work<F>(self: Arc<Self>, reconcile: impl Fn(K) -> F)
    where
        F: Future<Output = Result<Outcome, Error>>,
    {
        loop {
            let key = self.next().await;
            let result = reconcile(key.clone()).await;
            self.done(key, result);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Drop for Queue<K> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for timer in state.timers.values() {
            timer.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_handed_out_once_and_again_if_it_changed_meanwhile() {
        let queue = Arc::new(Queue::<&str>::default());
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.lock().ready.is_empty(), "a is being worked on");
        queue.done("a", Ok(Outcome::Settled));
        assert_eq!(queue.next().await, "a");
        queue.done("a", Ok(Outcome::Settled));
        assert!(queue.lock().ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_wakes_and_a_newer_decision_replaces_it() {
        let queue = Arc::new(Queue::<&str>::default());
        queue.add("a");
        let key = queue.next().await;
        queue.done(key, Ok(Outcome::Again(Duration::from_secs(60))));
        queue.add("a");
        let key = queue.next().await;
        let start = tokio::time::Instant::now();
        queue.done(key, Ok(Outcome::Again(Duration::from_secs(5))));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
