//! A small traffic generator: what the shop's customers would have seen while all of this happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::http_client;

/// The response header in which the shop says which version answered.
pub const VERSION_HEADER: &str = "x-dhakacart-version";
/// A customer has no more patience than this.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Different reasons of failure that are told apart; a hostile peer must not fill memory.
const REASONS: usize = 32;

/// How much traffic, and where to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shop's address without a path, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// Paths to ask for in turn; at least one.
    pub paths: Vec<String>,
    /// Value of the `Host` header, if it is not the address's.
    pub host: Option<String>,
    /// Customers at the same time, each on a connection that is kept alive.
    pub workers: usize,
    /// Requests per second altogether.
    pub rate: u32,
}

/// What the customers saw, since the start or between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers and failures.
    pub requests: u64,
    /// Requests without a good answer: no answer, or a status other than 2xx and 3xx.
    pub failed: u64,
    /// Answers by status code.
    pub by_status: BTreeMap<u16, u64>,
    /// Answers by the version that gave them, and how many of those were failures.
    pub by_version: BTreeMap<String, Answers>,
    /// Failed requests by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Answers of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// All of them.
    pub requests: u64,
    /// Those with a status other than 2xx and 3xx.
    pub failed: u64,
}

impl Tally {
    /// What was counted after `earlier`, which must be a tally of the same generator.
    pub fn since(&self, earlier: &Self) -> Self {
        fn difference<K: Ord + Clone>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
            now.iter()
                .map(|(key, count)| (key.clone(), count.saturating_sub(*then.get(key).unwrap_or(&0))))
                .filter(|(_, count)| *count > 0)
                .collect()
        }
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failed: self.failed.saturating_sub(earlier.failed),
            by_status: difference(&self.by_status, &earlier.by_status),
            by_version: self
                .by_version
                .iter()
                .map(|(version, now)| {
                    let then = earlier.by_version.get(version).copied().unwrap_or_default();
                    let answers = Answers {
                        requests: now.requests.saturating_sub(then.requests),
                        failed: now.failed.saturating_sub(then.failed),
                    };
                    (version.clone(), answers)
                })
                .filter(|(_, answers)| answers.requests > 0)
                .collect(),
            reasons: difference(&self.reasons, &earlier.reasons),
        }
    }

    /// Share of all requests, between 0 and 1, that `version` answered.
    pub fn share_of(&self, version: &str) -> f64 {
        let answered = self.by_version.get(version).map_or(0, |answers| answers.requests);
        share(answered, self.requests)
    }

    fn count(&mut self, seen: Seen) {
        self.requests += 1;
        let failed = match seen {
            Seen::Answer { status, version } => {
                *self.by_status.entry(status).or_default() += 1;
                let failed = !(200..400).contains(&status);
                if self.by_version.len() < REASONS || self.by_version.contains_key(&version) {
                    let answers = self.by_version.entry(version.clone()).or_default();
                    answers.requests += 1;
                    answers.failed += u64::from(failed);
                }
                failed.then(|| format!("status {status} from version {version}"))
            }
            Seen::Nothing(reason) => Some(reason),
        };
        if let Some(reason) = failed {
            self.failed += 1;
            let known = self.reasons.len() < REASONS || self.reasons.contains_key(&reason);
            *self.reasons.entry(if known { reason } else { "other".to_owned() }).or_default() += 1;
        }
    }
}

/// `part` of `whole` between 0 and 1; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    // Counts of a demonstration fit a double exactly.
    #[allow(clippy::cast_precision_loss)]
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} failed",
            crate::print::grouped(self.requests),
            crate::print::grouped(self.failed)
        )?;
        if !self.reasons.is_empty() {
            let reasons: Vec<String> =
                self.reasons.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
            write!(f, " ({})", reasons.join(", "))?;
        }
        Ok(())
    }
}

/// The outcome of one request.
enum Seen {
    Answer { status: u16, version: String },
    Nothing(String),
}

/// Traffic in the background, until the value is dropped.
#[derive(Debug)]
pub struct Traffic {
    tally: Arc<Mutex<Tally>>,
    /// Good answers in a row, over all customers.
    streak: watch::Receiver<u64>,
    started: Instant,
    _workers: JoinSet<()>,
}

impl Traffic {
    /// Starts the customers.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be built.
    pub fn start(settings: &Settings) -> Result<Self, reqwest::Error> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let workers = settings.workers.max(1);
        let pause = Duration::from_secs(1)
            .checked_mul(u32::try_from(workers).unwrap_or(1))
            .map_or(Duration::from_secs(1), |second| second / settings.rate.max(1));
        let (streak, streaks) = watch::channel(0);
        let streak = Arc::new(streak);
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            // Each customer has a connection of its own, kept alive, as browsers do: a pod that drains
            // badly shows at once.
            let client = http_client::builder()
                .timeout(TIMEOUT)
                .pool_max_idle_per_host(1)
                .user_agent("holdfast-playground")
                .build()?;
            let seen = Record { tally: Arc::clone(&tally), streak: Arc::clone(&streak) };
            tasks.spawn(customer(client, settings.clone(), worker, pause, seen));
        }
        Ok(Self { tally, streak: streaks, started: Instant::now(), _workers: tasks })
    }

    /// Everything that was seen so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `answers` good answers came in a row, counted from now, and returns whether they did
    /// `within` the time.
    pub async fn flows(&self, answers: u64, within: Duration) -> bool {
        let mut streak = self.streak.clone();
        // Those from before do not count: a failure may be on its way.
        let mut base = *streak.borrow_and_update();
        let enough = streak.wait_for(|now| {
            base = base.min(*now);
            *now - base >= answers
        });
        tokio::time::timeout(within, enough).await.is_ok_and(|waited| waited.is_ok())
    }

    /// How long the customers have been at it.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Where a customer writes down what it saw.
