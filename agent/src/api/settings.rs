//! What the specification means to the engine.

use std::time::Duration;

use engine::gate::{Failures, Gate, OnUndecided, Quantile, Query, Ratio, Reduce, ScrapeQuery};
use engine::rollout::{Drift, RollbackMode, Settings, Window};

use super::gate::{GateSpec, OnUndecidedSpec, QuerySpec, ReduceSpec};
use super::spec::{DriftSpec, RollbackGitSpec, RollbackModeSpec, WindowSpec};
use super::{DurationText, EnvironmentSpec, ParseDurationError};

/// A field of the specification makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct SpecError {
    /// The field, as `spec.rollout.gates[0].interval`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl SpecError {
    fn new(field: impl Into<String>, message: impl ToString) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }
}

impl EnvironmentSpec {
    /// What the rollouts are decided by.
    ///
    /// # Errors
    /// [`SpecError`] names the first field that makes no sense. The schema refuses most of these already;
    /// they are checked again because an object can be older than its schema.
    pub fn settings(&self) -> Result<Settings, SpecError> {
        let rollout = &self.rollout;
        let mut gates: Vec<Gate> = Vec::with_capacity(rollout.gates.len());
        for (i, spec) in rollout.gates.iter().enumerate() {
            let field = format!("spec.rollout.gates[{i}]");
            let gate = gate(spec, &field)?;
            if gates.iter().any(|other| other.name == gate.name) {
                return Err(SpecError::new(
                    format!("{field}.name"),
                    format!("{:?} is there twice", gate.name),
                ));
            }
            gates.push(gate);
        }
        Ok(Settings {
            ready_timeout_seconds: seconds(&rollout.ready_timeout, "spec.rollout.readyTimeout", 1)?,
            canary_pods: rollout.canary.pods,
            gates,
            rollback: match rollout.rollback.mode {
                RollbackModeSpec::Auto => RollbackMode::Auto,
                RollbackModeSpec::Manual => RollbackMode::Manual,
            },
            drift: match self.drift {
                DriftSpec::Correct => Drift::Correct,
                DriftSpec::Report => Drift::Report,
            },
            approval_required: rollout.approval.required,
            windows: windows(&rollout.windows)?,
            suspended: self.suspend,
            evidence: self.audit.is_some(),
            messages: !self.notify.is_empty(),
        })
    }

    /// How often the repository is asked for news; at least one second.
    ///
    /// # Errors
    /// [`SpecError`] when the text is not a duration.
    pub fn source_interval(&self) -> Result<Duration, SpecError> {
        duration(&self.source.interval, "spec.source.interval", Duration::from_secs(1))
    }

    /// The fields that ask for something this version of the agent does not do. An environment that sets
    /// one is refused: leaving a safety feature out without a word would be worse than not deploying.
    pub fn not_yet_supported(&self) -> Vec<String> {
        let rollout = &self.rollout;
        let fields = [
            ("spec.source.verify", self.source.verify.is_some()),
            (
                "spec.rollout.rollback.git",
                matches!(
                    rollout.rollback.git,
                    Some(RollbackGitSpec::RevertPullRequest | RollbackGitSpec::RevertPush)
                ),
            ),
        ];
        fields.into_iter().filter(|(_, set)| *set).map(|(field, _)| field.to_owned()).collect()
    }
}

fn windows(specs: &[WindowSpec]) -> Result<Vec<Window>, SpecError> {
    let mut windows = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let field = format!("spec.rollout.windows[{i}]");
        let (allow, schedule) = match (&spec.allow, &spec.deny) {
            (Some(schedule), None) => (true, schedule),
            (None, Some(schedule)) => (false, schedule),
            _ => return Err(SpecError::new(field, "set exactly one of allow and deny")),
        };
        let window = Window {
            allow,
            schedule: schedule.clone(),
            seconds: seconds(&spec.length, &format!("{field}.for"), 60)?,
            timezone: spec.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
        };
        window.validate().map_err(|message| SpecError::new(field, message))?;
        windows.push(window);
    }
    Ok(windows)
}

