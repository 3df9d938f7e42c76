//! What one look at a metric gave.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Gate;
use super::settings::Number;

/// What a query answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Measurement {
    /// A finite number.
    Value(f64),
    /// Nothing: an empty answer, NaN or an infinity.
    NoData,
    /// Too few requests to say anything.
    LowSample {
        /// How many there were.
        count: u64,
    },
    /// The source of metrics could not be asked, or failed.
    ProviderError(String),
    /// The query is wrong: no release can be judged by it.
    BadQuery(String),
}

impl Measurement {
    /// A number as a measurement. NaN and the infinities are [`Measurement::NoData`].
    pub fn of(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::NoData }
    }

    /// The number, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{}", Number(*value)),
            Self::NoData => f.write_str("no data"),
            Self::LowSample { count: 1 } => f.write_str("only 1 request"),
            Self::LowSample { count } => write!(f, "only {count} requests"),
            Self::ProviderError(message) => write!(f, "metrics cannot be read: {message}"),
            Self::BadQuery(message) => write!(f, "the query is wrong: {message}"),
        }
    }
}

/// One look at the new version, and at the old one beside it where that was possible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When it was taken.
    pub at: Timestamp,
    /// What the new version gave.
    pub new: Measurement,
    /// What the old version gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Measurement>,
    /// The query as it was asked.
    #[serde(default)]
    pub query: String,
}

/// What a sample says about a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Within the limits.
    Pass,
    /// Beyond a limit: the only outcome that counts against a release.
    Fail,
    /// Beyond a limit, and so is the old version: something else is wrong.
    Incident,
    /// No value.
    NoData,
    /// Too few requests.
    LowSample,
    /// The source of metrics failed.
    ProviderError,
    /// The query is wrong.
    BadQuery,
}

impl Outcome {
    /// What a sample says under a gate's limits.
    ///
    /// The old version excuses the new one only as far as it fails itself: a value beyond `critical` that
    /// the old version does not share is a failure even if the old version is beyond its limit too.
    pub fn of(gate: &Gate, sample: &Sample) -> Self {
        let old = sample.old.as_ref().and_then(Measurement::value);
        match &sample.new {
            Measurement::Value(value) if !value.is_finite() => Self::NoData,
            Measurement::Value(value) if gate.accepts(*value) && !gate.is_critical(*value) => Self::Pass,
            Measurement::Value(value) if gate.is_critical(*value) => match old {
                Some(old) if gate.is_critical(old) => Self::Incident,
                _ => Self::Fail,
            },
            Measurement::Value(_) => match old {
                Some(old) if !gate.accepts(old) => Self::Incident,
                _ => Self::Fail,
            },
            Measurement::NoData => Self::NoData,
            Measurement::LowSample { .. } => Self::LowSample,
            Measurement::ProviderError(_) => Self::ProviderError,
            Measurement::BadQuery(_) => Self::BadQuery,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
