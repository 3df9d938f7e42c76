//! Damaged input is refused, never a panic and never endless.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this test reads its corpus"
)]

use std::path::Path;

use engine::kustomize::{MapTree, render};
use engine::object::yaml::{read_documents, write};

/// Every file of the corpus, as one tree.
fn corpus() -> Vec<(String, Vec<u8>)> {
    fn walk(directory: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
        let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), files);
            } else {
                files.push((name, std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"), "", &mut files);
    files
}

/// A small generator of numbers that are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Cuts, swaps and inserts what confuses parsers.
fn damaged(content: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    const PIECES: [&str; 22] = [
        "null",
        "[]",
        "{}",
        "- ",
        ": ",
        "\n",
        "  ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "\"",
        "'",
        "|\n",
        "0x",
        "metadata",
        "$patch: delete",
        "\t",
        "~",
        "../",
        "kind: List\nitems: ",
        "\u{0}",
    ];
    let mut content = content.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(content.len() + 1);
        match numbers.below(4) {
            0 => content.truncate(at),
            1 => {
                let end = (at + numbers.below(12)).min(content.len());
                content.drain(at..end);
            }
            _ => {
                let piece = PIECES[numbers.below(PIECES.len())];
                content.splice(at..at, piece.bytes());
            }
        }
    }
    content
}

#[test]
fn damaged_repositories_are_refused_or_rendered() {
    let files = corpus();
    let cases: Vec<String> = files
        .iter()
        .filter_map(|(path, _)| path.split_once("/input/").map(|(case, _)| case.to_owned()))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut numbers = Numbers(7);
    for case in &cases {
        let own: Vec<_> =
            files.iter().filter(|(path, _)| path.starts_with(&format!("{case}/input/"))).collect();
        let has_overlay = own.iter().any(|(path, _)| path.starts_with(&format!("{case}/input/overlay/")));
        let entry = format!("{case}/input{}", if has_overlay { "/overlay" } else { "" });
        for _ in 0..40 {
            let victim = numbers.below(own.len());
            let tree = own.iter().enumerate().fold(MapTree::new(), |tree, (at, (path, content))| {
                let content = if at == victim { damaged(content, &mut numbers) } else { content.clone() };
                tree.with(path, content)
            });
            if let Ok(rendered) = render(&tree, &entry) {
                assert!(rendered.reads.unchanged(&tree), "{entry}");
                for object in &rendered.objects {
                    let text = write(object.value());
                    let read = read_documents(&text, "written.yaml")
                        .unwrap_or_else(|error| panic!("{error}\n{text}"));
                    assert_eq!(&read[0].value, object.value(), "{text}");
                }
            }
        }
    }
}
