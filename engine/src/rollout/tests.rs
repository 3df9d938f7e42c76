//! Scripts: events in, phases, effects and transitions out.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::gate::{Failures, Gate, Measurement, OnUndecided, Query, Ratio, Sample, ScrapeQuery};
use crate::object::{Digest, ObjectRef};

fn digest(name: &str) -> Digest {
    Digest::of_bytes(name.as_bytes())
}

fn release(name: &str) -> Release {
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

fn backend() -> ObjectRef {
    ObjectRef {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: Some("shop".into()),
        name: "backend".into(),
    }
}

fn gate() -> Gate {
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
struct Script {
    rollout: Rollout,
    now: Timestamp,
    log: Vec<String>,
}

impl Script {
    fn new() -> Self {
        Self::with(Settings {
            canary_pods: 1,
            gates: vec![gate()],
            evidence: true,
            messages: true,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut script = Self { rollout: Rollout::new("holdfast-system/dev", now), now, log: Vec::new() };
        script.feed(Event::Configured(settings));
        script
    }

    fn feed(&mut self, event: Event) -> Vec<Effect> {
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

    fn pass(&mut self, seconds: i64) -> Vec<Effect> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            if self.rollout.next_wake().is_some_and(|at| at <= self.now) {
                all.extend(self.feed(Event::Tick));
            }
        }
        all
    }

    fn ready(&mut self) -> Vec<Effect> {
        let digest = self.rollout.wanted().map(|s| s.digest);
        self.feed(Event::Health(HealthSummary { digest, total: 3, ready: 3, ..HealthSummary::default() }))
    }

    fn unready(&mut self, reason: &str, final_: bool) -> Vec<Effect> {
        let digest = self.rollout.wanted().map(|s| s.digest);
        let unready =
            vec![Unready { object: backend(), reason: reason.into(), message: format!("pod x: {reason}") }];
        let (progressing, failed) = if final_ { (vec![], unready) } else { (unready, vec![]) };
        self.feed(Event::Health(HealthSummary { digest, total: 3, ready: 2, progressing, failed }))
    }

    fn admit(&mut self, name: &str) {
        let effects = self.feed(Event::Candidate(release(name)));
        assert!(effects.contains(&Effect::Check { digest: digest(name), approved: false }), "{effects:?}");
        let effects = self.feed(Event::Admitted { digest: digest(name) });
        assert!(effects.iter().any(|e| matches!(e, Effect::Apply { .. })), "{effects:?}");
    }

    fn applied(&mut self, name: &str, mode: ApplyMode, canaries: Vec<ObjectRef>) {
        self.feed(Event::Applied { digest: digest(name), mode, canaries, changed: 1 });
    }

    fn prune(&mut self, name: &str) {
        self.feed(Event::Pruned { digest: digest(name), deleted: 0, kept: vec![] });
    }

    /// Deploys without looking at anything on the way.
    fn settle(&mut self, name: &str) {
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
    fn samples(&mut self, errors: f64, seconds: u32) {
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
fn check_invariants(rollout: &Rollout) {
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

#[test]
fn the_first_deploy_settles_without_a_canary() {
    let mut s = Script::new();
    s.settle("a");
    assert_eq!(
        s.log,
        [
            "RolloutStarted -> Applying: rolling out main@a00000000000: a",
            "Settled -> Settled: main@a00000000000 settled: a"
        ]
    );
}

#[test]
fn a_good_release_passes_its_canary() {
    let mut s = Script::new();
    s.settle("a");
    s.log.clear();
    s.settle("b");
    assert_eq!(
        s.log,
        [
            "RolloutStarted -> Applying: rolling out main@b00000000000: b",
            "CanaryStarted -> Canary: canary holds, gates are judged: Deployment.apps shop/backend",
            "CanaryPassed -> Observing: 1 of 1 gates passed; the rest follows",
            "Settled -> Settled: main@b00000000000 settled: b",
        ]
    );
    assert_eq!(s.rollout.previous.as_ref().map(|p| p.digest), Some(digest("a")));
}

#[test]
fn a_bad_release_is_convicted_blocked_and_undone() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.ready();
    assert_eq!(s.rollout.phase, Phase::Canary);
    s.samples(0.5, 6);
    assert_eq!(s.rollout.phase, Phase::RollingBack);
    s.applied("a", ApplyMode::Rollback, vec![]);
    s.ready();
    s.prune("a");
    assert_eq!(s.rollout.phase, Phase::RolledBack);
    assert_eq!(s.rollout.serving().map(|r| r.digest), Some(digest("a")));

    // The next poll, or an unrelated commit with the same bundle, does not deploy it again.
    let before = s.log.len();
    assert_eq!(s.feed(Event::Candidate(release("b"))), []);
    assert_eq!(s.rollout.held.as_ref().map(|h| h.reason), Some(HoldReason::DigestBlocked));
    assert_eq!(s.log.len(), before, "its failure was told already");

    // A recorded retry lifts the block, a different bundle needs none.
    let effects = s.feed(Event::Commanded { command: Command::Retry, actor: "mina".into() });
    assert!(effects.contains(&Effect::Check { digest: digest("b"), approved: false }), "{effects:?}");
    s.admit("c");
    assert_eq!(s.rollout.phase, Phase::Applying);
}

#[test]
fn git_going_back_to_the_baseline_after_a_rollback_settles() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.unready("CrashLoopBackOff", true);
    s.applied("a", ApplyMode::Rollback, vec![]);
    s.ready();
    s.prune("a");
    let mut reverted = release("a");
    reverted.revision.commit = "f".repeat(40);
    s.feed(Event::Candidate(reverted));
    assert_eq!(s.rollout.phase, Phase::Settled);
    assert_eq!(s.rollout.settled.as_ref().unwrap().revision.commit, "f".repeat(40));
}

#[test]
fn pods_that_cannot_start_fail_early_with_their_reason() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.unready("ImagePullBackOff", true);
    assert_eq!(s.rollout.phase, Phase::RollingBack);
    let failure = s.rollout.failure.as_ref().unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("ImagePullBackOff", "2/3 ready: Deployment.apps shop/backend: pod x: ImagePullBackOff")
    );
}

#[test]
fn a_deadline_fails_a_release_and_a_first_release_recovers_late() {
    let mut s = Script::new();
    s.admit("a");
    s.applied("a", ApplyMode::Full, vec![]);
    s.unready("Progressing", false);
    s.pass(301);
    assert_eq!(s.rollout.phase, Phase::Failed);
    s.ready();
    s.prune("a");
    assert_eq!(s.rollout.phase, Phase::Settled, "nothing to go back to, and ready after all");
}

#[test]
fn a_newer_release_supersedes_and_late_answers_change_nothing() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.admit("c");
    let before = s.rollout.clone();
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.feed(Event::ApplyFailed { digest: digest("b"), mode: ApplyMode::Full, message: "late".into() });
    assert_eq!(s.rollout, before);
    assert_eq!(s.rollout.settled.as_ref().unwrap().digest, digest("a"), "the baseline is what settled");
}

#[test]
fn a_refused_candidate_never_disturbs_a_rollout_under_way() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.ready();
    s.feed(Event::Candidate(release("c")));
    let problem = DoorProblem {
        reason: HoldReason::PolicyDenied,
        message: "latest is denied".into(),
        transient: false,
    };
    s.feed(Event::Refused { digest: digest("c"), problem });
    assert_eq!(s.rollout.phase, Phase::Canary);
    assert_eq!(s.rollout.held.as_ref().map(|h| h.reason), Some(HoldReason::PolicyDenied));
}

#[test]
fn what_the_server_refuses_is_tried_again_with_growing_pauses() {
    let mut s = Script::new();
    s.feed(Event::Candidate(release("a")));
    let problem =
        DoorProblem { reason: HoldReason::ApplyRejected, message: "no kind X".into(), transient: false };
    s.feed(Event::Refused { digest: digest("a"), problem: problem.clone() });
    assert_eq!(s.rollout.phase, Phase::Held);
    assert_eq!(s.pass(14), []);
    assert_eq!(s.pass(1), [Effect::Check { digest: digest("a"), approved: false }]);
    s.feed(Event::Refused { digest: digest("a"), problem });
    assert_eq!(s.pass(29), []);
    assert_eq!(s.pass(1).len(), 1);
    assert_eq!(s.log.len(), 1, "the same refusal is told once");
}

#[test]
fn an_undecided_canary_holds_and_says_so_once() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.ready();
    for _ in 0..30 {
        for effect in s.pass(1) {
            if let Effect::Sample { gate } = effect {
                let sample = Sample { at: s.now, new: Measurement::NoData, old: None, query: "q".into() };
                s.feed(Event::Sampled { gate, sample });
            }
        }
    }
    assert_eq!(s.rollout.phase, Phase::Canary);
    assert_eq!(s.log.iter().filter(|line| line.starts_with("Undecided")).count(), 1, "{:#?}", s.log);
    s.samples(0.0, 12);
    assert_eq!(s.rollout.phase, Phase::Observing, "evidence that comes late still promotes");
}

