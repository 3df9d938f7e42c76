//! The ways of a release, one script each.

use super::super::*;
use super::{Script, backend, digest, release};
use crate::gate::{Measurement, Sample};

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
        again_at: None,
    };
    s.feed(Event::Refused { digest: digest("c"), problem });
    assert_eq!(s.rollout.phase, Phase::Canary);
    assert_eq!(s.rollout.held.as_ref().map(|h| h.reason), Some(HoldReason::PolicyDenied));
}

#[test]
fn what_the_server_refuses_is_tried_again_with_growing_pauses() {
    let mut s = Script::new();
    s.feed(Event::Candidate(release("a")));
    let problem = DoorProblem {
        reason: HoldReason::ApplyRejected,
        message: "no kind X".into(),
        transient: false,
        again_at: None,
    };
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
