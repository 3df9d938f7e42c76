//! Metric gates: does what is being measured speak for or against a release?
//!
//! A [`Gate`] says what to measure and which values are acceptable. While a release is observed its
//! [`GateRun`] is told of every [`Sample`]. Only evidence convicts: a sample without a usable value never
//! counts against a release, and never promotes it either.

mod answer;
pub mod exposition;
mod measurement;
mod run;
mod scrape;
mod selector;
mod settings;

pub use answer::prometheus_answer;
pub use measurement::{Measurement, Outcome, Sample};
pub use run::{GateReport, GateRun, JudgedSample, Verdict};
pub use scrape::{Snapshot, measure, quantile, ratio};
pub use selector::{BadSelector, Selector};
pub use settings::{Failures, Gate, InvalidGate, OnUndecided, Quantile, Query, Ratio, Reduce, ScrapeQuery};