#[test]
fn a_restart_in_any_phase_asks_again_for_what_is_missing() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    let canary = Effect::Apply { digest: digest("b"), mode: ApplyMode::Canary { pods: 1 } };
    assert_eq!(s.feed(Event::Started), [canary, Effect::Announce]);
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    assert_eq!(s.feed(Event::Started), [Effect::Observe, Effect::Announce]);
    s.ready();
    assert_eq!(s.feed(Event::Started), [Effect::Observe, Effect::Announce]);
    s.samples(0.0, 8);
    assert_eq!(s.feed(Event::Started)[0], Effect::Apply { digest: digest("b"), mode: ApplyMode::Promote });
    let sequence = s.rollout.sequence;
    s.feed(Event::Delivered { sequence, sink: Sink::Evidence });
    assert!(!s.rollout.outbox.is_empty());
    s.feed(Event::Delivered { sequence, sink: Sink::Messages });
    assert!(s.rollout.outbox.is_empty());
}

#[test]
fn a_failing_rollback_write_is_tried_again_and_never_undone() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.unready("CrashLoopBackOff", true);
    let again =
        s.feed(Event::ApplyFailed { digest: digest("a"), mode: ApplyMode::Rollback, message: "503".into() });
    assert!(matches!(again[..], [Effect::Warn { .. }]));
    assert!(s.pass(1).contains(&Effect::Apply { digest: digest("a"), mode: ApplyMode::Rollback }));
    s.applied("a", ApplyMode::Rollback, vec![]);
    s.unready("Progressing", false);
    s.pass(301);
    assert_eq!(s.rollout.phase, Phase::RollbackFailed);
    s.ready();
    s.prune("a");
    assert_eq!(s.rollout.phase, Phase::RolledBack);
}

