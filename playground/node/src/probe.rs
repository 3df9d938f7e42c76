//! When a probe runs and what its results mean. Pure; [`crate::prober`] does the asking.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// The timings of a probe with Kubernetes' defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    pub fn of(probe: &Probe) -> Timing {
        let number =
            |value: Option<i32>, default: u32| match value.and_then(|value| u32::try_from(value).ok()) {
                None | Some(0) => default,
                Some(value) => value,
            };
        let seconds =
            |value: Option<i32>, default: u32| Duration::from_secs(u64::from(number(value, default)));
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered as it should.
    Success,
    /// It answered otherwise, or too late; the message says how.
    Failure(String),
    /// Nobody listens yet.
    Refused(String),
}

/// The verdict over a series of answers.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    timing: Timing,
    passing: Option<bool>,
    last: Option<bool>,
    run: u32,
    /// Doubling pause of the eager phase; none once something has answered.
    eager: Option<Duration>,
}

const FIRST_EAGER: Duration = Duration::from_millis(5);

impl Verdict {
    /// Before the first answer. `eager` probes ask more often than their period until something listens at all:
    /// a program that needs 30 ms to listen is found after 35 ms and not after the first period. Such refusals
    /// count as failures only at the pace of the period.
    pub fn new(timing: Timing, eager: bool) -> Verdict {
        Verdict { timing, passing: None, last: None, run: 0, eager: eager.then_some(FIRST_EAGER) }
    }

    /// Counts an answer; returns the new verdict if it is decided or changed by it, and the pause before the next
    /// probe.
    pub fn record(&mut self, answer: &Answer) -> (Option<bool>, Duration) {
        if let (Answer::Refused(_), Some(pause)) = (answer, self.eager)
            && pause < self.timing.period
        {
            self.eager = Some(pause * 2);
            return (None, pause);
        }
        self.eager = None;
        let success = *answer == Answer::Success;
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.timing.success_threshold } else { self.timing.failure_threshold };
        let mut changed = None;
        if self.run >= threshold && self.passing != Some(success) {
            self.passing = Some(success);
            changed = self.passing;
        }
        (changed, self.timing.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(success: i32, failure: i32) -> Timing {
        Timing::of(&Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            period_seconds: Some(5),
            ..Probe::default()
        })
    }

    fn fail() -> Answer {
        Answer::Failure(String::new())
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let timing = Timing::of(&Probe::default());
        assert_eq!(
            (timing.initial_delay.as_secs(), timing.period.as_secs(), timing.timeout.as_secs()),
            (0, 10, 1)
        );
        assert_eq!((timing.success_threshold, timing.failure_threshold), (1, 3));
    }

    #[test]
    fn only_runs_of_equal_answers_change_the_verdict() {
        let mut verdict = Verdict::new(timing(2, 3), false);
        let mut series = |answers: &[Answer]| -> Vec<Option<bool>> {
            answers.iter().map(|answer| verdict.record(answer).0).collect()
        };
        assert_eq!(series(&[Answer::Success, fail(), Answer::Success]), [None, None, None]);
        assert_eq!(series(&[Answer::Success]), [Some(true)]);
        assert_eq!(
            series(&[fail(), fail(), Answer::Success, fail(), fail(), fail()]),
            [None, None, None, None, None, Some(false)]
        );
    }

    #[test]
    fn an_eager_probe_finds_a_program_soon_after_it_listens() {
        let mut verdict = Verdict::new(timing(1, 3), true);
        let refused = Answer::Refused(String::new());
        let mut waited = Duration::ZERO;
        while waited < Duration::from_millis(40) {
            let (changed, pause) = verdict.record(&refused);
            assert_eq!(changed, None);
            waited += pause;
        }
        assert!(waited < Duration::from_millis(100));
        assert_eq!(verdict.record(&Answer::Success), (Some(true), Duration::from_secs(5)));
        assert_eq!(verdict.record(&refused), (None, Duration::from_secs(5)), "no longer eager");
    }

    #[test]
    fn a_program_that_never_listens_fails_in_the_end() {
        let mut verdict = Verdict::new(timing(1, 3), true);
        let refused = Answer::Refused(String::new());
        let mut waited = Duration::ZERO;
        let failed = (0..40).any(|_| {
            let (changed, pause) = verdict.record(&refused);
            waited += pause;
            changed == Some(false)
        });
        assert!(failed && waited >= Duration::from_secs(10), "{waited:?}");
    }
}
