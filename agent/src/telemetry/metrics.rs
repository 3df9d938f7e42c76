//! The metrics `holdfast_*`. Durations are in seconds.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::rollout::{Phase, Sink};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

type Labels = Vec<(&'static str, String)>;

/// Makes histograms with the buckets that all durations share, from 1 ms to 5 min.
#[derive(Clone)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
            300.0,
        ])
    }
}

#[derive(Clone)]
struct Zero;

impl<M: Default> MetricConstructor<M> for Zero {
    fn new_metric(&self) -> M {
        M::default()
    }
}

/// A metric with labels, of which the first is what it belongs to: when an environment is deleted, its
/// series go.
struct Tracked<M, C> {
    family: Family<Labels, M, C>,
    known: Mutex<HashMap<String, HashSet<Labels>>>,
}

impl<M: Clone, C: MetricConstructor<M>> Tracked<M, C> {
    fn get(&self, labels: Labels) -> M {
        if let Some(metric) = self.family.get(&labels) {
            return metric.clone();
        }
        let owner = labels.first().map(|(_, value)| value.clone()).unwrap_or_default();
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(owner)
            .or_default()
            .insert(labels.clone());
        self.family.get_or_create_owned(&labels)
    }

    fn forget(&self, owner: &str) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
        for labels in known.into_iter().flatten() {
            self.family.remove(&labels);
        }
    }
}

type Counters = Tracked<Counter, Zero>;
type Gauges = Tracked<Gauge, Zero>;
type Histograms = Tracked<Histogram, Durations>;

/// The metrics of the agent. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconciles: Histograms,
    renders: Histograms,
    applies: Histograms,
    drift: Histograms,
    rollouts: Histograms,
    fetches: Histograms,
    source_failures: Counters,
    api_errors: Counters,
    transitions: Counters,
    gate_samples: Counters,
    drifted: Counters,
    hooks: Counters,
    ready: Gauges,
    phase: Gauges,
    outbox: Gauges,
    environments: Gauge,
    leading: Gauge,
}

