//! What a cache of sub-results shares, and what makes it render anew.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests may"
)]

use std::cell::Cell;

use engine::kustomize::{Cache, Entry, EntryKind, MapTree, Tree, TreeError, join, render, render_with};
use engine::object::Digest;

/// A tree whose directories have ids, as Git's have; counts what is read.
struct IdTree {
    tree: MapTree,
    files_read: Cell<usize>,
    entries_asked: Cell<usize>,
}

impl IdTree {
    fn new(tree: MapTree) -> Self {
        Self { tree, files_read: Cell::new(0), entries_asked: Cell::new(0) }
    }

    fn id(&self, path: &str) -> String {
        let mut text = String::new();
        for (name, kind) in self.tree.list(path).unwrap() {
            let inner = join(path, &name).unwrap();
            let id = match kind {
                EntryKind::Directory => self.id(&inner),
                _ => self.tree.entry(&inner).unwrap().unwrap().id.unwrap(),
            };
            text.push_str(&format!("{name} {kind:?} {id}\n"));
        }
        Digest::of_bytes(text.as_bytes()).hex()
    }
}

impl Tree for IdTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        self.entries_asked.set(self.entries_asked.get() + 1);
        Ok(self.tree.entry(path)?.map(|entry| match entry.kind {
            EntryKind::Directory => Entry::new(EntryKind::Directory, Some(self.id(path))),
            _ => entry,
        }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.files_read.set(self.files_read.get() + 1);
        self.tree.read(path)
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        self.tree.list(path)
    }
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: {value}}}\n")
}

/// A base that takes a file from elsewhere, and overlays on it.
fn repository(overlays: usize) -> MapTree {
    let mut tree = MapTree::new()
        .with("base/kustomization.yaml", "resources: [a.yaml, ../shared/b.yaml, deeper]\n")
        .with("base/a.yaml", config_map("a", "1"))
        .with("base/deeper/kustomization.yaml", "resources: [c.yaml]\nnameSuffix: -deep\n")
        .with("base/deeper/c.yaml", config_map("c", "1"))
        .with("shared/b.yaml", config_map("b", "1"))
        .with("README.md", "read me");
    for overlay in 0..overlays {
        tree = tree.with(
            &format!("overlays/{overlay}/kustomization.yaml"),
            format!("resources: [../../base]\nnamePrefix: p{overlay}-\n"),
        );
    }
    tree
}

#[test]
fn overlays_share_their_base() {
    let cache = Cache::new();
    let tree = IdTree::new(repository(20));
    for overlay in 0..20 {
        let path = format!("overlays/{overlay}");
        let cached = render_with(&cache, &tree, &path).unwrap();
        let plain = render(&tree.tree, &path).unwrap();
        assert_eq!(cached.objects, plain.objects);
        assert_eq!(cached.sources, plain.sources);
        let files = |reads: &engine::kustomize::ReadSet| {
            reads.files().map(|(path, _)| path.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(files(&cached.reads), files(&plain.reads));
    }
    let statistics = cache.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.entries), (19, 2, 2));
    // Twenty overlays' files, and those of the base once: 5 of them, of which two stand in `deeper`.
    assert_eq!(tree.files_read.get(), 20 + 5);
}

#[test]
fn a_changed_base_is_rendered_anew_and_nothing_else_is() {
    let cache = Cache::new();
    let before = IdTree::new(repository(1));
    let first = render_with(&cache, &before, "overlays/0").unwrap();
    for (path, content, misses) in [
        ("README.md", "other".to_owned(), 0),
        ("shared/unused.yaml", config_map("u", "1"), 0),
        // What deeper gives is still good.
        ("shared/b.yaml", config_map("b", "2"), 1),
        ("base/a.yaml", config_map("a", "2"), 1),
        ("base/deeper/c.yaml", config_map("c", "2"), 2),
    ] {
        let known = cache.statistics().misses;
        let after = IdTree::new(repository(1).with(path, content));
        let second = render_with(&cache, &after, "overlays/0").unwrap();
        assert_eq!(cache.statistics().misses - known, misses, "{path}");
        assert_eq!(second.objects, render(&after.tree, "overlays/0").unwrap().objects, "{path}");
        assert_eq!(second.objects == first.objects, misses == 0, "{path}");
        assert_eq!(first.reads.unchanged(&after), misses == 0, "{path}");
    }
    // A file that was not there before counts too.
    let twice = repository(1).with("base/kustomization.yml", "resources: []");
    assert!(render_with(&cache, &IdTree::new(twice), "overlays/0").is_err());
    // The first state is still known: mirrors serve several branches.
    let known = cache.statistics().misses;
    assert_eq!(render_with(&cache, &before, "overlays/0").unwrap().objects, first.objects);
    assert_eq!(cache.statistics().misses, known);
}

