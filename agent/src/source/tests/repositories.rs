//! Cloning, following, force-pushing, tags and commits.

use super::*;

#[tokio::test]
async fn a_branch_is_cloned_and_every_push_is_seen_by_watching() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "environments/dev/app.yaml", "a: 1\n");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    let snapshot = ready(&mut receiver, first).await;
    assert_eq!(snapshot.revision.reference, "main");
    assert_eq!(snapshot.revision.author, "Ada <ada@example.com>");
    assert_eq!(snapshot.revision.subject, "Write environments/dev/app.yaml");
    assert_eq!(snapshot.revision.tree.len(), 40);
    assert!(!snapshot.revision.forced);
    for round in 0..3 {
        let next = remote.commit("main", "environments/dev/app.yaml", &format!("a: {round}0\n"));
        let next = ready(&mut receiver, next).await;
        assert!(!next.revision.forced);
        assert_eq!(text(&next, "environments/dev/app.yaml"), format!("a: {round}0\n"));
    }
    // A snapshot stays what it was.
    assert_eq!(text(&snapshot, "environments/dev/app.yaml"), "a: 1\n");
}

#[tokio::test]
async fn a_file_url_and_a_branch_with_slashes_work_too() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("team/a/main", "x", "1");
    let sources = Sources::new(config(data.path()));
    let url = format!("file://{}", remote.url());
    let mut receiver = sources.subscribe(spec(&url, Reference::Branch("team/a/main".into()), NEVER));
    assert_eq!(ready(&mut receiver, first).await.revision.reference, "team/a/main");
    let second = remote.commit("team/a/main", "x", "2");
    ready(&mut receiver, second).await;
}

#[tokio::test]
async fn without_a_watch_the_interval_finds_the_push() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let sources = Sources::new(SourcesConfig { watch: false, ..config(data.path()) });
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), Duration::from_millis(100)));
    ready(&mut receiver, first).await;
    let second = remote.commit("main", "x", "2");
    ready(&mut receiver, second).await;
}

#[tokio::test]
async fn a_force_push_is_followed_and_marked() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let second = remote.commit("main", "x", "2");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    assert!(!ready(&mut receiver, second).await.revision.forced);
    let rewritten = remote.commit_on("main", Some(first), "x", "other");
    assert!(ready(&mut receiver, rewritten).await.revision.forced);
    let next = remote.commit("main", "x", "3");
    assert!(!ready(&mut receiver, next).await.revision.forced);
}

#[tokio::test]
async fn the_highest_fitting_tag_is_followed() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    remote.tag("v1.0.0", first);
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), Reference::Tag("1.x".into()), NEVER));
    assert_eq!(ready(&mut receiver, first).await.revision.reference, "v1.0.0");
    let second = remote.commit("main", "x", "2");
    remote.tag("v2.0.0", second);
    let third = remote.commit("main", "x", "3");
    remote.tag("v1.1.0", third);
    assert_eq!(ready(&mut receiver, third).await.revision.reference, "v1.1.0");
}

#[tokio::test]
async fn one_commit_can_be_pinned() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    remote.commit("main", "x", "2");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), Reference::Commit(first.to_string()), NEVER));
    let snapshot = ready(&mut receiver, first).await;
    assert_eq!(text(&snapshot, "x"), "1");
    let mut missing = sources.subscribe(spec(&remote.url(), Reference::Commit("1".repeat(40)), NEVER));
    failed(&mut missing, "CommitNotFound").await;
}

#[tokio::test]
async fn environments_share_a_mirror_and_each_gets_its_own_branch() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let main = remote.commit("main", "x", "1");
    let dev = remote.commit("dev", "x", "2");
    let sources = Sources::new(config(data.path()));
    let mut one = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    ready(&mut one, main).await;
    let mut two = sources.subscribe(spec(&remote.url(), Reference::Branch("dev".into()), NEVER));
    let mut three = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    ready(&mut two, dev).await;
    ready(&mut three, main).await;
    assert_eq!(std::fs::read_dir(data.path().join("mirrors")).unwrap().count(), 1);
    assert_eq!(sources.poke(Some(&format!("file://{}", remote.url()))), 1);
    assert_eq!(sources.poke(Some("https://elsewhere.example/shop")), 0);
    assert_eq!(sources.poke(None), 1);
}

#[tokio::test]
async fn a_repository_that_nobody_reads_is_let_go() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), Duration::from_millis(100)));
    ready(&mut receiver, first).await;
    drop(receiver);
    tokio::time::timeout(DEADLINE, async {
        while !sources.registry.lock().unwrap().repositories.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut again = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    ready(&mut again, first).await;
}

#[tokio::test]
async fn a_pushed_commit_is_resolved_without_a_checkout() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "deep/er/file.yaml", "a: 1\n");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    let snapshot = ready(&mut receiver, first).await;
    let names: Vec<String> = walk(data.path());
    assert!(names.iter().all(|name| !name.ends_with("file.yaml")), "{names:?}");
    assert_eq!(text(&snapshot, "deep/er/file.yaml"), "a: 1\n");
    assert!(snapshot.tree.entry("deep/er").unwrap().is_some());
    for missing in ["deep/er/other", "nothing", "deep/er/file.yaml/below"] {
        assert!(snapshot.tree.entry(missing).unwrap().is_none(), "{missing}");
    }
}

fn walk(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.to_str().unwrap().to_owned());
        if path.is_dir() {
            names.extend(walk(&path));
        }
    }
    names
}

pub(super) fn text(snapshot: &Snapshot, path: &str) -> String {
    String::from_utf8(snapshot.tree.read(path).unwrap()).unwrap()
}