fn tracked<M, C>(registry: &mut Registry, constructor: C, name: &str, help: &str) -> Tracked<M, C>
where
    M: Clone,
    C: Clone,
    Family<Labels, M, C>: Metric + Clone,
{
    let family = Family::new_with_constructor(constructor);
    registry.register(name, help, family.clone());
    Tracked { family, known: Mutex::default() }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// A registry with nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("holdfast");
        let (environments, leading) = (Gauge::default(), Gauge::default());
        registry.register("environments", "How many Environments there are", environments.clone());
        registry.register("leading", "1 if this agent is the one that decides and writes", leading.clone());
        let r = &mut registry;
        r.register("build", "Which agent this is", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        let inner = Inner {
            reconciles: tracked(
                r,
                Durations,
                "reconcile_duration_seconds",
                "One pass over an environment, by result",
            ),
            renders: tracked(r, Durations, "render_duration_seconds", "Rendering a commit, by result"),
            applies: tracked(r, Durations, "apply_duration_seconds", "Writing a bundle, by mode and result"),
            drift: tracked(
                r,
                Durations,
                "drift_correction_seconds",
                "From the notice of drift to its correction",
            ),
            rollouts: tracked(
                r,
                Durations,
                "rollout_duration_seconds",
                "From begin to end of a rollout, by outcome",
            ),
            fetches: tracked(r, Durations, "source_fetch_duration_seconds", "Asking a repository, by result"),
            source_failures: tracked(r, Zero, "source_failures", "Failed fetches, by reason"),
            api_errors: tracked(r, Zero, "api_errors", "Errors of the Kubernetes API, by kind"),
            transitions: tracked(r, Zero, "transitions", "Changes of state, by reason"),
            gate_samples: tracked(r, Zero, "gate_samples", "Samples of gates, by outcome"),
            drifted: tracked(r, Zero, "drifted_objects", "Objects that somebody else changed or deleted"),
            hooks: tracked(r, Zero, "webhooks", "Webhooks received, by result"),
            ready: tracked(
                r,
                Zero,
                "environment_ready",
                "1 if the newest release is out and healthy, else 0",
            ),
            phase: tracked(r, Zero, "environment_phase", "1 for the phase that the rollout is in"),
            outbox: tracked(r, Zero, "outbox_size", "Transitions that wait for delivery, by sink"),
            environments,
            leading,
            registry,
        };
        Self(Arc::new(inner))
    }

    /// The metrics in the OpenMetrics text format, to be served as [`Telemetry::CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a metric's own encoder does, and these are all built in.
        if let Err(error) = encode(&mut text, &self.0.registry) {
            tracing::error!(%error, "the metrics could not be encoded");
        }
        text
    }

    /// The content type of [`Telemetry::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A pass over an environment took this long.
    pub fn reconciled(&self, environment: &str, took: Duration, ok: bool) {
        self.0.reconciles.get(labels(environment, [("result", result(ok))])).observe(took.as_secs_f64());
    }

    /// A commit was rendered, or could not be.
    pub fn rendered(&self, environment: &str, took: Duration, ok: bool) {
        self.0.renders.get(labels(environment, [("result", result(ok))])).observe(took.as_secs_f64());
    }

    /// A bundle, or the correction of drift, was written or could not be.
    pub fn applied(&self, environment: &str, correction: bool, took: Duration, ok: bool) {
        let mode = if correction { "correction" } else { "bundle" };
        self.0
            .applies
            .get(labels(environment, [("mode", mode), ("result", result(ok))]))
            .observe(took.as_secs_f64());
    }

    /// That many objects of an environment were changed or deleted by somebody else.
    pub fn drifted(&self, environment: &str, objects: usize) {
        self.0.drifted.get(labels(environment, [])).inc_by(u64::try_from(objects).unwrap_or(u64::MAX));
    }

    /// Drift was corrected, this long after it was noticed.
    pub fn drift_corrected(&self, environment: &str, took: Duration) {
        self.0.drift.get(labels(environment, [])).observe(took.as_secs_f64());
    }

    /// A rollout ended; `outcome` is the transition's reason.
    pub fn rollout_ended(&self, environment: &str, outcome: &str, took: Duration) {
        self.0.rollouts.get(labels(environment, [("outcome", outcome)])).observe(took.as_secs_f64());
    }

    /// A transition happened; `reason` is its word.
    pub fn transition(&self, environment: &str, reason: &str) {
        self.0.transitions.get(labels(environment, [("reason", reason)])).inc();
    }

    /// A gate was sampled; `outcome` is a word such as `Pass`.
    pub fn gate_sampled(&self, environment: &str, gate: &str, outcome: &str) {
        self.0.gate_samples.get(labels(environment, [("gate", gate), ("outcome", outcome)])).inc();
    }

    /// Whether an environment's newest release is out and healthy.
    pub fn ready(&self, environment: &str, ready: bool) {
        self.0.ready.get(labels(environment, [])).set(i64::from(ready));
    }

    /// The phase that an environment's rollout entered.
    pub fn phase(&self, environment: &str, phase: Phase) {
        self.0.phase.forget(environment);
        self.0.phase.get(labels(environment, [("phase", &phase.to_string())])).set(1);
    }

    /// How many Environments there are.
    pub fn environments(&self, count: usize) {
        self.0.environments.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether this agent is the one that decides and writes.
    pub fn leading(&self, leading: bool) {
        self.0.leading.set(i64::from(leading));
    }

    /// How many transitions of an environment wait for a sink.
    pub fn outbox(&self, environment: &str, sink: Sink, size: usize) {
        let sink = match sink {
            Sink::Evidence => "evidence",
            Sink::Messages => "messages",
        };
        self.0.outbox.get(labels(environment, [("sink", sink)])).set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// A repository was asked; `failure` is the reason if that failed. The repository's address must be
    /// free of credentials, as [`crate::source::RepositoryUrl`] is.
    pub fn fetched(&self, repository: &str, failure: Option<&str>, took: Duration) {
        let own = |more: &[(&'static str, &str)]| {
            let mut labels = vec![("repository", repository.to_owned())];
            labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            labels
        };
        self.0.fetches.get(own(&[("result", result(failure.is_none()))])).observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.0.source_failures.get(own(&[("reason", reason)])).inc();
        }
    }

    /// The Kubernetes API answered with an error; `kind` is its metric label.
    pub fn api_error(&self, kind: &str) {
        self.0.api_errors.get(vec![("kind", kind.to_owned())]).inc();
    }

    /// A webhook came in; `result` is a word such as `accepted`.
    pub fn hook(&self, provider: &str, result: &str) {
        self.0.hooks.get(vec![("provider", provider.to_owned()), ("result", result.to_owned())]).inc();
    }

    /// Drops all series of an environment that is gone.
    pub fn forget(&self, environment: &str) {
        let inner = &self.0;
        for histograms in [&inner.reconciles, &inner.renders, &inner.applies, &inner.drift, &inner.rollouts] {
            histograms.forget(environment);
        }
        for counters in [&inner.transitions, &inner.gate_samples, &inner.drifted] {
            counters.forget(environment);
        }
        for gauges in [&inner.ready, &inner.phase, &inner.outbox] {
            gauges.forget(environment);
        }
    }
}

fn result(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

fn labels<const N: usize>(environment: &str, more: [(&'static str, &str); N]) -> Labels {
    let mut labels = vec![("environment", environment.to_owned())];
    labels.extend(more.map(|(name, value)| (name, value.to_owned())));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.contains(part) && !line.starts_with('#')).collect()
    }

    #[test]
    fn everything_is_counted_under_its_name() {
        let metrics = Telemetry::new();
        metrics.transition("ns/dev", "Settled");
        metrics.transition("ns/dev", "Settled");
        metrics.outbox("ns/dev", Sink::Messages, 3);
        metrics.fetched("/srv/shop.git", Some("FetchTimedOut"), Duration::from_millis(3));
        metrics.api_error("conflict");
        let text = metrics.encode();
        for line in [
            r#"holdfast_transitions_total{environment="ns/dev",reason="Settled"} 2"#,
            r#"holdfast_outbox_size{environment="ns/dev",sink="messages"} 3"#,
            r#"holdfast_source_failures_total{repository="/srv/shop.git",reason="FetchTimedOut"} 1"#,
            r#"holdfast_source_fetch_duration_seconds_count{repository="/srv/shop.git",result="error"} 1"#,
            r#"holdfast_api_errors_total{kind="conflict"} 1"#,
            concat!("holdfast_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        engine::gate::exposition::parse(&text).unwrap();
    }

    #[test]
    fn a_deleted_environment_leaves_no_series() {
        let metrics = Telemetry::new();
        for environment in ["ns/dev", "ns/prod"] {
            metrics.reconciled(environment, Duration::from_millis(1), true);
            metrics.rendered(environment, Duration::from_millis(1), false);
            metrics.applied(environment, true, Duration::from_millis(1), true);
            metrics.phase(environment, Phase::Applying);
            metrics.phase(environment, Phase::Settled);
            metrics.drifted(environment, 2);
            metrics.drift_corrected(environment, Duration::from_millis(1));
            metrics.rollout_ended(environment, "Settled", Duration::from_secs(1));
            metrics.transition(environment, "Settled");
            metrics.gate_sampled(environment, "errors", "Pass");
            metrics.ready(environment, true);
            metrics.outbox(environment, Sink::Evidence, 1);
        }
        metrics.forget("ns/dev");
        let text = metrics.encode();
        assert_eq!(lines(&text, "ns/dev"), Vec::<&str>::new());
        assert_eq!(
            lines(&text, "environment_phase"),
            [r#"holdfast_environment_phase{environment="ns/prod",phase="Settled"} 1"#]
        );
        assert_eq!(lines(&text, r#"holdfast_environment_ready{environment="ns/prod"} 1"#).len(), 1);
        metrics.ready("ns/dev", false);
        assert_eq!(lines(&metrics.encode(), "ns/dev").len(), 1);
    }
}
