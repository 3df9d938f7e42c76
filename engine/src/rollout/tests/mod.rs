//! Scripts: events in, phases, effects and transitions out.

mod any_order;
mod edges;
mod scripts;
mod waiting;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::gate::{Failures, Gate, Measurement, OnUndecided, Query, Ratio, Sample, ScrapeQuery};
use crate::object::{Digest, ObjectRef};

pub(super) fn digest(name: &str) -> Digest {
    Digest::of_bytes(name.as_bytes())
}

pub(super) fn release(name: &str) -> Release {
    Release {
        digest: digest(name),
        revision: Revision {
            commit: format!("{name:0<40}"),
            reference: "main".into(),
            subject: name.into(),
            ..Revision::default()
        },
        images: Vec::new(),
        objects: 3,
    }
}

pub(super) fn backend() -> ObjectRef {
    ObjectRef {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: Some("shop".into()),
        name: "backend".into(),
    }
}

pub(super) fn gate() -> Gate {
    Gate {
        name: "errors".into(),
        query: Query::Scrape(ScrapeQuery {
            port: 5000,
            path: "/metrics".into(),
            ratio: Some(Ratio { part: "errors".into(), whole: "all".into() }),
            quantile: None,
        }),
        max: Some(0.01),
        min: None,
        critical: None,
        interval_seconds: 1,
        warmup_seconds: 1,
        duration_seconds: 4,
        failures: Failures { of: 5, at: 3 },
        on_undecided: OnUndecided::Hold,
        min_requests: 1,
    }
}

/// An environment whose events are given by hand; everything that comes out is written down.
pub(super) struct Script {
    pub(super) rollout: Rollout,
    pub(super) now: Timestamp,
    pub(super) log: Vec<String>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with(Settings {
            canary_pods: 1,
            gates: vec![gate()],
            evidence: true,
            messages: true,
            ..Settings::default()
        })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut script = Self { rollout: Rollout::new("holdfast-system/dev", now), now, log: Vec::new() };
        script.feed(Event::Configured(settings));
        script
    }

    pub(super) fn feed(&mut self, event: Event) -> Vec<Effect> {
        let told = self.rollout.sequence;
        let (rollout, effects) = step(&self.rollout, &event, self.now);
        let again = step(&self.rollout, &event, self.now);
        assert_eq!((&rollout, &effects), (&again.0, &again.1), "a step must be deterministic");
        check_invariants(&rollout);
        let stored: Rollout = serde_json::from_str(&serde_json::to_string(&rollout).unwrap()).unwrap();
        assert!(stored.same_when_stored(&rollout), "state must survive being stored");
        self.rollout = rollout;
        for outgoing in &self.rollout.outbox {
            let t = &outgoing.transition;
            if t.sequence > told {
                self.log.push(format!("{:?} -> {}: {}", t.reason, t.to, t.message));
            }
        }
        effects
    }

    pub(super) fn pass(&mut self, seconds: i64) -> Vec<Effect> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            if self.rollout.next_wake().is_some_and(|at| at <= self.now) {
                all.extend(self.feed(Event::Tick));
            }
        }
        all
    }

    pub(super) fn ready(&mut self) -> Vec<Effect> {
        let digest = self.rollout.wanted().map(|s| s.digest);
        self.feed(Event::Health(HealthSummary { digest, total: 3, ready: 3, ..HealthSummary::default() }))
    }

    pub(super) fn unready(&mut self, reason: &str, final_: bool) -> Vec<Effect> {
        let digest = self.rollout.wanted().map(|s| s.digest);
        let unready =
            vec![Unready { object: backend(), reason: reason.into(), message: format!("pod x: {reason}") }];
        let (progressing, failed) = if final_ { (vec![], unready) } else { (unready, vec![]) };
        self.feed(Event::Health(HealthSummary { digest, total: 3, ready: 2, progressing, failed }))
    }

    pub(super) fn admit(&mut self, name: &str) {
        let effects = self.feed(Event::Candidate(release(name)));
        assert!(effects.contains(&Effect::Check { digest: digest(name), approved: false }), "{effects:?}");
        let effects = self.feed(Event::Admitted { digest: digest(name) });
        assert!(effects.iter().any(|e| matches!(e, Effect::Apply { .. })), "{effects:?}");
    }

    pub(super) fn applied(&mut self, name: &str, mode: ApplyMode, canaries: Vec<ObjectRef>) {
        self.feed(Event::Applied { digest: digest(name), mode, canaries, changed: 1 });
    }

    pub(super) fn prune(&mut self, name: &str) {
        self.feed(Event::Pruned { digest: digest(name), deleted: 0, kept: vec![] });
    }

    /// Deploys without looking at anything on the way.
    pub(super) fn settle(&mut self, name: &str) {
        self.admit(name);
        let mode =
            if self.rollout.settled.is_some() { ApplyMode::Canary { pods: 1 } } else { ApplyMode::Full };
        let canaries = if self.rollout.settled.is_some() { vec![backend()] } else { vec![] };
        self.applied(name, mode, canaries);
        self.ready();
        if self.rollout.phase == Phase::Canary {
            self.samples(0.0, 8);
            self.applied(name, ApplyMode::Promote, vec![]);
            self.ready();
        }
        self.prune(name);
        assert_eq!(self.rollout.phase, Phase::Settled, "{:#?}", self.log);
    }

    /// Lets time pass and answers every sample with this share of errors.
    pub(super) fn samples(&mut self, errors: f64, seconds: u32) {
        for _ in 0..seconds {
            for effect in self.pass(1) {
                if let Effect::Sample { gate } = effect {
                    let sample = Sample {
                        at: self.now,
                        new: Measurement::Value(errors),
                        old: Some(Measurement::Value(0.0)),
                        query: "q".into(),
                    };
                    self.feed(Event::Sampled { gate, sample });
                }
            }
        }
    }
}

/// What must hold after every step of every script.
pub(super) fn check_invariants(rollout: &Rollout) {
    assert!(rollout.outbox.windows(2).all(|w| w[0].transition.sequence < w[1].transition.sequence));
    assert!(rollout.outbox.len() <= 4 * Rollout::OUTBOX_KEPT);
    assert!(rollout.outbox.last().is_none_or(|last| last.transition.sequence == rollout.sequence));
    assert!(
        !rollout.gating || matches!(rollout.phase, Phase::Canary | Phase::Observing),
        "{:?}",
        rollout.phase
    );
    match rollout.phase {
        Phase::Idle => assert!(rollout.settled.is_none() && rollout.target.is_none()),
        Phase::Applying | Phase::Converging | Phase::Canary | Phase::Observing | Phase::Failed => {
            assert!(rollout.target.is_some());
        }
        Phase::Settled | Phase::RollingBack | Phase::RolledBack | Phase::RollbackFailed => {
            assert!(rollout.settled.is_some());
        }
        Phase::Held => {}
    }
    if let Some(wanted) = rollout.wanted() {
        assert!(rollout.bundles_needed().contains(&wanted.digest));
    }
    if rollout.phase == Phase::RolledBack {
        let target = rollout.target.as_ref().unwrap();
        let waits = rollout.held.as_ref().is_some_and(|held| held.release.digest == target.digest);
        assert!(rollout.block_on(&target.digest).is_some() || rollout.checking.is_some() || waits);
    }
    assert!(rollout.blocked.len() <= Rollout::BLOCKED_KEPT);
}
