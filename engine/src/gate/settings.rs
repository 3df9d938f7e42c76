//! What a team writes about a gate.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Selector;

/// A metric and the values of it that a release may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Name, unique within an environment.
    pub name: String,
    /// What is measured.
    pub query: Query,
    /// The largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// A value beyond which a single sample is enough to fail: above it where there is a `max`, below it
    /// where there is only a `min` (or where it is itself below `min`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
    /// Time between samples, in seconds; at least 1.
    #[serde(default = "Gate::default_interval")]
    pub interval_seconds: u32,
    /// Time before the first sample, in seconds.
    #[serde(default)]
    pub warmup_seconds: u32,
    /// How long the release is observed after the warm-up, in seconds; at least one interval.
    #[serde(default = "Gate::default_duration")]
    pub duration_seconds: u32,
    /// How many failing samples convict.
    #[serde(default)]
    pub failures: Failures,
    /// What happens when the time is over and the samples say neither yes nor no.
    #[serde(default)]
    pub on_undecided: OnUndecided,
    /// Fewer requests than this between two scrapes say nothing.
    #[serde(default = "Gate::default_min_requests")]
    pub min_requests: u64,
}

impl Gate {
    fn default_interval() -> u32 {
        10
    }

    fn default_duration() -> u32 {
        120
    }

    fn default_min_requests() -> u64 {
        1
    }

    /// A gate with the defaults: a sample every 10 s for 2 min, failing at 3 of the last 5.
    pub fn new(name: impl Into<String>, query: Query) -> Self {
        Self {
            name: name.into(),
            query,
            max: None,
            min: None,
            critical: None,
            interval_seconds: Self::default_interval(),
            warmup_seconds: 0,
            duration_seconds: Self::default_duration(),
            failures: Failures::default(),
            on_undecided: OnUndecided::default(),
            min_requests: Self::default_min_requests(),
        }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`InvalidGate`] names the gate and the first field that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidGate> {
        let wrong = |message: &str| Err(InvalidGate { gate: self.name.clone(), message: message.to_owned() });
        if self.name.is_empty() {
            return wrong("name is empty");
        }
        if self.max.is_none() && self.min.is_none() {
            return wrong("set max or min: without a limit nothing can fail");
        }
        if [self.max, self.min, self.critical].into_iter().flatten().any(|limit| !limit.is_finite()) {
            return wrong("max, min and critical must be finite numbers");
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return wrong("min is above max: no value can pass");
        }
        if self.interval_seconds == 0 {
            return wrong("interval must be at least 1 s");
        }
        if self.duration_seconds < self.interval_seconds {
            return wrong("duration must be at least one interval");
        }
        if self.failures.at == 0 || self.failures.at > self.failures.of {
            return wrong("failures.at must be between 1 and failures.of");
        }
        if self.failures.of as usize > super::GateRun::SAMPLES_KEPT {
            return wrong("failures.of is too large: 32 samples are kept");
        }
        match &self.query {
            Query::Promql { promql, .. } if promql.trim().is_empty() => wrong("query.promql is empty"),
            Query::Promql { .. } => Ok(()),
            Query::Scrape(scrape) => scrape.validate().map_err(|message| InvalidGate {
                gate: self.name.clone(),
                message: format!("query.scrape: {message}"),
            }),
        }
    }

    /// Whether a value passes.
    pub fn accepts(&self, value: f64) -> bool {
        self.max.is_none_or(|max| value <= max) && self.min.is_none_or(|min| value >= min)
    }

    /// Whether one such value is enough to fail.
    pub fn is_critical(&self, value: f64) -> bool {
        let Some(critical) = self.critical else { return false };
        let downwards = match (self.min, self.max) {
            (Some(_), None) => true,
            (Some(min), Some(_)) => critical < min,
            _ => false,
        };
        if downwards { value < critical } else { value > critical }
    }

