//! From started to drained: what the probes, the listener and the connections need to agree on.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Whether the shop is going away, and how busy it is.
#[derive(Debug)]
pub struct Lifecycle {
    draining: AtomicBool,
    drain_requested: Notify,
    connections: AtomicUsize,
    requests: AtomicUsize,
    last_activity: Mutex<Instant>,
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub struct Counted<'a> {
    lifecycle: &'a Lifecycle,
    counter: &'a AtomicUsize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::SeqCst);
        self.lifecycle.touch();
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            draining: AtomicBool::new(false),
            drain_requested: Notify::new(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            last_activity: Mutex::new(Instant::now()),
        }
    }
}

impl Lifecycle {
    /// Starts draining: `/ready` fails from now on and answers ask clients to close their connection.
    pub fn drain(&self) {
        if !self.draining.swap(true, Ordering::SeqCst) {
            self.touch();
            self.drain_requested.notify_waiters();
        }
    }

    /// Whether draining has started.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Requests being handled now.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Counts an open connection until the answer is dropped.
    pub fn connection(&self) -> Counted<'_> {
        self.count(&self.connections)
    }

    /// Counts a request in flight until the answer is dropped.
    pub fn request(&self) -> Counted<'_> {
        self.count(&self.requests)
    }

    fn count<'a>(&'a self, counter: &'a AtomicUsize) -> Counted<'a> {
        counter.fetch_add(1, Ordering::SeqCst);
        self.touch();
        Counted { lifecycle: self, counter }
    }

    fn touch(&self) {
        *self.last_activity.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn quiet_for(&self) -> Duration {
        self.last_activity.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Resolves when draining starts.
    pub async fn drain_started(&self) {
        loop {
            let requested = self.drain_requested.notified();
            if self.is_draining() {
                return;
            }
            requested.await;
        }
    }

    /// Resolves when the listener may be closed: `limit` after draining started, or already when no
    /// connection is open and none was for half of that time, which means that load balancers have noticed.
    pub async fn accepting_may_end(&self, limit: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        self.drain_started().await;
        let started = Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let unused = self.connections.load(Ordering::SeqCst) == 0 && self.quiet_for() >= limit / 2;
            if left.is_zero() || unused {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }
}
