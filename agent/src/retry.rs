//! The one retry policy of the agent: exponential backoff with jitter.

use std::time::Duration;

/// Delays that double from `base` to `max`, each shortened by up to half at random.
///
/// The jitter keeps a thousand environments from asking a Git server that comes back at the same
/// instant ("equal jitter": half of the delay is certain, the other half is drawn).
///
/// ```
/// use std::time::Duration;
/// let mut backoff = agent::retry::Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// let first = backoff.next_delay();
/// assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
/// assert_eq!(backoff.attempts(), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays from `base` up to `max`. A `max` below `base` counts as `base`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max: max.max(base), attempts: 0 }
    }

    /// Counts a failure and says how long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay_at(self.attempts, fastrand::f64());
        self.attempts = self.attempts.saturating_add(1);
        delay
    }

    /// The delay after `attempt` failures (0 for the first), with the random part given, from 0 to 1.
    pub fn delay_at(&self, attempt: u32, random: f64) -> Duration {
        let factor = 2u32.saturating_pow(attempt.min(31));
        let full = self.base.saturating_mul(factor).min(self.max);
        full / 2 + (full / 2).mul_f64(random.clamp(0.0, 1.0))
    }

    /// How many failures there were since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Counts a success: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_never_leave_their_half() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for (attempt, full) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 10), (31, 10), (u32::MAX, 10)] {
            assert_eq!(backoff.delay_at(attempt, 1.0), Duration::from_secs(full));
            assert_eq!(backoff.delay_at(attempt, 0.0), Duration::from_secs(full) / 2);
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for _ in 0..5 {
            backoff.next_delay();
        }
        assert_eq!(backoff.attempts(), 5);
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
