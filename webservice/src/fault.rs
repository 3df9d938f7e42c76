//! The fault switch: failures on purpose, so that rollbacks can be shown and tested.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Faults;

/// Decides which API requests fail.
///
/// Failures are spread evenly instead of drawn at random: of any 100 consecutive requests exactly
/// `error_percent` fail (rounded), so a demonstration and a test see what was asked for.
#[derive(Debug)]
pub struct FaultSwitch {
    faults: Faults,
    requests: AtomicU64,
}

impl FaultSwitch {
    /// A switch set to `faults`.
    pub fn new(faults: Faults) -> Self {
        Self { faults, requests: AtomicU64::new(0) }
    }

    /// How long the next request is held up.
    pub fn latency(&self) -> Option<Duration> {
        (!self.faults.latency.is_zero()).then_some(self.faults.latency)
    }

    /// Counts a request and says whether it fails.
    pub fn fails(&self) -> bool {
        if self.faults.error_percent <= 0.0 {
            return false;
        }
        // The n-th request fails when the running total of shares passes the next whole number.
        let before = self.requests.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        let due = |n: u64| (n as f64 * self.faults.error_percent / 100.0 + 1e-9).floor();
        due(before + 1) > due(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(percent: f64, requests: usize) -> usize {
        let switch = FaultSwitch::new(Faults { error_percent: percent, latency: Duration::ZERO });
        (0..requests).filter(|_| switch.fails()).count()
    }

    #[test]
    fn exactly_the_asked_share_fails() {
        assert_eq!(failures(0.0, 1000), 0);
        assert_eq!(failures(0.5, 1000), 5);
        assert_eq!(failures(30.0, 1000), 300);
        assert_eq!(failures(33.3, 1000), 333);
        assert_eq!(failures(100.0, 1000), 1000);
    }

    #[test]
    fn failures_are_spread_evenly() {
        let switch = FaultSwitch::new(Faults { error_percent: 50.0, latency: Duration::ZERO });
        let answers: Vec<bool> = (0..6).map(|_| switch.fails()).collect();
        assert_eq!(answers, [false, true, false, true, false, true]);
    }

    #[test]
    fn off_by_default() {
        let switch = FaultSwitch::new(Faults::default());
        assert!(!switch.fails());
        assert_eq!(switch.latency(), None);
    }
}
