//! Sources that are missing, empty, damaged, silent or gone.

use tokio::net::TcpListener;

use super::repositories::text;
use super::*;

#[tokio::test]
async fn a_missing_repository_is_found_as_soon_as_it_is_there() {
    let data = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("later.git");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(path.to_str().unwrap(), main_branch(), NEVER));
    let (problem, last) = failed(&mut receiver, "RepositoryNotFound").await;
    assert!(problem.message.contains("later.git"), "{}", problem.message);
    assert!(!problem.commit_at_fault && last.is_none());
    let remote = Remote::new();
    let first = remote.commit("main", "x", "1");
    std::fs::rename(remote.path(), &path).unwrap();
    ready(&mut receiver, first).await;
}

#[tokio::test]
async fn an_empty_repository_and_a_missing_branch_are_told_apart() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    let (problem, _) = failed(&mut receiver, "EmptyRepository").await;
    assert!(problem.message.contains("push a first commit to branch main"), "{}", problem.message);
    remote.commit("trunk", "x", "1");
    let (problem, _) = failed(&mut receiver, "BranchNotFound").await;
    assert!(problem.message.contains("no branch `main`; it has trunk"), "{}", problem.message);
    let first = remote.commit("main", "x", "1");
    ready(&mut receiver, first).await;
}

#[tokio::test]
async fn a_vanished_branch_leaves_what_it_gave() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    remote.commit("other", "x", "2");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    ready(&mut receiver, first).await;
    remote.repository().find_reference("refs/heads/main").unwrap().delete().unwrap();
    let (problem, last) = failed(&mut receiver, "BranchVanished").await;
    assert!(problem.message.contains(&first.to_string()[..12]), "{}", problem.message);
    assert_eq!(text(&last.unwrap(), "x"), "1");
    let back = remote.commit_on("main", Some(first), "x", "3");
    ready(&mut receiver, back).await;
}

#[tokio::test]
async fn after_a_restart_the_last_commit_is_known_though_the_repository_is_away() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let sources = Sources::new(config(data.path()));
    ready(&mut sources.subscribe(spec(&remote.url(), main_branch(), NEVER)), first).await;
    drop(sources);
    let away = remote.path().with_extension("away");
    std::fs::rename(remote.path(), &away).unwrap();
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    let (_, last) = failed(&mut receiver, "RepositoryNotFound").await;
    assert_eq!(text(&last.unwrap(), "x"), "1");
    std::fs::rename(&away, remote.path()).unwrap();
    ready(&mut receiver, first).await;
}

#[tokio::test]
async fn a_repository_made_anew_under_the_same_name_is_watched_again() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), Duration::from_millis(100)));
    ready(&mut receiver, first).await;
    std::fs::remove_dir_all(remote.path()).unwrap();
    Repository::init_bare(remote.path()).unwrap();
    let second = remote.commit("main", "y", "2");
    assert!(ready(&mut receiver, second).await.revision.forced);
    let third = remote.commit("main", "y", "3");
    ready(&mut receiver, third).await;
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    for scheme in ["http", "git"] {
        let data = tempfile::tempdir().unwrap();
        let config = SourcesConfig { timeout: Duration::from_millis(200), ..config(data.path()) };
        let sources = Sources::new(config);
        let url = format!("{scheme}://127.0.0.1:{port}/shop.git");
        let mut receiver = sources.subscribe(spec(&url, main_branch(), NEVER));
        let (problem, _) = failed(&mut receiver, "FetchTimedOut").await;
        assert!(problem.message.contains(&url), "{}", problem.message);
    }
    server.abort();
    // The threads that hang in libgit2 are released by the closed connections.
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_a_failed_fetch_without_the_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let data = tempfile::tempdir().unwrap();
    let sources = Sources::new(config(data.path()));
    for url in [format!("http://me:hunter2@127.0.0.1:{port}/shop"), format!("git://127.0.0.1:{port}/shop")] {
        let mut receiver = sources.subscribe(spec(&url, main_branch(), NEVER));
        let (problem, _) = failed(&mut receiver, "FetchFailed").await;
        assert!(problem.message.contains(&format!("127.0.0.1:{port}/shop")), "{}", problem.message);
        assert!(!problem.message.contains("hunter2"), "{}", problem.message);
    }
}

#[tokio::test]
async fn a_damaged_source_says_so_and_a_damaged_mirror_heals() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), Duration::from_millis(100)));
    ready(&mut receiver, first).await;
    drop(sources);
    // The mirror loses its objects, as after a full disk.
    let mirror = std::fs::read_dir(data.path().join("mirrors")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(mirror.join("objects")).unwrap();
    std::fs::create_dir(mirror.join("objects")).unwrap();
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    assert_eq!(text(&ready(&mut receiver, first).await, "x"), "1");
    // The source itself loses a commit: the last good one stays.
    let second = remote.commit("main", "x", "2");
    ready(&mut receiver, second).await;
    let third = remote.commit("main", "x", "3").to_string();
    let broken = remote.path().join("refs/heads/main");
    std::fs::remove_file(remote.path().join("objects").join(&third[..2]).join(&third[2..])).unwrap();
    std::fs::write(&broken, format!("{}\n", "2".repeat(40))).unwrap();
    let state = until(&mut receiver, |state| matches!(state, SourceState::Failed { .. })).await;
    let last = state.snapshot().unwrap();
    assert!(matches!(text(last, "x").as_str(), "2" | "3"), "{state:?}");
}

#[tokio::test]
async fn a_senseless_address_or_reference_fails_at_once() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    remote.commit("main", "x", "1");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec("git@github.com:acme/shop.git", main_branch(), NEVER));
    let (problem, _) = failed(&mut receiver, "UnsupportedUrl").await;
    assert!(problem.message.contains("use the https address"), "{}", problem.message);
    let mut receiver = sources.subscribe(spec(&remote.url(), Reference::Branch("a..b".into()), NEVER));
    failed(&mut receiver, "InvalidReference").await;
    let mut receiver = sources.subscribe(spec(&remote.url(), Reference::Tag("9.x".into()), NEVER));
    let (problem, _) = failed(&mut receiver, "TagNotFound").await;
    assert!(problem.message.contains("no tag at all"), "{}", problem.message);
}
