//! The pauses between restarts of a container, and between looks for its image.

use std::time::Duration;

use jiff::Timestamp;

/// Kubelet's back-off: the first restart at once, then after 10 s, doubling to 5 minutes; 10 minutes of quiet
/// make it start anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    pause: Option<Duration>,
    updated: Option<Timestamp>,
}

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    /// How long to wait after a failure at `at`.
    pub fn next(&mut self, at: Timestamp) -> Duration {
        let quiet = self.updated.is_some_and(|updated| {
            at.as_second().saturating_sub(updated.as_second()) > 2 * LONGEST.as_secs() as i64
        });
        if quiet {
            self.pause = None;
        }
        let wait = self.pause.unwrap_or(Duration::ZERO);
        self.pause = Some(self.pause.map_or(FIRST, |pause| (pause * 2).min(LONGEST)));
        // Counted from the end of the wait, so that the wait itself is not taken for quiet.
        self.updated = at.checked_add(wait).ok();
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_minutes_and_start_anew_after_ten() {
        let mut backoff = Backoff::default();
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = backoff.next(now);
            pauses.push(pause.as_secs());
            now = now.checked_add(pause).unwrap();
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        now = now.checked_add(Duration::from_secs(601)).unwrap();
        assert_eq!(backoff.next(now).as_secs(), 0);
        assert_eq!(backoff.next(now).as_secs(), 10);
    }
}
