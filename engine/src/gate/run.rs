//! One gate's judgement of one release.

use std::collections::VecDeque;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::settings::Number;
use super::{Gate, Measurement, Outcome, Sample};

/// What a gate says about a release now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict")]
pub enum Verdict {
    /// It is too early to say.
    Running,
    /// The release may go on.
    Passed,
    /// The release is convicted. This never changes again.
    Failed {
        /// By which samples.
        message: String,
    },
    /// The time is over and there is no evidence either way. Later samples may still decide.
    Undecided {
        /// What is missing.
        message: String,
    },
    /// The old version fails as well: the rollout waits, and the release is not to blame.
    Incident {
        /// What both versions gave.
        message: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Passed => f.write_str("passed"),
            Self::Failed { message } => write!(f, "failed: {message}"),
            Self::Undecided { message } => write!(f, "undecided: {message}"),
            Self::Incident { message } => write!(f, "incident: {message}"),
        }
    }
}

/// A sample and what it said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JudgedSample {
    /// When it was taken.
    pub at: Timestamp,
    /// What the new version gave.
    pub new: Measurement,
    /// What the old version gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Measurement>,
    /// What that says.
    pub outcome: Outcome,
}

/// How many samples had which outcome, since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Counts {
    pass: u32,
    fail: u32,
    incident: u32,
    nothing: u32,
}

/// The judgement of a release by one gate, as far as it went. Plain data; bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateRun {
    /// Name of the gate.
    pub name: String,
    /// When the release began to be observed.
    started: Timestamp,
    /// When the next sample is due.
    next: Timestamp,
    /// The newest time that it was told of.
    seen: Timestamp,
    /// The newest samples, oldest first.
    #[serde(default)]
    samples: VecDeque<JudgedSample>,
    #[serde(default)]
    counts: Counts,
    /// The query as it was asked last.
    #[serde(default)]
    query: String,
    /// Why the release is convicted, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    convicted: Option<String>,
}

impl GateRun {
    /// How many samples are kept.
    pub const SAMPLES_KEPT: usize = 32;

    /// Longest text kept of a measurement that failed, in bytes.
    const TEXT_KEPT: usize = 512;

    /// Begins to observe a release now; the first sample is due after the warm-up.
    pub fn new(gate: &Gate, now: Timestamp) -> Self {
        Self {
            name: gate.name.clone(),
            started: now,
            next: after(now, gate.warmup_seconds.into()),
            seen: now,
            samples: VecDeque::new(),
            counts: Counts::default(),
            query: String::new(),
            convicted: None,
        }
    }

    /// Whether anything was sampled.
    pub fn has_samples(&self) -> bool {
        !self.samples.is_empty()
    }

    /// When the next sample is due. None once the release is convicted: no sample changes that.
    pub fn next_sample(&self) -> Option<Timestamp> {
        self.convicted.is_none().then_some(self.next)
    }

    /// Whether a sample is to be taken now. True once per due time: the next one is an interval later,
    /// and times that were missed are not caught up.
    pub fn due(&mut self, gate: &Gate, now: Timestamp) -> bool {
        self.seen = self.seen.max(now);
        if self.convicted.is_some() || now < self.next {
            return false;
        }
        let interval = i64::from(gate.interval_seconds.max(1));
        let following = after(self.next, interval);
        self.next = if following > now { following } else { after(now, interval) };
        true
    }

    /// Takes a sample into account.
    pub fn record(&mut self, gate: &Gate, sample: Sample) -> Outcome {
        let outcome = Outcome::of(gate, &sample);
        self.seen = self.seen.max(sample.at);
        match outcome {
            Outcome::Pass => self.counts.pass = self.counts.pass.saturating_add(1),
            Outcome::Fail => self.counts.fail = self.counts.fail.saturating_add(1),
            Outcome::Incident => self.counts.incident = self.counts.incident.saturating_add(1),
            _ => self.counts.nothing = self.counts.nothing.saturating_add(1),
        }
        self.query = sample.query;
        let (new, old) = (bounded(sample.new), sample.old.map(bounded));
        self.samples.push_back(JudgedSample { at: sample.at, new, old, outcome });
        while self.samples.len() > Self::SAMPLES_KEPT {
            self.samples.pop_front();
        }
        if self.convicted.is_none() && outcome == Outcome::Fail {
            self.convicted = self.conviction(gate);
        }
        outcome
    }

