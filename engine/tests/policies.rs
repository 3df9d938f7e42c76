//! The repository's own policies, each against the examples beside it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the test reads the examples, the engine does not")]

use std::fs;
use std::path::{Path, PathBuf};

use engine::object::{Object, yaml};
use engine::policy::{Operation, PolicySet};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn objects(file: &Path) -> Vec<(Object, String)> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).unwrap();
    let documents = yaml::read_documents(&text, &name).unwrap_or_else(|error| panic!("{error}"));
    documents.into_iter().map(|document| (Object::new(document.value).unwrap(), name.clone())).collect()
}

/// The folder of each policy with what is in it.
fn policies() -> Vec<(PathBuf, PolicySet)> {
    let folders: Vec<PathBuf> = files(&folder()).into_iter().filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "there are no policies");
    let read = |folder: PathBuf| {
        let set =
            PolicySet::parse(&objects(&folder.join("policy.yaml"))).unwrap_or_else(|error| panic!("{error}"));
        assert!(!set.is_empty(), "{} is not bound", folder.display());
        (folder, set)
    };
    folders.into_iter().map(read).collect()
}

fn violations(set: &PolicySet, file: &Path) -> Vec<String> {
    let objects = objects(file);
    assert!(!objects.is_empty(), "{} is empty", file.display());
    let found = objects.iter().flat_map(|(object, _)| set.evaluate(object, Operation::Create, None));
    found.map(|violation| violation.message).collect()
}

#[test]
fn every_policy_lets_its_good_examples_through() {
    for (folder, set) in policies() {
        for file in files(&folder.join("pass")) {
            assert_eq!(violations(&set, &file), [""; 0], "{}", file.display());
        }
    }
}

#[test]
fn every_policy_refuses_its_bad_examples_with_the_message_they_name() {
    for (folder, set) in policies() {
        for file in files(&folder.join("fail")) {
            let text = fs::read_to_string(&file).unwrap();
            let expected = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
            assert!(!expected.is_empty(), "{} does not say what is wrong with it", file.display());
            let found = violations(&set, &file);
            let named = found.iter().any(|message| message.contains(expected));
            assert!(named, "{}: {expected:?} is not in {found:?}", file.display());
        }
    }
}