#[test]
fn drift_is_set_back_on_what_serves_and_told_at_most_once_a_minute() {
    let mut s = Script::new();
    s.settle("a");
    let effects = s.feed(Event::Drifted { objects: vec![backend()] });
    let correct = ApplyMode::Correct(vec![backend()]);
    assert_eq!(effects, [Effect::Apply { digest: digest("a"), mode: correct.clone() }]);
    let told = s.log.len();
    s.applied("a", correct.clone(), vec![]);
    s.applied("a", correct.clone(), vec![]);
    assert_eq!(s.log.len(), told + 1);
    s.pass(61);
    s.applied("a", correct, vec![]);
    assert_eq!(s.log.len(), told + 2);
}

#[test]
fn approval_and_suspension_wait_at_the_door() {
    let mut s = Script::with(Settings {
        approval_required: true,
        evidence: true,
        messages: true,
        ..Settings::default()
    });
    s.feed(Event::Candidate(release("a")));
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.held.as_ref().map(|h| h.reason), Some(HoldReason::ApprovalRequired));
    let effects = s.feed(Event::Commanded { command: Command::Approve(digest("a")), actor: "mina".into() });
    assert!(effects.contains(&Effect::Check { digest: digest("a"), approved: true }));
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.phase, Phase::Applying);

    let mut s =
        Script::with(Settings { suspended: true, evidence: true, messages: true, ..Settings::default() });
    s.feed(Event::Candidate(release("a")));
    assert_eq!(s.rollout.held.as_ref().map(|h| h.reason), Some(HoldReason::Suspended));
    s.feed(Event::Configured(Settings::default()));
    let effects = s.feed(Event::Candidate(release("a")));
    assert_eq!(effects, [Effect::Check { digest: digest("a"), approved: false }]);
}

