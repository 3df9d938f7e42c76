//! Crashes, outages, approvals and silence: what must not go wrong at the edges.

use jiff::SignedDuration;

use super::super::*;
use super::{Script, backend, check_invariants, digest, gate, release};

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
    let problem = DoorProblem {
        reason: HoldReason::ApplyRejected,
        message: "no kind".into(),
        transient: false,
        again_at: None,
    };
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
        let problem =
            DoorProblem { reason: HoldReason::PolicyDenied, message, transient: false, again_at: None };
        for event in [Event::Candidate(release(name)), Event::Refused { digest: digest(name), problem }] {
            s.rollout = step(&s.rollout, &event, s.now).0;
        }
    }
    check_invariants(&s.rollout);
    let size = serde_json::to_string(&s.rollout).unwrap().len();
    assert!(size < 600_000, "{size} bytes");
}
