//! Releases that wait for their time, or for another environment.

use super::super::*;
use super::{Script, digest, release};

fn nights_off() -> Settings {
    // From 18:00 to 08:00; the script begins at midnight.
    let window =
        Window { allow: false, schedule: "0 18 * * *".into(), seconds: 14 * 3600, timezone: "UTC".into() };
    Settings { windows: vec![window], evidence: true, ..Settings::default() }
}

#[test]
fn a_release_in_a_closed_window_waits_and_goes_out_at_its_end() {
    let mut s = Script::with(nights_off());
    s.feed(Event::Candidate(release("a")));
    assert_eq!(s.feed(Event::Admitted { digest: digest("a") }), [Effect::Announce]);
    let held = s.rollout.held.as_ref().unwrap();
    assert_eq!((s.rollout.phase, held.reason), (Phase::Held, HoldReason::WindowClosed));
    assert!(held.message.contains("2026-01-01T08:00:00Z"), "{}", held.message);
    assert_eq!(s.pass(8 * 3600 - 1), []);
    // The cluster may have changed since: the door is passed anew.
    assert_eq!(s.pass(1), [Effect::Check { digest: digest("a"), approved: false }]);
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.phase, Phase::Applying);
    assert_eq!(s.log.len(), 2, "{:?}", s.log);
}

#[test]
fn an_approval_opens_no_window_and_a_changed_window_is_looked_at_at_once() {
    let mut s = Script::with(nights_off());
    s.feed(Event::Candidate(release("a")));
    s.feed(Event::Admitted { digest: digest("a") });
    s.feed(Event::Commanded { command: Command::Approve(digest("a")), actor: "mina".into() });
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.held.as_ref().map(|held| held.reason), Some(HoldReason::WindowClosed));
    let effects = s.feed(Event::Configured(Settings::default()));
    assert_eq!(effects, [Effect::Check { digest: digest("a"), approved: true }]);
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.phase, Phase::Applying);
}

#[test]
fn a_rollout_under_way_and_a_rollback_do_not_wait_for_a_window() {
    let mut s = Script::with(Settings::default());
    s.settle("a");
    s.admit("b");
    s.feed(Event::Configured(nights_off()));
    s.applied("b", ApplyMode::Full, vec![]);
    s.unready("CrashLoopBackOff", true);
    assert_eq!(s.rollout.phase, Phase::RollingBack);
}

#[test]
fn what_waits_for_another_environment_is_tried_when_that_changes() {
    let mut s = Script::with(Settings::default());
    s.feed(Event::Candidate(release("a")));
    let again_at = Some(s.now + jiff::SignedDuration::from_secs(1800));
    let problem = DoorProblem {
        reason: HoldReason::AwaitsEnvironment,
        message: "staging has it for 0 s".into(),
        transient: true,
        again_at,
    };
    s.feed(Event::Refused { digest: digest("a"), problem: problem.clone() });
    assert_eq!(s.rollout.next_wake(), again_at, "the soak's end is known");
    let check = [Effect::Check { digest: digest("a"), approved: false }];
    assert_eq!(s.feed(Event::OtherChanged), check);
    assert_eq!(s.feed(Event::OtherChanged), [], "one look at a time");
    s.feed(Event::Refused { digest: digest("a"), problem });
    assert_eq!(s.feed(Event::Candidate(release("a"))), [], "nothing new");
    let mut newer = release("a");
    newer.revision.commit = "b".repeat(40);
    assert_eq!(s.feed(Event::Candidate(newer)), check, "a commit that may change the other environment");
    s.feed(Event::Admitted { digest: digest("a") });
    assert_eq!(s.rollout.phase, Phase::Applying);
    assert_eq!(s.feed(Event::OtherChanged), [], "it waits no more");
}
