//! The packs of many fetches become one, and everything stays readable.

use super::repositories::text;
use super::*;
use crate::source::compact::compact;

fn packs(mirror: &Path) -> usize {
    let entries = std::fs::read_dir(mirror.join("objects/pack")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "pack"))
        .count()
}

#[tokio::test]
async fn the_packs_of_many_fetches_become_one() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "first", "1");
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&remote.url(), main_branch(), NEVER));
    let oldest = ready(&mut receiver, first).await;
    let mirror = std::fs::read_dir(data.path().join("mirrors")).unwrap().next().unwrap().unwrap().path();
    let mut newest = oldest.clone();
    for round in 0..8 {
        let next = remote.commit("main", "x", &round.to_string());
        newest = ready(&mut receiver, next).await;
    }
    let before = packs(&mirror);
    assert!(before >= 9, "{before}");
    // Fewer than the limit: nothing to do. More: one for the first fetch, one for all others.
    assert!(!compact(&mirror, 8).unwrap());
    assert!(compact(&mirror, 4).unwrap());
    assert_eq!(packs(&mirror), 2);
    assert!(!compact(&mirror, 4).unwrap());
    // Open handles still read all of it, whether they looked there before or not.
    assert_eq!(
        (text(&oldest, "first"), text(&newest, "first"), text(&newest, "x")),
        ("1".into(), "1".into(), "7".into())
    );
    for round in 0..3 {
        let next = remote.commit("main", "y", &round.to_string());
        newest = ready(&mut receiver, next).await;
    }
    // Two settled packs and three new ones are too many: now everything becomes one.
    assert!(compact(&mirror, 1).unwrap());
    assert_eq!(packs(&mirror), 1);
    assert_eq!(
        (text(&newest, "x"), text(&newest, "y"), text(&oldest, "first")),
        ("7".into(), "2".into(), "1".into())
    );
    let fresh = Repository::open_bare(&mirror).unwrap();
    assert!(fresh.graph_descendant_of(Oid::from_str(&newest.revision.commit).unwrap(), first).unwrap());
    // And the next fetch works on top of it.
    let next = remote.commit("main", "z", "1");
    assert_eq!(text(&ready(&mut receiver, next).await, "first"), "1");
}