struct Record {
    tally: Arc<Mutex<Tally>>,
    streak: Arc<watch::Sender<u64>>,
}

impl Record {
    fn count(&self, seen: Seen) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = tally.failed;
        tally.count(seen);
        let good = tally.failed == failed;
        // Under the lock, so that the order is that of the tally.
        self.streak.send_modify(|streak| *streak = if good { *streak + 1 } else { 0 });
    }
}

/// One customer asks for one path after the other, for ever.
async fn customer(client: Client, settings: Settings, worker: usize, pause: Duration, record: Record) {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for path in settings.paths.iter().cycle().skip(worker) {
        ticks.tick().await;
        let mut request = client.get(format!("{}{path}", settings.url));
        if let Some(host) = &settings.host {
            request = request.header(http::header::HOST, host);
        }
        record.count(ask(request).await);
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Seen {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Seen::Nothing(reason(&error)),
    };
    let status = response.status().as_u16();
    let version = response
        .headers()
        .get(VERSION_HEADER)
        .and_then(|value| value.to_str().ok())
        .map_or_else(|| "unknown".to_owned(), |version| version.chars().take(64).collect());
    // An answer that breaks off in its body is no answer.
    match response.bytes().await {
        Ok(_) => Seen::Answer { status, version },
        Err(error) => Seen::Nothing(reason(&error)),
    }
}

/// Why a request got no answer, without the address, which is the same for all.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer within 5 s".to_owned();
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, version: &str) -> Seen {
        Seen::Answer { status, version: version.to_owned() }
    }

    #[test]
    fn a_difference_holds_only_what_came_after() {
        let mut tally = Tally::default();
        tally.count(answer(200, "1"));
        tally.count(Seen::Nothing("refused".into()));
        let mark = tally.clone();
        tally.count(answer(200, "1"));
        tally.count(answer(503, "2"));
        tally.count(answer(304, "2"));
        let seen = tally.since(&mark);
        assert_eq!((seen.requests, seen.failed), (3, 1));
        assert_eq!(seen.by_status, BTreeMap::from([(200, 1), (304, 1), (503, 1)]));
        assert_eq!(seen.by_version["2"], Answers { requests: 2, failed: 1 });
        assert_eq!(seen.reasons, BTreeMap::from([("status 503 from version 2".to_owned(), 1)]));
        assert!((seen.share_of("2") - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(seen.to_string(), "3 requests, 1 failed (1 × status 503 from version 2)");
    }

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::default();
        for index in 0..1000 {
            tally.count(Seen::Nothing(format!("reason {index}")));
        }
        assert!(tally.reasons.len() <= REASONS + 1);
        assert_eq!(tally.reasons.values().sum::<u64>(), 1000);
    }

    #[tokio::test]
    async fn customers_count_answers_failures_and_refusals() {
        use std::sync::atomic::{AtomicU32, Ordering};
        use warp::Filter;

        let turn = Arc::new(AtomicU32::new(0));
        let route = warp::path("item").map(move || {
            let bad = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let status = if bad { 500 } else { 200 };
            warp::reply::with_header(
                warp::reply::with_status("", warp::http::StatusCode::from_u16(status).unwrap()),
                VERSION_HEADER,
                if bad { "bad" } else { "good" },
            )
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(warp::serve(route).incoming(listener).run());
        let settings = Settings { url, paths: vec!["/item".into()], host: None, workers: 2, rate: 500 };
        let traffic = Traffic::start(&settings).unwrap();
        let enough = async {
            loop {
                let tally = traffic.tally();
                if tally.requests >= 20 {
                    return tally;
                }
                tokio::task::yield_now().await;
            }
        };
        let tally = tokio::time::timeout(Duration::from_secs(10), enough).await.unwrap();
        assert_eq!(tally.failed, tally.by_version["bad"].failed);
        assert_eq!(tally.by_version["good"].failed, 0);
        assert_eq!(tally.by_status[&200] + tally.by_status[&500], tally.requests);
    }

    #[tokio::test]
    async fn traffic_flows_once_enough_good_answers_came_in_a_row() {
        use std::sync::atomic::{AtomicU32, Ordering};
        use warp::Filter;

        let turn = Arc::new(AtomicU32::new(0));
        let route = warp::any().map(move || {
            let bad = turn.fetch_add(1, Ordering::Relaxed) < 30;
            let status = if bad { warp::http::StatusCode::BAD_GATEWAY } else { warp::http::StatusCode::OK };
            warp::reply::with_status("", status)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(warp::serve(route).incoming(listener).run());
        let settings = Settings { url, paths: vec!["/".into()], host: None, workers: 2, rate: 500 };
        let traffic = Traffic::start(&settings).unwrap();
        assert!(traffic.flows(10, Duration::from_secs(10)).await);
        let tally = traffic.tally();
        assert_eq!(tally.failed, 30);
        assert!(tally.requests >= 40);
        assert!(!traffic.flows(u64::MAX, Duration::from_millis(1)).await);
    }
}
