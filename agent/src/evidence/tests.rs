//! Evidence against real repositories.

use std::process::Command;

use engine::rollout::{Phase, Reason};
use git2::{Oid, Repository};
use jiff::Timestamp;

use super::*;

const BRANCH: &str = "audit/dev";
const DEADLINE: Duration = Duration::from_secs(30);

struct Place {
    data: tempfile::TempDir,
    remote: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { data: tempfile::tempdir().unwrap(), remote: tempfile::tempdir().unwrap() };
        Repository::init_bare(place.path()).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.remote.path().join("shop.git")
    }

    fn target(&self) -> EvidenceTarget {
        EvidenceTarget {
            url: self.path().to_str().unwrap().to_owned(),
            credentials: None,
            branch: BRANCH.to_owned(),
            environment: "ns/dev".to_owned(),
            signing_key: None,
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence::new(self.data.path())
    }

    fn away(&self) -> PathBuf {
        self.remote.path().join("away.git")
    }

    fn tip(&self) -> Oid {
        Repository::open(self.path()).unwrap().refname_to_id("refs/heads/audit/dev").unwrap()
    }
}

fn transition(sequence: u64) -> Transition {
    let at = Timestamp::from_second(1_700_000_000 + i64::try_from(sequence).unwrap()).unwrap();
    let release = serde_json::from_value(serde_json::json!({
        "digest": Digest::of_bytes(b"bundle"),
        "revision": {"commit": "1".repeat(40), "reference": "main"},
    }))
    .unwrap();
    Transition {
        sequence,
        at,
        reason: Reason::Settled,
        from: Phase::Observing,
        to: Phase::Settled,
        message: format!("number {sequence}"),
        release: Some(release),
        serving: None,
        actor: "git".into(),
        gates: Vec::new(),
        started: at,
    }
}

async fn append(evidence: &Evidence, target: &EvidenceTarget, sequence: u64) -> Written {
    evidence.append(target, &transition(sequence), &Context::default(), None).await.unwrap()
}

fn verified(path: &Path) -> u64 {
    let records = read(path, BRANCH).unwrap();
    engine::audit::verify(records, None).unwrap().records
}

#[tokio::test]
async fn records_are_chained_pushed_and_verified() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    let first = append(&evidence, &target, 1).await;
    let second = append(&evidence, &target, 2).await;
    assert_eq!((first.sequence, second.sequence), (1, 2));
    // A repetition is the same record.
    assert_eq!(append(&evidence, &target, 2).await, second);
    assert!(evidence.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 2);
    assert_eq!(place.tip().to_string(), second.commit);
    let repository = Repository::open(place.path()).unwrap();
    let commit = repository.find_commit(place.tip()).unwrap();
    assert!(commit.message().unwrap().contains("Environment: ns/dev"), "{:?}", commit.message());
    assert_eq!(commit.time().seconds(), transition(2).at.as_second());
    assert_eq!(commit.parent(0).unwrap().parent_count(), 0);
    let note = |repository: &Repository| {
        let note =
            repository.find_note(Some("refs/notes/deployments"), Oid::from_str(&"1".repeat(40)).unwrap());
        note.map(|note| note.message().unwrap().to_owned()).unwrap_or_default()
    };
    tokio::time::timeout(DEADLINE, async {
        while note(&repository).lines().count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the one-line mirror has both");
}

#[tokio::test]
async fn an_anchor_notices_a_shortened_and_a_changed_branch() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    let first = append(&evidence, &target, 1).await;
    let good = evidence.append(&target, &transition(2), &Context::default(), Some(first.anchor())).await;
    let (sequence, digest) = good.unwrap().anchor();
    let ahead =
        evidence.append(&target, &transition(3), &Context::default(), Some((sequence + 1, digest))).await;
    assert!(matches!(ahead, Err(EvidenceError::Truncated { found: 2, expected: 3, .. })), "{ahead:?}");
    let other = (2, Digest::of_bytes(b"other"));
    let changed =
        evidence.append(&target, &transition(3), &Context::default(), Some(other)).await.unwrap_err();
    assert!(matches!(changed, EvidenceError::Tampered { sequence: 2, .. }) && changed.is_tampering());
}

