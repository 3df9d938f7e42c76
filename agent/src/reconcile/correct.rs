//! How eagerly drift is corrected: at once, unless that does not help.

use std::time::{Duration, Instant};

use crate::retry::Backoff;

/// More corrections than this within about a minute are a fight with another writer.
const FIGHT: f64 = 10.0;
/// How long the agent leaves the field to its opponent in a fight.
const TRUCE: Duration = Duration::from_secs(30);

/// What is known of the corrections of one environment.
#[derive(Debug)]
pub struct Corrections {
    failures: Backoff,
    /// Corrections per minute, exponentially decayed.
    rate: f64,
    last: Option<Instant>,
    not_before: Option<Instant>,
}

impl Default for Corrections {
    fn default() -> Self {
        Self {
            failures: Backoff::new(Duration::from_secs(2), Duration::from_secs(60)),
            rate: 0.0,
            last: None,
            not_before: None,
        }
    }
}

impl Corrections {
    /// Whether drift may be corrected now.
    pub fn allowed(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// A correction failed, or changed nothing: when to look again.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let delay = self.failures.next_delay();
        self.not_before = Some(now + delay);
        delay
    }

    /// A correction changed something. In a fight: when to look again.
    pub fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.failures.reset();
        let since = self.last.map_or(f64::INFINITY, |last| now.duration_since(last).as_secs_f64());
        self.rate = self.rate * (-since / 60.0).exp() + 1.0;
        self.last = Some(now);
        let fight = self.rate > FIGHT;
        self.not_before = fight.then(|| now + TRUCE);
        fight.then_some(TRUCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_now_and_then_is_made_at_once_and_a_fight_is_not() {
        let mut corrections = Corrections::default();
        let mut now = Instant::now();
        for _ in 0..50 {
            assert_eq!(corrections.succeeded(now), None);
            assert!(corrections.allowed(now));
            now += Duration::from_secs(30);
        }
        let mut quick = 0;
        while corrections.succeeded(now).is_none() {
            quick += 1;
            now += Duration::from_millis(100);
            assert!(quick < 20, "a fight must be noticed");
        }
        assert!(!corrections.allowed(now) && corrections.allowed(now + TRUCE));
    }

    #[test]
    fn what_fails_is_tried_with_growing_pauses() {
        let mut corrections = Corrections::default();
        let now = Instant::now();
        let first = corrections.failed(now);
        assert!(!corrections.allowed(now) && corrections.allowed(now + first));
        for _ in 0..10 {
            corrections.failed(now);
        }
        assert!(corrections.failed(now) >= Duration::from_secs(30));
    }
}