fn duration(text: &DurationText, field: &str, least: Duration) -> Result<Duration, SpecError> {
    let parsed = text.parse().map_err(|error: ParseDurationError| SpecError::new(field, error))?;
    if parsed < least {
        return Err(SpecError::new(field, format!("{text} is too short: at least {}s", least.as_secs())));
    }
    Ok(parsed)
}

/// Whole seconds, rounded up.
fn seconds(text: &DurationText, field: &str, least: u64) -> Result<u32, SpecError> {
    let parsed = duration(text, field, Duration::from_secs(least))?;
    let whole = parsed.as_secs() + u64::from(parsed.subsec_nanos() > 0);
    u32::try_from(whole).map_err(|_| SpecError::new(field, format!("{text} is too long")))
}

fn gate(spec: &GateSpec, field: &str) -> Result<Gate, SpecError> {
    let gate = Gate {
        name: spec.name.clone(),
        query: query(&spec.query, &format!("{field}.query"))?,
        max: spec.max,
        min: spec.min,
        critical: spec.critical,
        interval_seconds: seconds(&spec.interval, &format!("{field}.interval"), 1)?,
        warmup_seconds: seconds(&spec.warmup, &format!("{field}.warmup"), 0)?,
        duration_seconds: seconds(&spec.duration, &format!("{field}.duration"), 1)?,
        failures: Failures { of: spec.failures.of, at: spec.failures.at },
        on_undecided: match spec.on_undecided {
            OnUndecidedSpec::Hold => OnUndecided::Hold,
            OnUndecidedSpec::Promote => OnUndecided::Promote,
            OnUndecidedSpec::Rollback => OnUndecided::Rollback,
        },
        min_requests: spec.min_requests,
    };
    gate.validate().map_err(|error| SpecError::new(field, error.message))?;
    Ok(gate)
}