    /// What the gate says about the release now.
    ///
    /// A release passes when its time is over, at least half of the samples that the time has room for
    /// passed, and the newest samples hold fewer failures than convict. A gate that has not decided after
    /// twice its duration is undecided.
    pub fn judge(&self, gate: &Gate, now: Timestamp) -> Verdict {
        if let Some(message) = &self.convicted {
            return Verdict::Failed { message: message.clone() };
        }
        let evidence =
            |s: &&JudgedSample| matches!(s.outcome, Outcome::Pass | Outcome::Fail | Outcome::Incident);
        if let Some(sample) = self.samples.iter().rev().find(evidence)
            && sample.outcome == Outcome::Incident
        {
            return Verdict::Incident { message: incident(gate, sample) };
        }
        let warm = after(self.started, gate.warmup_seconds.into());
        let duration = i64::from(gate.duration_seconds);
        let needed = Self::passes_needed(gate);
        if now >= after(warm, duration)
            && self.counts.pass >= needed
            && self.recent_fails(gate) < gate.failures.at
        {
            return Verdict::Passed;
        }
        if now >= after(warm, duration.saturating_mul(2)) {
            return Verdict::Undecided { message: self.undecided(gate, needed) };
        }
        Verdict::Running
    }

    /// How many samples must pass before a release may: half of those that the duration has room for.
    pub fn passes_needed(gate: &Gate) -> u32 {
        let room = gate.duration_seconds.div_ceil(gate.interval_seconds.max(1));
        room.div_ceil(2).max(1)
    }

    /// What evidence and people are told, as of the newest time that the run was told of.
    pub fn report(&self, gate: &Gate) -> GateReport {
        GateReport {
            name: self.name.clone(),
            query: self.query.clone(),
            verdict: self.judge(gate, self.seen),
            last: self.samples.back().map(|sample| sample.new.clone()),
            passed: self.counts.pass,
            failed: self.counts.fail,
            incidents: self.counts.incident,
            without_data: self.counts.nothing,
            max: gate.max,
            min: gate.min,
            critical: gate.critical,
            samples: self.samples.iter().cloned().collect(),
        }
    }

    fn window(&self, gate: &Gate) -> impl Iterator<Item = &JudgedSample> {
        self.samples.iter().rev().take(gate.failures.of.max(1) as usize)
    }

    fn recent_fails(&self, gate: &Gate) -> u32 {
        self.window(gate).filter(|sample| sample.outcome == Outcome::Fail).count() as u32
    }

    /// Why the newest sample, which failed, convicts the release; none if it does not.
    fn conviction(&self, gate: &Gate) -> Option<String> {
        let sample = self.samples.back()?;
        let value = sample.new.value()?;
        let old = match sample.old.as_ref().and_then(Measurement::value) {
            Some(old) => format!("; the old version has {}", Number(old)),
            None => String::new(),
        };
        if let Some(critical) = gate.critical.filter(|_| gate.is_critical(value)) {
            let (value, critical) = (Number(value), Number(critical));
            return Some(format!("{} is {value}, beyond the critical {critical}{old}", gate.name));
        }
        let fails = self.recent_fails(gate);
        (fails >= gate.failures.at.max(1)).then(|| {
            let seen = self.window(gate).count();
            let (value, limits) = (Number(value), gate.limits());
            let samples = if seen == 1 { "sample" } else { "samples" };
            format!(
                "{} is {value}, it must be {limits}: {fails} of the last {seen} {samples} failed{old}",
                gate.name
            )
        })
    }

    fn undecided(&self, gate: &Gate, needed: u32) -> String {
        let have = self.counts.pass;
        let mut message = format!("{} has {have} of the {needed} passing samples that it needs", gate.name);
        if let Some(last) = self.samples.back() {
            message.push_str(&format!("; the newest gave {}", last.new));
        } else {
            message.push_str("; there was no sample at all");
        }
        message
    }
}

