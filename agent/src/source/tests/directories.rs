//! A directory as a source.

use std::os::unix::fs::symlink;

use super::repositories::text;
use super::*;

#[tokio::test]
async fn a_directory_is_read_again_when_it_changes() {
    let (directory, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(directory.path().join("dev")).unwrap();
    std::fs::write(directory.path().join("dev/app.yaml"), "a: 1\n").unwrap();
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe_directory(directory.path());
    let state = until(&mut receiver, |state| matches!(state, SourceState::Ready(_))).await;
    let first = state.snapshot().unwrap().clone();
    assert!(first.revision.commit.starts_with("dir:"), "{first:?}");
    std::fs::write(directory.path().join("dev/app.yaml"), "a: 2\n").unwrap();
    let state = until(
        &mut receiver,
        |state| matches!(state, SourceState::Ready(snapshot) if text(snapshot, "dev/app.yaml") == "a: 2\n"),
    )
    .await;
    assert_ne!(state.snapshot().unwrap().revision.commit, first.revision.commit);
    // A snapshot stays what it was.
    assert_eq!(text(&first, "dev/app.yaml"), "a: 1\n");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_found_later() {
    let (place, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = place.path().join("later");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe_directory(&path);
    failed(&mut receiver, "DirectoryUnreadable").await;
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("x"), "1").unwrap();
    until(
        &mut receiver,
        |state| matches!(state, SourceState::Ready(snapshot) if snapshot.tree.entry("x").unwrap().is_some()),
    )
    .await;
}

#[test]
fn links_are_entries_and_nothing_outside_is_read() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "hunter2").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    symlink(outside.path(), root.join("escape")).unwrap();
    symlink(outside.path().join("secret"), root.join("secret")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    std::fs::create_dir_all(root.join(".git/objects")).unwrap();
    std::fs::create_dir(root.join("target")).unwrap();
    std::fs::write(root.join("target/CACHEDIR.TAG"), "").unwrap();
    std::fs::write(root.join("app.yaml"), "a: 1\n").unwrap();
    let tree = DirTree::scan(root, None).unwrap();
    assert!(tree.entry("escape/secret").unwrap().is_none());
    assert!(tree.entry(".git").unwrap().is_none());
    assert!(tree.entry("target").unwrap().is_none());
    assert!(tree.entry("app.yaml").unwrap().is_some());
    assert!(tree.read("secret").is_ok_and(|target| target != b"hunter2" && target.ends_with(b"/secret")));
}

#[test]
fn a_digest_says_whether_anything_changed_and_nothing_is_read_twice() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("a")).unwrap();
    std::fs::write(directory.path().join("a/x"), "1").unwrap();
    let first = DirTree::scan(directory.path(), None).unwrap();
    let same = DirTree::scan(directory.path(), Some(&first)).unwrap();
    assert_eq!(first.digest(), same.digest());
    std::fs::rename(directory.path().join("a/x"), directory.path().join("a/y")).unwrap();
    assert_ne!(DirTree::scan(directory.path(), Some(&same)).unwrap().digest(), first.digest());
    std::fs::rename(directory.path().join("a/y"), directory.path().join("a/x")).unwrap();
    assert_eq!(DirTree::scan(directory.path(), Some(&same)).unwrap().digest(), first.digest());
}

#[test]
fn too_deep_a_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", 80).collect();
    std::fs::create_dir_all(directory.path().join(deep)).unwrap();
    let error = DirTree::scan(directory.path(), None).err().unwrap();
    assert_eq!(error.reason(), "SourceTooLarge");
}
