//! Any tree of files renders or is refused, and renders the same again and from a cache.
//!
//! The input is a list of files: a line `=== path` and the content that follows.
#![no_main]

use engine::kustomize::{Cache, MapTree, Options, Tree, render, render_as};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut tree = MapTree::new();
    for part in text.split("=== ").skip(1).take(32) {
        let (path, content) = part.split_once('\n').unwrap_or((part, ""));
        let path = path.trim();
        let fits = !path.is_empty()
            && !path.contains('\0')
            && path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        match content.strip_prefix("-> ") {
            Some(target) if fits => tree = tree.with_symlink(path, target.trim()),
            None if fits => tree = tree.with(path, content),
            _ => {}
        }
    }
    let path = if tree.entry("overlay").is_ok_and(|entry| entry.is_some()) { "overlay" } else { "" };
    let first = render(&tree, path);
    let cache = Cache::new();
    let options = Options { cache: Some(&cache), explain: false, ..Options::default() };
    let second = render_as(options, &tree, path);
    let third = render_as(options, &tree, path);
    match (first, second, third) {
        (Ok(first), Ok(second), Ok(third)) => {
            assert_eq!(first.objects, second.objects);
            assert_eq!(first.objects, third.objects);
            assert!(first.reads.unchanged(&tree));
        }
        (Err(first), Err(second), Err(third)) => {
            assert_eq!(first, second.error);
            assert_eq!(first, third.error);
            assert!(!first.to_string().is_empty());
        }
        (first, second, _) => panic!("{first:?}\n{second:?}"),
    }
    if data.len() % 4 == 0 {
        // What is explained is what is rendered.
        let explained = render_as(Options { explain: true, ..Options::default() }, &tree, path);
        assert_eq!(explained.is_ok(), render(&tree, path).is_ok());
    }
});
