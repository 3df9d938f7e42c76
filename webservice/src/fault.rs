//! The fault switch: failures on purpose, so that rollbacks can be shown and tested.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Faults;
use crate::lifecycle::Lifecycle;

/// Decides which API requests fail, and how the process does.
///
/// Failures are spread evenly instead of drawn at random: of any 100 consecutive requests exactly
/// `error_percent` fail (rounded), so a demonstration and a test see what was asked for.
#[derive(Debug)]
pub struct FaultSwitch {
    faults: Faults,
    requests: AtomicU64,
    until_crash: AtomicU64,
}

/// How often the leak takes its next piece.
const LEAK_EVERY: Duration = Duration::from_millis(100);

impl FaultSwitch {
    /// A switch set to `faults`.
    pub fn new(faults: Faults) -> Self {
        Self { faults, requests: AtomicU64::new(0), until_crash: AtomicU64::new(faults.crash_after) }
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

    /// Counts a request and says whether it is the one at which the process ends.
    pub fn crashes(&self) -> bool {
        self.faults.crash_after > 0 && self.until_crash.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Bytes that the leak takes in each step until it has them all.
    fn leak_steps(&self) -> impl Iterator<Item = usize> + use<> {
        let per_step = (self.faults.leak_per_second as f64 * LEAK_EVERY.as_secs_f64()).ceil() as u64;
        let mut left = if per_step == 0 { 0 } else { self.faults.leak_most };
        std::iter::from_fn(move || {
            let step = per_step.min(left);
            left -= step;
            (step > 0).then_some(step as usize)
        })
    }

    /// Leaks for as long as the shop runs, if it is told to.
    pub async fn leak(&self, lifecycle: &Lifecycle) {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for step in self.leak_steps() {
            // Anything but zero, so that the pages are really there.
            kept.push(vec![0xD5; step]);
            tokio::select! {
                () = lifecycle.drain_started() => break,
                () = tokio::time::sleep(LEAK_EVERY) => {}
            }
        }
        if !kept.is_empty() {
            lifecycle.drain_started().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(percent: f64, requests: usize) -> usize {
        let switch = FaultSwitch::new(Faults { error_percent: percent, ..Faults::default() });
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
        let switch = FaultSwitch::new(Faults { error_percent: 50.0, ..Faults::default() });
        let answers: Vec<bool> = (0..6).map(|_| switch.fails()).collect();
        assert_eq!(answers, [false, true, false, true, false, true]);
    }

    #[test]
    fn off_by_default() {
        let switch = FaultSwitch::new(Faults::default());
        assert!(!switch.fails());
        assert_eq!(switch.latency(), None);
        assert!(!(0..10).any(|_| switch.crashes()));
        assert_eq!(switch.leak_steps().count(), 0);
    }

    #[test]
    fn the_crash_comes_with_the_last_request_allowed() {
        let switch = FaultSwitch::new(Faults { crash_after: 3, ..Faults::default() });
        let answers: Vec<bool> = (0..4).map(|_| switch.crashes()).collect();
        assert_eq!(answers, [false, false, true, false]);
    }

    #[test]
    fn the_leak_grows_at_its_rate_and_stops_at_its_cap() {
        let faults = Faults { leak_per_second: 1000, leak_most: 250, ..Faults::default() };
        let steps: Vec<usize> = FaultSwitch::new(faults).leak_steps().collect();
        assert_eq!(steps, [100, 100, 50]);
    }
}
