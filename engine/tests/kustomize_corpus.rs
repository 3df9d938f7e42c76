//! Renders every folder of the corpus and compares with what `kubectl kustomize` prints.
//!
//! A case is `corpus/<name>/input` (rendered at `input/overlay` where that exists) with the output of
//! `kubectl kustomize` in `expected.yaml`. `corpus/record.sh` writes the latter anew. A file `since` names the
//! first version of kustomize that does what the case shows.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this test reads its corpus and runs kubectl"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use engine::kustomize::{Cache, Entry, EntryKind, Options, Tree, TreeError, render, render_as, render_with};
use engine::object::canonical_json;
use engine::object::yaml::read_documents;
use serde_json::Value;

/// A directory of this machine as a tree.
struct DirectoryTree(PathBuf);

impl DirectoryTree {
    fn error(path: &str, error: &std::io::Error) -> TreeError {
        TreeError::new(path, error.to_string())
    }
}

fn kind_of(kind: std::fs::FileType) -> EntryKind {
    match kind {
        kind if kind.is_symlink() => EntryKind::Symlink,
        kind if kind.is_dir() => EntryKind::Directory,
        _ => EntryKind::File,
    }
}

impl Tree for DirectoryTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        match std::fs::symlink_metadata(self.0.join(path)) {
            Ok(metadata) => Ok(Some(Entry::new(kind_of(metadata.file_type()), None))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::error(path, &error)),
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let full = self.0.join(path);
        let metadata = std::fs::symlink_metadata(&full).map_err(|error| Self::error(path, &error))?;
        let content = if metadata.is_symlink() {
            std::fs::read_link(&full).map(|target| target.to_string_lossy().into_owned().into_bytes())
        } else {
            std::fs::read(&full)
        };
        content.map_err(|error| Self::error(path, &error))
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        let entries = std::fs::read_dir(self.0.join(path)).map_err(|error| Self::error(path, &error))?;
        entries
            .map(|entry| {
                let entry = entry.map_err(|error| Self::error(path, &error))?;
                let kind = entry.file_type().map_err(|error| Self::error(path, &error))?;
                Ok((entry.file_name().to_string_lossy().into_owned(), kind_of(kind)))
            })
            .collect()
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("input").is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    cases.sort();
    assert!(cases.len() > 10, "the corpus is not there");
    cases
}

fn entry_of(case: &str) -> String {
    let overlay = format!("{case}/input/overlay");
    if corpus().join(&overlay).is_dir() { overlay } else { format!("{case}/input") }
}

fn rendered(case: &str) -> Result<Vec<String>, String> {
    let rendered = render(&DirectoryTree(corpus()), &entry_of(case)).map_err(|error| error.to_string())?;
    assert!(
        rendered.reads.unchanged(&DirectoryTree(corpus())),
        "{case}: an unchanged tree counts as changed"
    );
    Ok(rendered.objects.iter().map(|object| canonical_json(object.value())).collect())
}

fn canonical(text: &str) -> Vec<String> {
    let documents = read_documents(text, "expected.yaml").unwrap();
    documents.iter().map(|document| canonical_json(&document.value)).collect()
}

/// Says where two renders differ first, or nothing.
fn difference(case: &str, ours: &Result<Vec<String>, String>, theirs: &[String]) -> Option<String> {
    let ours = match ours {
        Ok(ours) => ours,
        Err(error) => return Some(format!("{case}: {error}")),
    };
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        if a != b {
            return Some(format!("{case}: object {at} differs\n   ours: {a}\n theirs: {b}"));
        }
    }
    (ours.len() != theirs.len()).then(|| {
        let names = |list: &[String]| {
            list.iter()
                .map(|text| serde_json::from_str::<Value>(text).unwrap())
                .map(|v| format!("{} {}", v["kind"], v["metadata"]["name"]))
                .collect::<Vec<_>>()
                .join(", ")
        };
        format!("{case}: ours has {}, theirs {}", names(ours), names(theirs))
    })
}

#[test]
fn every_case_renders_as_recorded() {
    let problems: Vec<String> = cases()
        .iter()
        .filter_map(|case| {
            let recorded = std::fs::read_to_string(corpus().join(case).join("expected.yaml")).unwrap();
            difference(case, &rendered(case), &canonical(&recorded))
        })
        .collect();
    assert!(
        problems.is_empty(),
        "{} of {} cases differ:\n{}",
        problems.len(),
        cases().len(),
        problems.join("\n")
    );
}

#[test]
fn every_case_renders_the_same_from_a_cache() {
    let cache = Cache::new();
    let tree = DirectoryTree(corpus());
    for case in cases() {
        let plain = rendered(&case).unwrap();
        for round in ["filling", "using"] {
            let cached = render_with(&cache, &tree, &entry_of(&case)).unwrap();
            let objects: Vec<String> = cached.objects.iter().map(|o| canonical_json(o.value())).collect();
            assert_eq!(objects, plain, "{case}, {round} the cache");
            assert!(cached.reads.unchanged(&tree), "{case}");
        }
    }
    assert!(cache.statistics().hits > 5, "{:?}", cache.statistics());
}

/// The first two numbers of a version.
#[test]
fn every_case_renders_the_same_with_its_steps_told() {
    let tree = DirectoryTree(corpus());
    for case in cases() {
        let plain = rendered(&case).unwrap();
        let explained =
            render_as(Options { explain: true, ..Options::default() }, &tree, &entry_of(&case)).unwrap();
        let objects: Vec<String> =
            explained.objects.iter().map(|object| canonical_json(object.value())).collect();
        assert_eq!(objects, plain, "{case}");
    }
}

fn version(text: &str) -> (u64, u64) {
    let mut numbers = text.trim().trim_start_matches('v').split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The version of kustomize that a case needs: some do what older ones did not know.
fn since(case: &str) -> (u64, u64) {
    std::fs::read_to_string(corpus().join(case).join("since")).map_or((0, 0), |text| version(&text))
}

fn kustomize_version() -> (u64, u64) {
    let output = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    version(said["kustomizeVersion"].as_str().unwrap())
}

#[test]
fn every_case_renders_as_kubectl_does_now() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        eprintln!("skipped: every_case_renders_as_kubectl_does_now needs kubectl on the PATH");
        return;
    }
    let version = kustomize_version();
    let problems: Vec<String> = cases()
        .iter()
        .filter(|case| since(case) <= version)
        .filter_map(|case| {
            let output = Command::new("kubectl")
                .args(["kustomize", "--load-restrictor=LoadRestrictionsNone"])
                .arg(corpus().join(entry_of(case)))
                .output()
                .unwrap();
            if !output.status.success() {
                return Some(format!("{case}: kubectl fails: {}", String::from_utf8_lossy(&output.stderr)));
            }
            difference(case, &rendered(case), &canonical(&String::from_utf8_lossy(&output.stdout)))
        })
        .collect();
    assert!(
        problems.is_empty(),
        "{} of {} cases differ:\n{}",
        problems.len(),
        cases().len(),
        problems.join("\n")
    );
}
