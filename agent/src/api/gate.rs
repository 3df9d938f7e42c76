//! A metric gate as a team writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DurationText;

/// A metric and the values of it that a release may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.max) || has(self.min)", "message": "set max or min: without a limit nothing can fail"},
    {"rule": "!has(self.max) || !has(self.min) || self.min <= self.max", "message": "min is above max: no value can pass"}
]))]
pub struct GateSpec {
    /// Name, unique within the environment.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What is measured.
    pub query: QuerySpec,
    /// The largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// A value beyond which a single sample is enough to fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
    /// Time between samples.
    #[serde(default = "interval")]
    pub interval: DurationText,
    /// Time before the first sample.
    #[serde(default = "warmup")]
    pub warmup: DurationText,
    /// How long the release is observed after the warm-up.
    #[serde(default = "duration")]
    pub duration: DurationText,
    /// How many failing samples convict.
    #[serde(default)]
    pub failures: FailuresSpec,
    /// What happens when the time is over and the samples say neither yes nor no.
    #[serde(default)]
    pub on_undecided: OnUndecidedSpec,
    /// Fewer requests than this between two scrapes say nothing.
    #[serde(default = "one")]
    #[schemars(range(max = 1_000_000_000))]
    pub min_requests: u64,
}

fn interval() -> DurationText {
    "10s".into()
}

fn warmup() -> DurationText {
    "0s".into()
}

fn duration() -> DurationText {
    "2m".into()
}

fn one() -> u64 {
    1
}

/// What a gate measures. Exactly one of `promql` and `scrape` is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.promql) != has(self.scrape)", "message": "set exactly one of promql and scrape"},
    {"rule": "has(self.promql) || (!has(self.address) && !has(self.reduce))", "message": "address and reduce belong to promql"}
]))]
pub struct QuerySpec {
    /// A Prometheus query, asked as an instant query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub promql: Option<String>,
    /// Address of the Prometheus server, where it is not the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub address: Option<String>,
    /// How several series become one value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<ReduceSpec>,
    /// The pods' own metrics, read by the agent: no Prometheus is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<ScrapeSpec>,
}

/// How several series become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReduceSpec {
    /// Their sum.
    Sum,
    /// Their mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// What is read from the pods' own metrics. Exactly one of `ratio` and `quantile` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.ratio) != has(self.quantile)", "message": "set exactly one of ratio and quantile"}
]))]
pub struct ScrapeSpec {
    /// Port of the pods that serves metrics.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path of the metrics.
    #[serde(default = "metrics")]
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// The share of one counter in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<RatioSpec>,
    /// A quantile of a histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<QuantileSpec>,
}

fn metrics() -> String {
    "/metrics".to_owned()
}

/// The share of one counter's increase in another's: selectors such as `http_requests_total{code=~"5.."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RatioSpec {
    /// What is counted.
    #[schemars(length(min = 1, max = 1024))]
    pub part: String,
    /// Out of what.
    #[schemars(length(min = 1, max = 1024))]
    pub whole: String,
}

/// A quantile of a classic histogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuantileSpec {
    /// Selector of the histogram, without `_bucket`.
    #[schemars(length(min = 1, max = 1024))]
    pub histogram: String,
    /// The quantile, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub q: f64,
}

/// How many failing samples convict: `at` of the last `of`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.at <= self.of", "message": "at must not be larger than of"}
]))]
pub struct FailuresSpec {
    /// How many of the newest samples are looked at.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 32))]
    pub of: u32,
    /// How many of them must fail.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 32))]
    pub at: u32,
}

fn five() -> u32 {
    5
}

fn three() -> u32 {
    3
}

impl Default for FailuresSpec {
    fn default() -> Self {
        Self { of: five(), at: three() }
    }
}

/// What happens when a gate cannot decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUndecidedSpec {
    /// The rollout waits where it is.
    #[default]
    Hold,
    /// As if the gate had passed.
    Promote,
    /// As if the gate had failed.
    Rollback,
}

impl GateSpec {
    /// A gate on the share of failed requests, as the pods count them: at most `max` of those on `port`.
    pub fn error_rate(port: u16, max: f64) -> Self {
        Self {
            name: "error-rate".to_owned(),
            query: QuerySpec {
                scrape: Some(ScrapeSpec {
                    port,
                    path: metrics(),
                    ratio: Some(RatioSpec {
                        part: r#"http_requests_total{code=~"5.."}"#.to_owned(),
                        whole: "http_requests_total".to_owned(),
                    }),
                    quantile: None,
                }),
                ..QuerySpec::default()
            },
            max: Some(max),
            min: None,
            critical: None,
            interval: interval(),
            warmup: warmup(),
            duration: duration(),
            failures: FailuresSpec::default(),
            on_undecided: OnUndecidedSpec::default(),
            min_requests: one(),
        }
    }

    /// Sets the timing: samples every `interval`, from `warmup` on, for `duration`.
    pub fn every(mut self, interval: &str, warmup: &str, duration: &str) -> Self {
        self.interval = interval.into();
        self.warmup = warmup.into();
        self.duration = duration.into();
        self
    }
}