#[test]
fn an_unchanged_folder_is_known_by_its_id() {
    let mut tree = repository(1);
    for n in 0..50 {
        tree = tree.with(&format!("base/deeper/unused-{n}.yaml"), "x: 1\n");
    }
    let before = IdTree::new(tree.clone());
    let reads = render(&before, "overlays/0").unwrap().reads;
    let same = IdTree::new(tree.clone());
    assert!(reads.unchanged(&same));
    assert_eq!(same.entries_asked.get(), 1, "an equal tree is known by its root");
    let other = IdTree::new(tree.with("README.md", "other"));
    assert!(reads.unchanged(&other));
    // The root, base, overlays, and shared.
    assert!(other.entries_asked.get() <= 4, "{} entries asked", other.entries_asked.get());
}

#[test]
fn a_cache_keeps_to_its_limit() {
    let limit = 20_000;
    let cache = Cache::with_limit(limit);
    for n in 0..200 {
        let tree = repository(1).with("base/a.yaml", config_map("a", &"x".repeat(n)));
        render_with(&cache, &tree, "overlays/0").unwrap();
        assert!(cache.statistics().bytes <= limit, "{:?}", cache.statistics());
    }
    for n in 0..200 {
        let tree = MapTree::new()
            .with("o/kustomization.yaml", format!("resources: [../b{n}]"))
            .with(&format!("b{n}/kustomization.yaml"), "resources: [a.yaml]")
            .with(&format!("b{n}/a.yaml"), config_map("a", "1"));
        render_with(&cache, &tree, "o").unwrap();
        assert!(cache.statistics().bytes <= limit, "{:?}", cache.statistics());
    }
    assert!(cache.statistics().entries > 3);
    let huge = repository(1).with("base/a.yaml", config_map("a", &"x".repeat(limit)));
    render_with(&cache, &huge, "overlays/0").unwrap();
    let entries = cache.statistics().entries;
    render_with(&cache, &huge, "overlays/0").unwrap();
    assert_eq!(cache.statistics().entries, entries, "what is larger than the cache is not kept");
}

#[test]
fn limits_count_what_the_cache_gave() {
    let cache = Cache::new();
    let mut tree = MapTree::new().with("b/kustomization.yaml", "resources: [a.yaml]\n");
    tree = tree.with("b/a.yaml", config_map("a", "1"));
    // Each level includes the one below twice, under other names: 2^13 kustomizations.
    for level in 0..13 {
        let below = if level == 0 { "b".to_owned() } else { format!("l{}", level - 1) };
        for side in ["x", "y"] {
            let text = format!("resources: [../{below}]\nnamePrefix: {side}-\n");
            tree = tree.with(&format!("l{level}{side}/kustomization.yaml"), text);
        }
        let text = format!("resources: [../l{level}x, ../l{level}y]\n");
        tree = tree.with(&format!("l{level}/kustomization.yaml"), text);
    }
    let error = render_with(&cache, &tree, "l12").unwrap_err().to_string();
    assert!(error.contains("more than 5000 kustomizations"), "{error}");
    let plain = render(&tree, "l12").unwrap_err().to_string();
    assert!(plain.contains("more than 5000 kustomizations"), "{plain}");
}

#[test]
fn a_base_that_fails_is_tried_again() {
    let cache = Cache::new();
    let broken = repository(1).with("base/a.yaml", "kind: [");
    let first = render_with(&cache, &broken, "overlays/0").unwrap_err();
    assert_eq!(render_with(&cache, &broken, "overlays/0").unwrap_err(), first);
    assert_eq!(render(&broken, "overlays/0").unwrap_err(), first);
    assert!(render_with(&cache, &repository(1), "overlays/0").is_ok());
}