#[tokio::test]
async fn a_fresh_agent_continues_the_branch_of_the_remote() {
    let place = Place::new();
    let target = place.target();
    let evidence = place.evidence();
    let first = append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    let elsewhere = tempfile::tempdir().unwrap();
    let fresh = Evidence::new(elsewhere.path());
    assert_eq!(append(&fresh, &target, 1).await, first);
    assert_eq!(append(&fresh, &target, 2).await.sequence, 2);
    assert!(fresh.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 2);
}

#[tokio::test]
async fn a_remote_that_is_away_delays_nothing_but_the_first_record() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    std::fs::rename(place.path(), place.away()).unwrap();
    let first = evidence.append(&target, &transition(1), &Context::default(), None).await;
    assert!(matches!(first, Err(EvidenceError::Unreachable { .. })), "{first:?}");
    std::fs::rename(place.away(), place.path()).unwrap();
    append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    std::fs::rename(place.path(), place.away()).unwrap();
    append(&evidence, &target, 2).await;
    let mut progress = evidence.progress(&target).unwrap();
    let failed = progress.wait_for(|progress| progress.problem.is_some());
    let failed = tokio::time::timeout(DEADLINE, failed).await.unwrap().unwrap().clone();
    assert_eq!((failed.written, failed.pushed), (2, 1));
    assert!(!evidence.flush(Duration::from_millis(10)).await);
    // The agent is killed, and another process finds the record in the data directory.
    drop(evidence);
    std::fs::rename(place.away(), place.path()).unwrap();
    let after = place.evidence();
    let mut progress = after.progress(&target).unwrap();
    let pushed = progress.wait_for(|progress| progress.pushed == 2);
    tokio::time::timeout(DEADLINE, pushed).await.unwrap().unwrap();
    assert_eq!(verified(&place.path()), 2);
}

/// A second clone writes one more commit to the remote branch, with the records given.
fn meddle(place: &Place, files: &[(&str, &str)], parent: Oid) -> Oid {
    let repository = Repository::open(place.path()).unwrap();
    let parent = repository.find_commit(parent).unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    for (path, content) in files {
        update.upsert(*path, repository.blob(content.as_bytes()).unwrap(), git2::FileMode::Blob);
    }
    let tree = update.create_updated(&repository, &parent.tree().unwrap()).unwrap();
    let tree = repository.find_tree(tree).unwrap();
    let who = git2::Signature::now("Eve", "eve@example.com").unwrap();
    let id = repository.commit(None, &who, &who, "meddle", &tree, &[&parent]).unwrap();
    repository.reference("refs/heads/audit/dev", id, true, "push").unwrap();
    id
}

#[tokio::test]
async fn a_branch_that_somebody_added_to_keeps_all_records() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    // A README is no record: harmless, so our records go on top of it.
    let eve = meddle(&place, &[("README.md", "hello")], place.tip());
    append(&evidence, &target, 2).await;
    assert!(evidence.flush(DEADLINE).await);
    let repository = Repository::open(place.path()).unwrap();
    assert!(repository.graph_descendant_of(place.tip(), eve).unwrap());
    let record = chain::record(&repository, place.tip(), 2).unwrap().unwrap();
    assert!(String::from_utf8(record).unwrap().contains("number 2"));
    // Still, a commit that the agent did not make is shown to whoever verifies.
    assert!(matches!(read(&place.path(), BRANCH), Err(EvidenceError::Altered { .. })));
}

#[tokio::test]
async fn a_changed_record_stops_the_push_and_is_never_overwritten() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    let eve = meddle(&place, &[(&chain::path(1), "{}")], place.tip());
    append(&evidence, &target, 2).await;
    let mut progress = evidence.progress(&target).unwrap();
    let stopped =
        progress.wait_for(|progress| progress.problem.as_ref().is_some_and(EvidenceError::is_tampering));
    tokio::time::timeout(DEADLINE, stopped).await.unwrap().unwrap();
    assert_eq!(place.tip(), eve);
    assert!(matches!(read(&place.path(), BRANCH), Err(EvidenceError::Altered { .. })));
}