#[test]
fn an_approval_opens_the_door_once_and_lifts_no_block() {
    let mut s = Script::with(Settings { approval_required: true, ..Settings::default() });
    let approve =
        |name: &str| Event::Commanded { command: Command::Approve(digest(name)), actor: "mina".into() };
    for name in ["a", "b"] {
        s.feed(Event::Candidate(release(name)));
        s.feed(Event::Admitted { digest: digest(name) });
        s.feed(approve(name));
        s.feed(Event::Admitted { digest: digest(name) });
        s.applied(name, ApplyMode::Full, vec![]);
        if name == "a" {
            s.ready();
            s.prune(name);
        }
    }
    s.unready("CrashLoopBackOff", true);
    s.applied("a", ApplyMode::Rollback, vec![]);
    s.ready();
    s.prune("a");
    s.feed(Event::Candidate(release("b")));
    assert_eq!(s.rollout.held.as_ref().map(|held| held.reason), Some(HoldReason::DigestBlocked));
    assert_eq!(s.feed(approve("b")), [], "what failed is not approved back to life");
}

#[test]
fn a_release_that_could_not_be_written_is_not_blocked() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.feed(Event::ApplyFailed {
        digest: digest("b"),
        mode: ApplyMode::Canary { pods: 1 },
        message: "503".into(),
    });
    s.pass(301);
    assert_eq!(s.rollout.phase, Phase::RollingBack);
    s.applied("a", ApplyMode::Rollback, vec![]);
    s.ready();
    s.prune("a");
    assert!(s.rollout.block_on(&digest("b")).is_none());
    assert_eq!(s.feed(Event::Candidate(release("b"))), []);
    assert!(s.pass(60).contains(&Effect::Check { digest: digest("b"), approved: false }));
}

#[test]
fn a_restart_after_a_long_outage_convicts_nobody() {
    let mut s = Script::new();
    s.settle("a");
    s.admit("b");
    s.now += SignedDuration::from_secs(3600);
    s.feed(Event::Started);
    s.feed(Event::Tick);
    assert_eq!(s.rollout.phase, Phase::Applying);
}

#[test]
fn a_check_that_a_crash_cut_off_is_made_again() {
    let mut s = Script::new();
    s.feed(Event::Candidate(release("a")));
    let problem =
        DoorProblem { reason: HoldReason::ApplyRejected, message: "no kind".into(), transient: false };
    s.feed(Event::Refused { digest: digest("a"), problem });
    assert_eq!(s.pass(15).len(), 1);
    s.rollout = serde_json::from_str(&serde_json::to_string(&s.rollout).unwrap()).unwrap();
    s.feed(Event::Started);
    assert_eq!(s.pass(1), [Effect::Check { digest: digest("a"), approved: false }]);
}

#[test]
fn a_late_canary_is_judged_before_it_settles() {
    let mut s = Script::with(Settings {
        canary_pods: 1,
        gates: vec![gate()],
        rollback: RollbackMode::Manual,
        ..Settings::default()
    });
    s.settle("a");
    s.admit("b");
    s.applied("b", ApplyMode::Canary { pods: 1 }, vec![backend()]);
    s.unready("Progressing", false);
    s.pass(301);
    assert_eq!(s.rollout.phase, Phase::Failed);
    s.ready();
    assert_eq!(s.rollout.phase, Phase::Canary);
}

#[test]
fn the_outbox_stays_small_when_nobody_listens() {
    let mut s = Script::new();
    s.settle("a");
    for round in 0..400 {
        let name = if round % 2 == 0 { "x" } else { "y" };
        let message = "é".repeat(9000);
        let problem = DoorProblem { reason: HoldReason::PolicyDenied, message, transient: false };
        for event in [Event::Candidate(release(name)), Event::Refused { digest: digest(name), problem }] {
            s.rollout = step(&s.rollout, &event, s.now).0;
        }
    }
    check_invariants(&s.rollout);
    let size = serde_json::to_string(&s.rollout).unwrap().len();
    assert!(size < 600_000, "{size} bytes");
}

#[test]
fn a_person_goes_back_from_a_settled_release() {
    let mut s = Script::new();
    s.settle("a");
    s.settle("b");
    s.feed(Event::Commanded { command: Command::Rollback, actor: "mina".into() });
    assert_eq!(s.rollout.phase, Phase::RollingBack);
    assert_eq!(s.rollout.serving().map(|r| r.digest), Some(digest("a")));
    assert!(s.rollout.block_on(&digest("b")).is_some());
}

