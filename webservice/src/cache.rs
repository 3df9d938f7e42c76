//! Answers about the catalogue, kept for a moment.
//!
//! During a sale most requests ask for the same few pages of products. Each is asked of the database once in
//! `CATALOGUE_CACHE_MS` at most, and its JSON, compressed form and entity tag are made once. A change made through
//! this process empties the cache at once; one made through another replica shows after that time at the latest.
//! Only what is listed can be that old: single products, carts and orders always come from the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::encode::Encoded;

/// Different questions remembered at once; past it all are forgotten, which costs one query each.
const MOST_ENTRIES: usize = 1000;

#[derive(Debug, Clone)]
struct Kept {
    body: Arc<Encoded>,
    generation: u64,
    at: Instant,
}

// Whoever holds the lock asks the database; the others wait for its answer.
type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

/// Answers by question.
#[derive(Debug)]
pub struct Cache {
    time: Duration,
    generation: AtomicU64,
    slots: Mutex<HashMap<String, Slot>>,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Cache,
    /// The database.
    Database,
}

impl Cache {
    /// A cache that keeps answers for `time`; zero keeps none.
    pub fn new(time: Duration) -> Self {
        Self { time, generation: AtomicU64::new(0), slots: Mutex::default() }
    }

    /// Makes everything out of date.
    pub fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The answer to `question`, made by `ask` if there is no current one.
    ///
    /// # Errors
    /// What `ask` gives; failures are not kept.
    pub async fn get<E>(
        &self,
        question: &str,
        ask: impl Future<Output = Result<Encoded, E>>,
    ) -> Result<(Arc<Encoded>, Source), E> {
        if self.time.is_zero() {
            return Ok((Arc::new(ask.await?), Source::Database));
        }
        let slot = self.slot(question);
        let mut kept = slot.lock().await;
        // Read before asking: a change during the query makes its answer out of date.
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(kept) = kept.as_ref()
            && kept.generation == generation
            && kept.at.elapsed() < self.time
        {
            return Ok((Arc::clone(&kept.body), Source::Cache));
        }
        let at = Instant::now();
        let body = Arc::new(ask.await?);
        *kept = Some(Kept { body: Arc::clone(&body), generation, at });
        Ok((body, Source::Database))
    }

    fn slot(&self, question: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(question) {
            return Arc::clone(slot);
        }
        if slots.len() >= MOST_ENTRIES {
            slots.clear();
        }
        Arc::clone(slots.entry(question.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    async fn ask(cache: &Cache, question: &str, asked: &AtomicU64) -> Source {
        let answer = cache.get(question, async {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Encoded::new("body".into()))
        });
        answer.await.unwrap().1
    }

    #[tokio::test]
    async fn a_change_is_seen_at_once_and_time_passes_otherwise() {
        let (cache, asked) = (Cache::new(Duration::from_secs(60)), AtomicU64::new(0));
        assert_eq!(ask(&cache, "a", &asked).await, Source::Database);
        assert_eq!(ask(&cache, "a", &asked).await, Source::Cache);
        assert_eq!(ask(&cache, "b", &asked).await, Source::Database);
        cache.clear();
        assert_eq!(ask(&cache, "a", &asked).await, Source::Database);
        let short = Cache::new(Duration::from_nanos(1));
        ask(&short, "a", &asked).await;
        assert_eq!(ask(&short, "a", &asked).await, Source::Database);
        let none = Cache::new(Duration::ZERO);
        ask(&none, "a", &asked).await;
        assert_eq!(ask(&none, "a", &asked).await, Source::Database);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cause_one_query() {
        let (cache, asked) = (Arc::new(Cache::new(Duration::from_secs(60))), Arc::new(AtomicU64::new(0)));
        let all = (0..50).map(|_| {
            let (cache, asked) = (Arc::clone(&cache), Arc::clone(&asked));
            tokio::spawn(async move {
                let answer = cache.get("q", async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Encoded::new("body".into()))
                });
                answer.await.unwrap();
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn questions_are_bounded_and_failures_are_not_kept() {
        let (cache, asked) = (Cache::new(Duration::from_secs(60)), AtomicU64::new(0));
        for index in 0..(MOST_ENTRIES + 10) {
            ask(&cache, &index.to_string(), &asked).await;
        }
        assert!(cache.slots.lock().unwrap().len() <= MOST_ENTRIES);
        assert!(cache.get("f", async { Err::<Encoded, _>("no") }).await.is_err());
        assert_eq!(ask(&cache, "f", &asked).await, Source::Database);
    }
}
