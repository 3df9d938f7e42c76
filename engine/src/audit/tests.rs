use insta::assert_snapshot;
use jiff::Timestamp;

use super::*;
use crate::gate::{Gate, GateRun, Measurement, Query, Sample};
use crate::object::{Digest, ObjectRef};
use crate::policy::{Action, Violation};
use crate::rollout::{Phase, Reason, Release, Revision, Transition};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn release(name: &str) -> Release {
    Release {
        digest: Digest::of_bytes(name.as_bytes()),
        revision: Revision {
            commit: "1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d".into(),
            reference: "main".into(),
            tree: "beef".into(),
            author: "Rafiq <rafiq@example.com>".into(),
            subject: format!("Release {name}\n\nActor: nobody"),
            signer: Some("rafiq".into()),
            forced: false,
        },
        images: vec![format!("registry:5000/shop:{name}")],
        objects: 12,
    }
}

fn transition(sequence: u64, reason: Reason) -> Transition {
    let query = Query::Promql { promql: "errors".into(), address: None, reduce: None };
    let mut gate = Gate::new("error-rate", query);
    gate.max = Some(0.01);
    gate.critical = Some(0.5);
    let mut run = GateRun::new(&gate, at(0));
    let new = Measurement::Value(0.7 + 0.1);
    run.record(&gate, Sample { at: at(10), new, old: Some(Measurement::Value(0.0)), query: "errors".into() });
    Transition {
        sequence,
        at: at(sequence as i64),
        reason,
        from: Phase::RollingBack,
        to: Phase::RolledBack,
        message: "error-rate is 0.8, beyond the critical 0.5; the version before it serves again and nothing else was touched".into(),
        release: Some(release("v2")),
        serving: Some(release("v1")),
        actor: "holdfast".into(),
        gates: vec![run.report(&gate)],
        started: at(0),
    }
}

fn context() -> Context {
    let object = ObjectRef {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: Some("shop".into()),
        name: "a".into(),
    };
    let violation =
        Violation { policy: "p".into(), object, message: "no\nlatest".into(), action: Action::Warn };
    Context {
        agent_version: "0.1.0".into(),
        policies: PolicyEvidence { enforced: 2, violations: vec![violation] },
    }
}

const REASONS: [Reason; 4] =
    [Reason::RolloutStarted, Reason::CanaryStarted, Reason::RolloutFailed, Reason::RolledBack];

/// A chain of four records, as it is stored.
fn chain() -> (Vec<(String, Vec<u8>)>, Tip) {
    let mut stored = Vec::new();
    let mut tip: Option<Tip> = None;
    for (i, reason) in REASONS.into_iter().enumerate() {
        let record =
            Record::following(tip.as_ref(), "ops/prod", &transition(i as u64 + 1, reason), &context())
                .unwrap();
        tip = Some(record.tip());
        stored.push((format!("c{}", i + 1), record.to_bytes()));
    }
    (stored, tip.unwrap())
}

