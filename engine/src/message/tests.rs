//! What people read, word for word.

use jiff::Timestamp;

use super::*;
use crate::object::Digest;
use crate::rollout::{
    Failure, Held, HoldReason, Outgoing, Phase, Reason, Release, Revision, Rollout, SourceProblem, Transition,
};

fn release(name: &str) -> Release {
    Release {
        digest: Digest::of_bytes(name.as_bytes()),
        revision: Revision {
            commit: format!("{name:0<40}"),
            reference: "main".into(),
            subject: format!("Release {name} <b>&"),
            author: "Mina Rahman <mina@example.org>".into(),
            ..Revision::default()
        },
        images: vec![],
        objects: 3,
    }
}

fn transition(sequence: u64, reason: Reason, to: Phase, message: &str) -> Transition {
    Transition {
        sequence,
        at: Timestamp::from_second(1_700_000_000 + sequence as i64).unwrap(),
        reason,
        from: Phase::Applying,
        to,
        message: message.into(),
        release: Some(release("b")),
        serving: Some(release("a")),
        actor: "git".into(),
        gates: vec![],
        started: Timestamp::from_second(1_700_000_000).unwrap(),
    }
}

fn lines(rollout: &Rollout) -> Vec<String> {
    conditions(rollout)
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect()
}

#[test]
fn an_outage_of_git_leaves_ready_alone_and_a_broken_commit_does_not() {
    let mut rollout = Rollout::new("holdfast-system/dev", Timestamp::UNIX_EPOCH);
    rollout.phase = Phase::Settled;
    rollout.settled = Some(release("a"));
    assert_eq!(
        lines(&rollout)[0],
        "Ready=True Settled: main@a00000000000 is settled and ready: Release a <b>&"
    );

    let problem = |reason: &str, message: &str, commit_at_fault| SourceProblem {
        reason: reason.into(),
        message: message.into(),
        commit_at_fault,
    };
    rollout.source_problem = Some(problem("FetchTimedOut", "no answer within 60 s", false));
    let told = lines(&rollout);
    assert!(told[0].starts_with("Ready=True"), "{told:?}");
    assert_eq!(told[3], "SourceReady=False FetchTimedOut: no answer within 60 s");
    assert!(summary(&rollout).ends_with("the source is out of reach: no answer within 60 s"));

    rollout.source_problem = Some(problem("RenderFailed", "dev/k.yaml:3: unknown field", true));
    let told = lines(&rollout);
    assert_eq!(told[0], "Ready=False RenderFailed: dev/k.yaml:3: unknown field; main@a00000000000 serves");
    assert!(told[2].starts_with("Stalled=True RenderFailed"), "{told:?}");
}

#[test]
fn a_rolled_back_environment_is_stalled_and_says_what_serves() {
    let mut rollout = Rollout::new("holdfast-system/dev", Timestamp::UNIX_EPOCH);
    rollout.phase = Phase::RolledBack;
    rollout.settled = Some(release("a"));
    rollout.target = Some(release("b"));
    rollout.failure =
        Some(Failure { reason: "GateFailed".into(), message: "gate errors: 0.2 is too much".into() });
    let expected = "main@b00000000000 failed (gate errors: 0.2 is too much); main@a00000000000 serves";
    assert_eq!(lines(&rollout)[0], format!("Ready=False RolledBack: {expected}"));
    rollout.held = Some(Held {
        release: release("b"),
        reason: HoldReason::DigestBlocked,
        message: "this bundle failed".into(),
        retry_at: None,
        attempts: 1,
    });
    assert_eq!(
        lines(&rollout)[2],
        "Stalled=True DigestBlocked: main@b00000000000 waits: this bundle failed; main@a00000000000 serves"
    );
}

#[test]
fn a_rollout_is_one_message_and_its_outcome_is_never_merged_away() {
    let outgoing = |transition| Outgoing { transition, recorded: true, notified: false };
    let outbox = [
        outgoing(transition(1, Reason::RolloutStarted, Phase::Applying, "rolling out")),
        outgoing(transition(2, Reason::CanaryStarted, Phase::Canary, "canary holds")),
        outgoing(transition(3, Reason::RolloutFailed, Phase::Failed, "gate errors: 20 % failed")),
        outgoing(transition(4, Reason::RollbackStarted, Phase::RollingBack, "going back")),
        outgoing(transition(5, Reason::RolledBack, Phase::RolledBack, "main@a serves again")),
    ];
    let stories = Story::pending("holdfast-system/dev", &outbox);
    let told: Vec<_> = stories.iter().map(|story| (story.sequence, story.headline.as_str())).collect();
    assert_eq!(told, [(3, "failed"), (5, "rolled back")]);
    assert_eq!(stories[0].key, stories[1].key);
}

#[test]
fn slack_reads_what_was_written_and_nothing_in_it_mentions_anybody() {
    let story = Story::of(
        "holdfast-system/dev",
        &transition(5, Reason::RolledBack, Phase::RolledBack, "<!channel> a & b"),
    );
    let text = serde_json::to_string_pretty(&blocks(&story)).unwrap();
    assert!(!text.contains("<!channel>") && text.contains("&lt;!channel&gt; a &amp; b"), "{text}");
    assert!(text.contains("*dev* rolled back"), "{text}");
    assert!(text.contains("Mina Rahman") && !text.contains("mina@example.org"), "{text}");
    assert_eq!(
        webhook_text(&story),
        ":leftwards_arrow_with_hook: dev rolled back: &lt;!channel&gt; a &amp; b. Serving now: main@a00000000000. \
         Next: the bundle is blocked: push a change, or `holdfast retry`"
    );
    assert_eq!(detail(&story), "`22:13:25` &lt;!channel&gt; a &amp; b");
}

#[test]
fn events_fit_into_what_the_api_server_takes() {
    let long = "é".repeat(2000);
    let event = kubernetes_event(&transition(1, Reason::Held, Phase::Held, &long));
    assert!(event.note.len() <= 1024 && event.note.ends_with('…'));
    assert_eq!((event.type_, event.reason.as_str()), ("Warning", "Held"));
}