#[test]
fn a_commit_that_does_not_render_is_told_once_and_changes_nothing() {
    let mut s = Script::new();
    s.settle("a");
    let problem = SourceProblem {
        reason: "RenderFailed".into(),
        message: "k.yaml:3: no".into(),
        commit_at_fault: true,
    };
    assert_eq!(s.feed(Event::SourceFailed(problem.clone())), [Effect::Announce]);
    assert_eq!(s.feed(Event::SourceFailed(problem)), []);
    assert_eq!(s.rollout.phase, Phase::Settled);
    s.feed(Event::Candidate(release("a")));
    assert!(s.rollout.source_problem.is_none());
}

/// A small generator with a fixed seed: the same scripts in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Whatever happens in whatever order, the invariants hold, and a world that behaves from some moment on
/// brings the environment to rest.
#[test]
fn any_order_of_events_keeps_the_invariants_and_comes_to_rest() {
    let names = ["a", "b", "c"];
    for seed in 0..80 {
        let mut random = Lcg(seed);
        let mut s = Script::new();
        for _ in 0..60 {
            let name = names[random.below(3) as usize];
            let mode = match random.below(4) {
                0 => ApplyMode::Full,
                1 => ApplyMode::Canary { pods: 1 },
                2 => ApplyMode::Promote,
                _ => ApplyMode::Rollback,
            };
            match random.below(16) {
                0 | 1 => drop(s.feed(Event::Candidate(release(name)))),
                2 | 3 => drop(s.feed(Event::Admitted { digest: digest(name) })),
                4 => {
                    let reason = if random.below(2) == 0 {
                        HoldReason::PolicyDenied
                    } else {
                        HoldReason::ApplyRejected
                    };
                    let problem =
                        DoorProblem { reason, message: "no".into(), transient: random.below(2) == 0 };
                    s.feed(Event::Refused { digest: digest(name), problem });
                }
                5 | 6 => s.applied(name, mode, if random.below(2) == 0 { vec![backend()] } else { vec![] }),
                7 => drop(s.feed(Event::ApplyFailed { digest: digest(name), mode, message: "503".into() })),
                8 | 9 => drop(s.ready()),
                10 => drop(s.unready("CrashLoopBackOff", random.below(3) == 0)),
                11 => s.prune(name),
                12 => drop(s.pass(random.below(400) as i64)),
                13 => drop(s.feed(Event::Started)),
                14 => drop(s.feed(Event::Drifted { objects: vec![backend()] })),
                _ => {
                    let command = match random.below(3) {
                        0 => Command::Retry,
                        1 => Command::Rollback,
                        _ => Command::Approve(digest(name)),
                    };
                    s.feed(Event::Commanded { command, actor: "mina".into() });
                }
            }
        }
        // From now on everything that is asked for is done, and every pod is ready.
        let mut asked = s.feed(Event::Started);
        asked.extend(s.feed(Event::Candidate(release("d"))));
        for _ in 0..60 {
            for effect in std::mem::take(&mut asked) {
                asked.extend(match effect {
                    Effect::Check { digest, .. } => s.feed(Event::Admitted { digest }),
                    Effect::Apply { digest, mode } => {
                        let canaries =
                            if matches!(mode, ApplyMode::Canary { .. }) { vec![backend()] } else { vec![] };
                        s.feed(Event::Applied { digest, mode, canaries, changed: 1 })
                    }
                    Effect::Prune { digest, .. } => {
                        s.feed(Event::Pruned { digest, deleted: 0, kept: vec![] })
                    }
                    Effect::Observe => s.ready(),
                    Effect::Sample { gate } => {
                        let sample = Sample {
                            at: s.now,
                            new: Measurement::Value(0.0),
                            old: Some(Measurement::Value(0.0)),
                            query: "q".into(),
                        };
                        s.feed(Event::Sampled { gate, sample })
                    }
                    Effect::Announce | Effect::Warn { .. } => Vec::new(),
                });
            }
            asked.extend(s.pass(1));
        }
        assert_eq!(s.rollout.phase, Phase::Settled, "seed {seed}: {:#?}", s.log);
        assert_eq!(s.rollout.settled.as_ref().map(|r| r.digest), Some(digest("d")), "seed {seed}");
    }
}