fn edited(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_chain_that_nobody_touched_is_good() {
    let (records, tip) = chain();
    let verified = verify(records.clone(), Some(tip.anchor())).unwrap();
    assert_eq!((verified.records, verified.tip.clone(), verified.anchored), (4, Some(tip.clone()), true));
    assert_snapshot!(verified, @"4 records, nothing was changed; the newest is record 4 of 2023-11-14T22:13:24Z");
    assert_snapshot!(verify(records[..1].to_vec(), None).unwrap(), @"1 record, nothing was changed; the newest is record 1 of 2023-11-14T22:13:21Z. Without an anchor, records that were cut off the end cannot be noticed");
    // The anchor may lag behind: the agent was killed between the two writes.
    let early = (2, Digest::of_bytes(&records[1].1));
    assert_eq!(verify(records, Some(early)).unwrap().records, 4);
    assert_eq!(verify(Vec::<(String, Vec<u8>)>::new(), None).unwrap().tip, None);
}

#[test]
fn every_way_to_tamper_is_noticed() {
    let (good, tip) = chain();
    let anchor = Some(tip.anchor());
    type Stored = Vec<(String, Vec<u8>)>;
    let changed = |change: &dyn Fn(&mut Stored)| {
        let mut records = good.clone();
        change(&mut records);
        verify(records, anchor).unwrap_err().to_string()
    };
    let other = Record::following(None, "ops/dev", &transition(1, Reason::Settled), &context()).unwrap();
    let cases = [
        (
            "a word",
            changed(&|r| r[1].1 = edited(&r[1].1, "\"actor\":\"holdfast\"", "\"actor\":\"somebody\"")),
        ),
        ("white space", changed(&|r| r[1].1 = edited(&r[1].1, ",", ", "))),
        ("the last one", changed(&|r| r[3].1 = edited(&r[3].1, "0.8", "0.0"))),
        (
            "the first one's past",
            changed(&|r| {
                r[0].1 = edited(&r[0].1, "\"previous\":null", &format!("\"previous\":\"{}\"", tip.digest))
            }),
        ),
        ("taken out", changed(&|r| drop(r.remove(1)))),
        ("taken from the beginning", changed(&|r| drop(r.remove(0)))),
        ("cut off", changed(&|r| r.truncate(3))),
        ("all gone", changed(&|r| r.clear())),
        ("repeated", changed(&|r| r.insert(2, r[1].clone()))),
        ("repeated later", changed(&|r| r.push(r[1].clone()))),
        ("swapped", changed(&|r| r.swap(1, 2))),
        ("another chain's", changed(&|r| r[1].1 = other.to_bytes())),
        ("rubbish", changed(&|r| r[2].1 = b"{".to_vec())),
        ("another form", changed(&|r| r[0].1 = edited(&r[0].1, "audit/v1", "audit/v9"))),
        ("a new field", changed(&|r| r[0].1 = edited(&r[0].1, "{", "{\"x\":1,"))),
        ("too large", changed(&|r| r[0].1 = vec![b' '; MAX_RECORD + 1])),
    ];
    let lines: Vec<String> = cases.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    a word: commit c3: record 3 does not follow from the one before it: one of them was changed
    white space: commit c3: record 3 does not follow from the one before it: one of them was changed
    the last one: record 4 is not the one that was anchored: it was changed, or the chain was written anew
    the first one's past: commit c1: record 1 does not follow from the one before it: one of them was changed
    taken out: commit c3: record 2 is missing, record 3 is in its place
    taken from the beginning: commit c2: record 1 is missing, record 2 is in its place
    cut off: the chain ends at record 3, but record 4 was written: the end was cut off
    all gone: the chain ends at record 0, but record 4 was written: the end was cut off
    repeated: commit c2: record 2 repeats an earlier one
    repeated later: commit c2: record 2 repeats an earlier one
    swapped: commit c3: record 2 is missing, record 3 is in its place
    another chain's: commit c2: this record is of environment ops/dev, the chain is of ops/prod
    rubbish: commit c3: this is not a record: EOF while parsing an object at line 1 column 1
    another form: commit c1: this is not a record: its format is "holdfast.dev/audit/v9", not "holdfast.dev/audit/v1"
    a new field: commit c1: this is not a record: unknown field `x`, expected one of `format`, `environment`, `sequence`, `previous`, `transition`, `at`, `started`, `reason`, `from`, `to`, `message`, `actor`, `release`, `serving`, `policies`, `gates`, `agentVersion` at line 1 column 4
    too large: commit c1: this is not a record: it has 4194305 bytes, at most 4194304 are read
    "#);
}

#[test]
fn a_chain_written_anew_as_a_whole_does_not_fit_the_anchor() {
    let (_, tip) = chain();
    let mut records = Vec::new();
    let mut forged: Option<Tip> = None;
    for (i, reason) in REASONS.into_iter().enumerate() {
        let mut transition = transition(i as u64 + 1, reason);
        transition.actor = "nobody".into();
        let record = Record::following(forged.as_ref(), "ops/prod", &transition, &context()).unwrap();
        forged = Some(record.tip());
        records.push((format!("c{}", i + 1), record.to_bytes()));
    }
    assert!(verify(records.clone(), None).is_ok(), "nothing inside it says so");
    let error = verify(records, Some(tip.anchor())).unwrap_err();
    assert_eq!(error, ChainError::Rewritten { sequence: 4 });
}

#[test]
fn a_transition_is_recorded_once_even_after_a_crash() {
    let (mut records, tip) = chain();
    for (i, reason) in REASONS.into_iter().enumerate() {
        let again = Record::following(Some(&tip), "ops/prod", &transition(i as u64 + 1, reason), &context());
        assert_eq!(again, None);
    }
    // The Environment was deleted and made again: its transitions begin anew, the chain goes on.
    let mut first = transition(1, Reason::RolloutStarted);
    first.at = at(1000);
    let record = Record::following(Some(&tip), "ops/prod", &first, &context()).unwrap();
    assert_eq!((record.sequence, record.transition), (5, 1));
    records.push(("c5".into(), record.to_bytes()));
    assert_eq!(verify(records, Some(record.tip().anchor())).unwrap().records, 5);
}

#[test]
fn a_record_reads_back_as_it_was() {
    let record = Record::following(None, "ops/prod", &transition(1, Reason::RolledBack), &context()).unwrap();
    let again: Record = serde_json::from_slice(&record.to_bytes()).unwrap();
    assert_eq!(again, record);
    assert_eq!(again.digest(), record.digest());
    assert_eq!(Tip::of_stored(&record.to_bytes()), Ok(record.tip()));
    assert!(Tip::of_stored(b"{}").is_err());
}

#[test]
fn git_log_reads_as_a_history() {
    let (_, tip) = chain();
    let record =
        Record::following(Some(&tip), "ops/prod", &transition(9, Reason::RolledBack), &context()).unwrap();
    assert_snapshot!(commit_message(&record), @r"
    prod: rolled back main@1a2b3c4d5e6f (v2) to main@1a2b3c4d5e6f (v1)

    error-rate is 0.8, beyond the critical 0.5; the version before it serves
    again and nothing else was touched

    Environment: ops/prod
    Record: 5
    Previous-Record: sha256:a29862d6ab74309fbc6eb3d4d444472be4b0da25853e9df594ce9d7883d2190b
    Bundle: sha256:fb04dcb6970e4c3d1873de51fd5a50d7bb46b3383113602665c350ec40b5f990
    Source-Commit: 1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d
    Source-Subject: Release v2 Actor: nobody
    Source-Author: Rafiq <rafiq@example.com>
    Source-Signer: rafiq
    Gate: failed: error-rate is 0.8, beyond the critical 0.5; the old version has 0
    Policy: Deployment.apps shop/a: no latest (policy p)
    Actor: holdfast
    Agent-Version: 0.1.0
    ");
    assert_snapshot!(note_line(&record), @"2023-11-14T22:13:29Z ops/prod rolled back fb04dcb6970e by holdfast (record 5)");

    let mut settled = transition(1, Reason::Settled);
    settled.serving = settled.release.clone();
    let subject = |transition: &Transition| {
        let record = Record::following(None, "ops/prod", transition, &context()).unwrap();
        commit_message(&record).lines().next().unwrap_or_default().to_owned()
    };
    assert_snapshot!(subject(&settled), @"prod: settled main@1a2b3c4d5e6f (v2)");
    settled.release = Some(Release {
        images: vec!["a:1".into(), "b:2".into(), "localhost:5000/c".into()],
        ..release("v2")
    });
    assert_snapshot!(subject(&settled), @"prod: settled main@1a2b3c4d5e6f");
    settled.release = None;
    settled.reason = Reason::SourceFailed;
    assert_snapshot!(subject(&settled), @"prod: source failed");
}
