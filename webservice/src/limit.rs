//! How much one client may ask: a token bucket for each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use crate::client::subscriber;
use crate::config::RateLimit;

/// Clients remembered at once. Past it, full buckets are forgotten; if none is, newcomers share one bucket.
const MOST_CLIENTS: usize = 50_000;

/// How rarely buckets that have filled up again are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Bucket of everybody for whom there is no room.
const OVERFLOW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

#[derive(Debug)]
struct Buckets {
    clients: HashMap<IpAddr, Bucket>,
    swept: Instant,
}

/// What a client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Whether this request may pass.
    pub granted: bool,
    limit: u32,
    remaining: u32,
    /// Seconds until the bucket is full, or until one request is possible if none is.
    reset: u64,
}

impl Allowance {
    /// Writes `RateLimit-*` (draft-ietf-httpapi-ratelimit-headers-07) and, on refusal, `Retry-After`.
    pub fn describe(&self, headers: &mut HeaderMap) {
        headers.insert("ratelimit-limit", HeaderValue::from(self.limit));
        headers.insert("ratelimit-remaining", HeaderValue::from(self.remaining));
        headers.insert("ratelimit-reset", HeaderValue::from(self.reset));
        if !self.granted {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(self.reset));
        }
    }
}

/// The buckets of all clients.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    buckets: Mutex<Buckets>,
}

impl Limiter {
    /// A limiter, or none if there is no limit.
    pub fn new(limit: RateLimit) -> Option<Self> {
        let buckets = Buckets { clients: HashMap::new(), swept: Instant::now() };
        (limit.per_second > 0.0).then(|| Self { limit, buckets: Mutex::new(buckets) })
    }

    /// Takes one request from the client's bucket.
    pub fn take(&self, client: IpAddr, now: Instant) -> Allowance {
        let RateLimit { per_second, burst } = self.limit;
        let full = f64::from(burst.max(1));
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + since * per_second).min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let client = subscriber(client);
        let crowded = buckets.clients.len() >= MOST_CLIENTS && !buckets.clients.contains_key(&client);
        if crowded || now.saturating_duration_since(buckets.swept) >= SWEEP_EVERY {
            buckets.clients.retain(|_, bucket| filled(bucket) < full);
            buckets.swept = now;
        }
        let room = buckets.clients.len() < MOST_CLIENTS || buckets.clients.contains_key(&client);
        let key = if room { client } else { OVERFLOW };
        let bucket = buckets.clients.entry(key).or_insert(Bucket { tokens: full, at: now });
        let tokens = filled(bucket);
        let granted = tokens >= 1.0;
        *bucket = Bucket { tokens: if granted { tokens - 1.0 } else { tokens }, at: now };
        let missing = if granted { full - bucket.tokens } else { 1.0 - bucket.tokens };
        Allowance {
            granted,
            limit: burst.max(1),
            remaining: bucket.tokens as u32,
            reset: (missing / per_second).ceil().max(1.0) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: f64, burst: u32) -> Limiter {
        Limiter::new(RateLimit { per_second, burst }).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = limiter(2.0, 3);
        let (client, start) = ("1.2.3.4".parse().unwrap(), Instant::now());
        let granted = |millis| limiter.take(client, start + Duration::from_millis(millis)).granted;
        assert_eq!([0, 0, 0, 0].map(granted), [true, true, true, false]);
        assert_eq!([400, 500, 600, 1000, 1000].map(granted), [false, true, false, true, false]);
        assert!(limiter.take("1.2.3.5".parse().unwrap(), start).granted, "another client has its own");
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limiter = limiter(0.5, 1);
        let (client, start) = ("1.2.3.4".parse().unwrap(), Instant::now());
        limiter.take(client, start);
        let refused = limiter.take(client, start);
        let mut headers = HeaderMap::new();
        refused.describe(&mut headers);
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["ratelimit-limit"], "1");
        assert_eq!(headers["ratelimit-remaining"], "0");
        assert!(limiter.take(client, start + Duration::from_secs(2)).granted);
    }

    #[test]
    fn memory_is_bounded_however_many_come() {
        let limiter = limiter(0.001, 1);
        let now = Instant::now();
        for index in 0..(MOST_CLIENTS as u32 + 100) {
            limiter.take(std::net::Ipv4Addr::from(index + 1).into(), now);
        }
        assert!(limiter.buckets.lock().unwrap().clients.len() <= MOST_CLIENTS + 1);
        assert!(!limiter.take("9.9.9.9".parse().unwrap(), now).granted, "newcomers share what is left");
    }

    #[test]
    fn no_limit_is_no_limiter() {
        assert!(Limiter::new(RateLimit { per_second: 0.0, burst: 0 }).is_none());
    }
}