#[tokio::test]
async fn a_deleted_branch_comes_back_and_a_missing_one_is_named() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    let repository = Repository::open(place.path()).unwrap();
    repository.find_reference("refs/heads/audit/dev").unwrap().delete().unwrap();
    let error = read(&place.path(), BRANCH).unwrap_err().to_string();
    assert!(error.contains("git fetch origin audit/dev:audit/dev"), "{error}");
    append(&evidence, &target, 2).await;
    assert!(evidence.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_is_pushed_over_http_by_those_who_may() {
    use crate::source::tests::http::{credentials, serve};
    let place = Place::new();
    let Some(server) = serve(place.remote.path().to_owned(), Some("hunter2")).await else { return };
    let url = format!("{server}/shop.git");
    let evidence = place.evidence();
    let stranger =
        EvidenceTarget { url: url.clone(), credentials: Some(credentials("other")), ..place.target() };
    let refused = evidence.append(&stranger, &transition(1), &Context::default(), None).await.unwrap_err();
    assert!(refused.to_string().contains("401") && !refused.to_string().contains("other"), "{refused}");
    let target = EvidenceTarget { url, credentials: Some(credentials("hunter2")), ..place.target() };
    append(&evidence, &target, 1).await;
    assert!(evidence.flush(DEADLINE).await);
    append(&evidence, &target, 2).await;
    assert!(evidence.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 2);
    // Another clone moved the branch on.
    let eve = meddle(&place, &[("README.md", "hello")], place.tip());
    append(&evidence, &target, 3).await;
    assert!(evidence.flush(DEADLINE).await);
    let repository = Repository::open(place.path()).unwrap();
    assert!(repository.graph_descendant_of(place.tip(), eve).unwrap());
    assert!(chain::record(&repository, place.tip(), 3).unwrap().is_some());
}

/// Records are written while earlier ones are being pushed: what counts as pushed must have arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_as_pushed_has_arrived() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    let mut progress = evidence.progress(&target).unwrap();
    for sequence in 1..=40 {
        append(&evidence, &target, sequence).await;
        let pushed = progress.borrow_and_update().pushed;
        if pushed > 0 {
            let repository = Repository::open(place.path()).unwrap();
            assert!(chain::record(&repository, place.tip(), pushed).unwrap().is_some(), "{pushed}");
        }
    }
    assert!(evidence.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 40);
}

#[tokio::test]
async fn environments_of_one_repository_have_branches_of_their_own() {
    let place = Place::new();
    let (evidence, target) = (place.evidence(), place.target());
    let other = EvidenceTarget { branch: "audit/prod".into(), ..place.target() };
    for sequence in 1..=3 {
        append(&evidence, &target, sequence).await;
        append(&evidence, &other, sequence).await;
    }
    assert!(evidence.flush(DEADLINE).await);
    assert_eq!(verified(&place.path()), 3);
    assert_eq!(read(&place.path(), "audit/prod").unwrap().len(), 3);
    let bad = EvidenceTarget { branch: "a..b".into(), ..place.target() };
    assert!(matches!(evidence.progress(&bad), Err(EvidenceError::InvalidTarget { .. })));
}

#[tokio::test]
async fn commits_are_signed_so_that_git_verifies_them() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "audit", "-f"])
        .arg(&key)
        .status();
    let git = Command::new("git").arg("--version").output();
    if !made.is_ok_and(|status| status.success()) || git.is_err() {
        eprintln!("skipped: needs git and ssh-keygen to verify signatures");
        return;
    }
    let public = std::fs::read_to_string(keys.path().join("key.pub")).unwrap();
    let signers = keys.path().join("signers");
    std::fs::write(&signers, format!("agent@holdfast.dev namespaces=\"git\" {public}")).unwrap();
    let place = Place::new();
    let target = EvidenceTarget {
        signing_key: Some(Secret::new(std::fs::read_to_string(&key).unwrap())),
        ..place.target()
    };
    let evidence = place.evidence();
    append(&evidence, &target, 1).await;
    append(&evidence, &target, 2).await;
    assert!(evidence.flush(DEADLINE).await);
    let verify = |commit: &str| {
        let output = Command::new("git")
            .arg("-c")
            .arg(format!("gpg.ssh.allowedSignersFile={}", signers.display()))
            .args(["-c", "gpg.format=ssh", "verify-commit", commit])
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Good \"git\" signature for agent@holdfast.dev")
        );
    };
    verify("audit/dev");
    verify("audit/dev~1");
    // Records that have to move are signed anew.
    meddle(&place, &[("README.md", "hello")], place.tip());
    append(&evidence, &target, 3).await;
    assert!(evidence.flush(DEADLINE).await);
    verify("audit/dev");
    let rsa = EvidenceTarget { signing_key: Some(Secret::new("nonsense".into())), ..place.target() };
    let refused = evidence.append(&rsa, &transition(4), &Context::default(), None).await;
    assert!(matches!(refused, Err(EvidenceError::InvalidKey { .. })));
}