fn query(spec: &QuerySpec, field: &str) -> Result<Query, SpecError> {
    match (&spec.promql, &spec.scrape) {
        (Some(promql), None) => Ok(Query::Promql {
            promql: promql.clone(),
            address: spec.address.clone(),
            reduce: spec.reduce.map(|reduce| match reduce {
                ReduceSpec::Sum => Reduce::Sum,
                ReduceSpec::Avg => Reduce::Avg,
                ReduceSpec::Min => Reduce::Min,
                ReduceSpec::Max => Reduce::Max,
            }),
        }),
        (None, Some(scrape)) => Ok(Query::Scrape(ScrapeQuery {
            port: scrape.port,
            path: scrape.path.clone(),
            ratio: scrape
                .ratio
                .as_ref()
                .map(|ratio| Ratio { part: ratio.part.clone(), whole: ratio.whole.clone() }),
            quantile: scrape
                .quantile
                .as_ref()
                .map(|quantile| Quantile { histogram: quantile.histogram.clone(), q: quantile.q }),
        })),
        _ => Err(SpecError::new(field, "set exactly one of promql and scrape")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Environment;
    use serde_json::json;

    fn spec(extra: serde_json::Value) -> EnvironmentSpec {
        let mut value = json!({"source": {"url": "https://example.org/r.git", "branch": "main"}});
        json_merge(&mut value, extra);
        serde_json::from_value(value).unwrap()
    }

    fn json_merge(into: &mut serde_json::Value, from: serde_json::Value) {
        match (into.as_object_mut(), from) {
            (Some(map), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    json_merge(map.entry(key).or_insert_with(|| json!(null)), value);
                }
            }
            (_, from) => *into = from,
        }
    }

    #[test]
    fn the_least_specification_has_the_engine_s_defaults() {
        assert_eq!(spec(json!({})).settings(), Ok(Settings::default()));
        assert_eq!(spec(json!({})).source_interval(), Ok(Duration::from_secs(30)));
    }

    #[test]
    fn a_gate_means_what_it_says() {
        let settings = spec(json!({"rollout": {
            "readyTimeout": "90s", "canary": {"pods": 2}, "rollback": {"mode": "Manual"},
            "gates": [{
                "name": "error-rate",
                "query": {"scrape": {"port": 5000, "ratio": {"part": "bad", "whole": "all"}}},
                "max": 0.01, "critical": 0.5, "interval": "500ms", "warmup": "20s", "duration": "1m30s",
                "failures": {"of": 4, "at": 2}, "onUndecided": "Promote"
            }]
        }}));
        let error = settings.settings().unwrap_err();
        assert_eq!(error.to_string(), "spec.rollout.gates[0].interval: 500ms is too short: at least 1s");

        let mut spec = settings;
        spec.rollout.gates[0].interval = "1500ms".into();
        let settings = spec.settings().unwrap();
        assert_eq!(
            (settings.ready_timeout_seconds, settings.canary_pods, settings.rollback),
            (90, 2, RollbackMode::Manual)
        );
        let gate = &settings.gates[0];
        assert_eq!((gate.interval_seconds, gate.warmup_seconds, gate.duration_seconds), (2, 20, 90));
        assert_eq!((gate.failures.of, gate.failures.at, gate.on_undecided), (4, 2, OnUndecided::Promote));
        assert!(matches!(&gate.query, Query::Scrape(scrape) if scrape.path == "/metrics"));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_field() {
        let gate = json!({"name": "g", "query": {"promql": "up"}, "max": 1});
        let with = |change: serde_json::Value| {
            let mut gate = gate.clone();
            json_merge(&mut gate, change);
            json!({"rollout": {"gates": [gate]}})
        };
        let table = [
            (json!({"rollout": {"readyTimeout": "5"}}), "spec.rollout.readyTimeout: \"5\" is not a duration"),
            (json!({"rollout": {"readyTimeout": "0s"}}), "spec.rollout.readyTimeout: 0s is too short"),
            (with(json!({"duration": "forever"})), "spec.rollout.gates[0].duration: \"forever\""),
            (with(json!({"max": null})), "spec.rollout.gates[0]: set max or min"),
            (with(json!({"query": {"scrape": {"port": 1}}})), "spec.rollout.gates[0].query: set exactly one"),
            (
                json!({"rollout": {"windows": [{"deny": "0 18 * * FRI", "for": "62h", "timezone": "Asia/Dhakka"}]}}),
                "spec.rollout.windows[0]: \"Asia/Dhakka\" is no time zone",
            ),
            (json!({"rollout": {"gates": [gate, gate]}}), "spec.rollout.gates[1].name: \"g\" is there twice"),
        ];
        for (extra, expected) in table {
            let error = spec(extra).settings().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_repository_s_own_environments_are_all_understood() {
        let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/../environments/fleet");
        let mut seen = 0;
        for entry in std::fs::read_dir(fleet).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.display().to_string();
            for document in engine::object::yaml::read_documents(&text, &name).unwrap() {
                if document.value["kind"] != "Environment" {
                    continue;
                }
                let environment: Environment = serde_json::from_value(document.value).unwrap();
                environment.spec.settings().unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(environment.spec.not_yet_supported(), [] as [&str; 0], "{name}");
                seen += 1;
            }
        }
        assert!(seen >= 5, "{seen}");
    }

    #[test]
    fn what_this_version_does_not_do_is_not_passed_over() {
        assert!(Environment::test("dev").spec.not_yet_supported().is_empty());
        let spec = spec(json!({
            "source": {"verify": {"secretRef": {"name": "k"}}},
            "rollout": {"rollback": {"git": "RevertPush"}}
        }));
        assert_eq!(spec.not_yet_supported(), ["spec.source.verify", "spec.rollout.rollback.git"]);
    }
}