    /// The limits in words: `at most 0.01`.
    pub fn limits(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("between {} and {}", Number(min), Number(max)),
            (Some(min), None) => format!("at least {}", Number(min)),
            (None, Some(max)) => format!("at most {}", Number(max)),
            (None, None) => "without a limit".to_owned(),
        }
    }
}

/// A gate that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gate {gate:?}: {message}")]
pub struct InvalidGate {
    /// Name of the gate.
    pub gate: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Where a gate's values come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Query {
    /// A Prometheus query: `{promql: "…"}`.
    Promql {
        /// The query, asked as an instant query.
        promql: String,
        /// Address of the Prometheus server, where it is not the agent's default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// How several series become one value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reduce: Option<Reduce>,
    },
    /// The pods' own metrics, read by the agent: `{scrape: {port: 5000, ratio: …}}`.
    Scrape(#[serde(with = "scrape_field")] ScrapeQuery),
}

/// Wraps [`ScrapeQuery`] in the field that tells it from a Prometheus query.
mod scrape_field {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ScrapeQuery;

    #[derive(Serialize)]
    struct Out<'a> {
        scrape: &'a ScrapeQuery,
    }

    #[derive(Deserialize)]
    struct In {
        scrape: ScrapeQuery,
    }

    pub(super) fn serialize<S: Serializer>(query: &ScrapeQuery, serializer: S) -> Result<S::Ok, S::Error> {
        Out { scrape: query }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ScrapeQuery, D::Error> {
        Ok(In::deserialize(deserializer)?.scrape)
    }
}

/// What is read from the pods' own metrics. Exactly one of `ratio` and `quantile` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrapeQuery {
    /// Port of the pods that serves metrics.
    pub port: u16,
    /// Path of the metrics.
    #[serde(default = "ScrapeQuery::default_path")]
    pub path: String,
    /// The share of one counter in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// A quantile of a histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<Quantile>,
}

impl ScrapeQuery {
    fn default_path() -> String {
        "/metrics".to_owned()
    }

    fn validate(&self) -> Result<(), String> {
        let selector = |text: &str| Selector::parse(text).map(|_| ()).map_err(|error| error.to_string());
        if self.port == 0 {
            return Err("port must be between 1 and 65535".to_owned());
        }
        if !self.path.starts_with('/') {
            return Err("path must begin with /".to_owned());
        }
        match (&self.ratio, &self.quantile) {
            (Some(ratio), None) => selector(&ratio.part).and_then(|()| selector(&ratio.whole)),
            (None, Some(quantile)) if !(0.0..=1.0).contains(&quantile.q) => {
                Err("quantile.q must be between 0 and 1".to_owned())
            }
            (None, Some(quantile)) => selector(&quantile.histogram),
            _ => Err("set either ratio or quantile".to_owned()),
        }
    }
}

impl fmt::Display for ScrapeQuery {
    /// The query as evidence has it, with the port and path that were read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ratio) = &self.ratio {
            write!(f, "increase({}) / increase({})", ratio.part, ratio.whole)?;
        }
        if let Some(quantile) = &self.quantile {
            write!(f, "histogram_quantile({}, increase({}))", quantile.q, quantile.histogram)?;
        }
        write!(f, " from :{}{}", self.port, self.path)
    }
}

/// The share of one counter's increase in another's. Both are selectors such as
/// `http_requests_total{code=~"5.."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    /// What is counted.
    pub part: String,
    /// Out of what.
    pub whole: String,
}

/// A quantile of a classic histogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// Selector of the histogram, without `_bucket`: `http_request_duration_seconds{route="/"}`.
    pub histogram: String,
    /// The quantile, from 0 to 1.
    pub q: f64,
}

/// How several series become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// Their mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// How many failing samples convict: `at` of the last `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// How many of the newest samples are looked at.
    pub of: u32,
    /// How many of them must fail.
    pub at: u32,
}

impl Default for Failures {
    fn default() -> Self {
        Self { of: 5, at: 3 }
    }
}

/// What happens when a gate cannot decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUndecided {
    /// The rollout waits where it is.
    #[default]
    Hold,
    /// As if the gate had passed.
    Promote,
    /// As if the gate had failed.
    Rollback,
}