fn incident(gate: &Gate, sample: &JudgedSample) -> String {
    let old = sample.old.as_ref().map(Measurement::to_string).unwrap_or_default();
    format!(
        "{} is {} in the new version and {old} in the old one, it must be {}: this is an incident, not the release",
        gate.name,
        sample.new,
        gate.limits()
    )
}

/// A measurement whose text cannot fill the status that it is kept in.
fn bounded(measurement: Measurement) -> Measurement {
    let cut = |mut text: String| {
        if text.len() > GateRun::TEXT_KEPT {
            text.truncate(text.floor_char_boundary(GateRun::TEXT_KEPT));
            text.push('…');
        }
        text
    };
    match measurement {
        Measurement::Value(value) => Measurement::of(value),
        Measurement::ProviderError(text) => Measurement::ProviderError(cut(text)),
        Measurement::BadQuery(text) => Measurement::BadQuery(cut(text)),
        other => other,
    }
}

/// A time some seconds later; the end of time where that is beyond it.
fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// A gate's judgement as evidence and messages have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateReport {
    /// Name of the gate.
    pub name: String,
    /// The query as it was asked last.
    #[serde(default)]
    pub query: String,
    /// What the gate said.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the newest sample gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Measurement>,
    /// Samples within the limits.
    pub passed: u32,
    /// Samples beyond a limit.
    pub failed: u32,
    /// Samples beyond a limit in both versions.
    pub incidents: u32,
    /// Samples without a usable value.
    pub without_data: u32,
    /// The largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The value beyond which one sample convicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
    /// The newest samples, oldest first; at most [`GateRun::SAMPLES_KEPT`].
    #[serde(default)]
    pub samples: Vec<JudgedSample>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Failures, Query};

    fn gate() -> Gate {
        let query = Query::Promql { promql: "errors".into(), address: None, reduce: None };
        let mut gate = Gate::new("error-rate", query);
        gate.max = Some(0.01);
        gate.critical = Some(0.5);
        gate.warmup_seconds = 20;
        gate.duration_seconds = 60;
        gate.failures = Failures { of: 5, at: 3 };
        gate
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// Feeds one sample per interval: `.` pass, `F` fail, `C` critical, `I` incident, `n` no data,
    /// `N` NaN, `l` low sample, `p` provider error, `b` bad query. Returns the verdict at the end.
    fn play(gate: &Gate, script: &str) -> (GateRun, Verdict) {
        let mut run = GateRun::new(gate, at(0));
        let mut now = at(0);
        for letter in script.chars() {
            now = run.next_sample().unwrap_or(now);
            assert!(run.due(gate, now), "a sample is due at {now}");
            let (new, old) = match letter {
                '.' => (Measurement::Value(0.0), Some(Measurement::Value(0.0))),
                'F' => (Measurement::Value(0.08), Some(Measurement::Value(0.0))),
                'C' => (Measurement::Value(0.9), Some(Measurement::Value(0.02))),
                'I' => (Measurement::Value(0.08), Some(Measurement::Value(0.07))),
                'n' => (Measurement::NoData, None),
                'N' => (Measurement::Value(f64::NAN), None),
                'l' => (Measurement::LowSample { count: 2 }, None),
                'p' => (Measurement::ProviderError("connection refused".into()), None),
                'b' => (Measurement::BadQuery("2 series".into()), None),
                other => panic!("{other}"),
            };
            run.record(gate, Sample { at: now, new, old, query: "errors".into() });
        }
        let verdict = run.judge(gate, now);
        (run, verdict)
    }

    #[test]
    fn only_evidence_convicts_and_only_evidence_promotes() {
        // Samples at 20, 30, … s; the duration ends at 80 s (7th sample), undecided from 140 s (13th).
        let cases = [
            ("", "running"),
            (".", "running"),
            ("......", "running"),
            (".......", "passed"),
            ("...nnnn", "passed"),
            ("..nnnnn", "running"),
            (".F.F...", "passed"),
            ("FF", "running"),
            (
                "FFF",
                "failed: error-rate is 0.08, it must be at most 0.01: 3 of the last 3 samples failed; the old version has 0",
            ),
            (
                "F.F.F",
                "failed: error-rate is 0.08, it must be at most 0.01: 3 of the last 5 samples failed; the old version has 0",
            ),
            ("F..F..F", "passed"),
            ("C", "failed: error-rate is 0.9, beyond the critical 0.5; the old version has 0.02"),
            (
                "I",
                "incident: error-rate is 0.08 in the new version and 0.07 in the old one, it must be at most 0.01: this is an incident, not the release",
            ),
            ("IIIIIII......", "passed"),
            (
                "IIIn",
                "incident: error-rate is 0.08 in the new version and 0.07 in the old one, it must be at most 0.01: this is an incident, not the release",
            ),
            ("III.", "running"),
            ("nNlpbnNlpb", "running"),
            (
                "nnnnnnnnnnnnn",
                "undecided: error-rate has 0 of the 3 passing samples that it needs; the newest gave no data",
            ),
            (
                "..lllllllllll",
                "undecided: error-rate has 2 of the 3 passing samples that it needs; the newest gave only 2 requests",
            ),
            (
                "ppppppppppppp",
                "undecided: error-rate has 0 of the 3 passing samples that it needs; the newest gave metrics cannot be read: connection refused",
            ),
            ("nnnnnnnnnnnnn...", "passed"),
            (
                "nnnnnnnnnnnnnFFF",
                "failed: error-rate is 0.08, it must be at most 0.01: 3 of the last 5 samples failed; the old version has 0",
            ),
        ];
        for (script, expected) in cases {
            assert_eq!(play(&gate(), script).1.to_string(), expected, "{script:?}");
        }
    }

    #[test]
    fn a_sample_is_due_once_per_time_and_never_during_warmup() {
        let gate = gate();
        let mut run = GateRun::new(&gate, at(0));
        assert!(!run.due(&gate, at(19)));
        assert!(run.due(&gate, at(20)));
        assert!(!run.due(&gate, at(20)));
        assert!(!run.due(&gate, at(29)));
        // The agent was away: one sample, not four.
        assert!(run.due(&gate, at(65)));
        assert!(!run.due(&gate, at(66)));
        assert_eq!(run.next_sample(), Some(at(75)));
    }

    #[test]
    fn a_conviction_stays_and_asks_for_no_more_samples() {
        let gate = gate();
        let (mut run, _) = play(&gate, "C");
        assert_eq!(run.next_sample(), None);
        assert!(!run.due(&gate, at(1000)));
        for i in 0..100 {
            let sample = Sample { at: at(i), new: Measurement::Value(0.0), old: None, query: String::new() };
            run.record(&gate, sample);
        }
        assert!(matches!(run.judge(&gate, at(1000)), Verdict::Failed { .. }));
    }

    #[test]
    fn a_run_survives_a_restart_and_stays_small() {
        let gate = gate();
        let (mut run, _) = play(&gate, "..N");
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<GateRun>(&text).unwrap(), run);
        for i in 0..1000 {
            let new = Measurement::ProviderError("é".repeat(10_000));
            run.record(&gate, Sample { at: at(i), new, old: None, query: "q".into() });
        }
        assert!(serde_json::to_string(&run).unwrap().len() < 32 * 1024);
        let report = run.report(&gate);
        let again: GateReport = serde_json::from_value(serde_json::to_value(&report).unwrap()).unwrap();
        assert_eq!(again, report);
        assert_eq!((report.passed, report.without_data), (2, 1001));
    }

    #[test]
    fn a_gate_that_was_never_sampled_is_undecided_in_the_end() {
        let gate = gate();
        let run = GateRun::new(&gate, at(0));
        assert_eq!(run.judge(&gate, at(139)), Verdict::Running);
        let verdict = run.judge(&gate, at(140)).to_string();
        assert_eq!(
            verdict,
            "undecided: error-rate has 0 of the 3 passing samples that it needs; there was no sample at all"
        );
    }
}