/// A measured number as people read it: four significant digits at most.
pub(crate) struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude == 0.0 || !magnitude.is_finite() {
            return write!(f, "{}", self.0);
        }
        if !(1e-4..1e15).contains(&magnitude) {
            return write!(f, "{:.3e}", self.0);
        }
        let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
        let text = format!("{:.decimals$}", self.0);
        f.write_str(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gate_reads_as_it_is_written_in_an_environment() {
        let gate: Gate = serde_json::from_value(json!({
            "name": "error-rate",
            "query": {"promql": "up", "reduce": "max"},
            "max": 0.01,
            "intervalSeconds": 10, "warmupSeconds": 20, "durationSeconds": 120,
            "failures": {"of": 5, "at": 3},
            "onUndecided": "Hold",
        }))
        .unwrap();
        assert_eq!(gate.validate(), Ok(()));
        let expected = Query::Promql { promql: "up".into(), address: None, reduce: Some(Reduce::Max) };
        assert_eq!(gate.query, expected);

        let scrape: Query =
            serde_json::from_value(json!({"scrape": {"port": 5000, "ratio": {"part": "a", "whole": "b"}}}))
                .unwrap();
        let again: Query = serde_json::from_value(serde_json::to_value(&scrape).unwrap()).unwrap();
        assert_eq!(scrape, again);
        assert!(
            matches!(scrape, Query::Scrape(ScrapeQuery { port: 5000, ref path, .. }) if path == "/metrics")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let good = || {
            let mut gate = Gate::new("g", Query::Promql { promql: "up".into(), address: None, reduce: None });
            gate.max = Some(1.0);
            gate
        };
        assert_eq!(good().validate(), Ok(()));
        let scrape = |ratio: Option<Ratio>, quantile: Option<Quantile>| {
            Query::Scrape(ScrapeQuery { port: 80, path: "/metrics".into(), ratio, quantile })
        };
        type Change = Box<dyn Fn(&mut Gate)>;
        let cases: [(&str, Change); 9] = [
            ("set max or min", Box::new(|g| g.max = None)),
            ("finite", Box::new(|g| g.max = Some(f64::NAN))),
            ("min is above max", Box::new(|g| g.min = Some(2.0))),
            ("interval", Box::new(|g| g.interval_seconds = 0)),
            ("duration", Box::new(|g| g.duration_seconds = 1)),
            ("failures.at", Box::new(|g| g.failures = Failures { of: 2, at: 3 })),
            ("failures.of", Box::new(|g| g.failures = Failures { of: 33, at: 3 })),
            ("either ratio or quantile", Box::new(move |g| g.query = scrape(None, None))),
            (
                "quantile.q",
                Box::new(move |g| g.query = scrape(None, Some(Quantile { histogram: "h".into(), q: 95.0 }))),
            ),
        ];
        for (expected, change) in cases {
            let mut gate = good();
            change(&mut gate);
            let error = gate.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        }
    }

    #[test]
    fn limits_and_critical_have_a_direction() {
        let mut gate = Gate::new("g", Query::Promql { promql: "up".into(), address: None, reduce: None });
        gate.max = Some(1.0);
        gate.critical = Some(10.0);
        assert!(gate.accepts(1.0) && !gate.accepts(1.1) && gate.is_critical(11.0) && !gate.is_critical(10.0));
        gate.max = None;
        gate.min = Some(100.0);
        assert!(
            gate.accepts(100.0) && !gate.accepts(99.0) && gate.is_critical(9.0) && !gate.is_critical(11.0)
        );
    }

    #[test]
    fn numbers_are_short() {
        let texts =
            [0.0, 0.08, 1.0, 0.123_456, 1234.56, 100_000.0, 1e-9, 1e20].map(|n| Number(n).to_string());
        assert_eq!(texts, ["0", "0.08", "1", "0.1235", "1235", "100000", "1.000e-9", "1.000e20"]);
    }
}
