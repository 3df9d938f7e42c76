//! Any encrypted file opens or is refused, whatever was done to it, and no error shows what it holds.
#![no_main]

use std::sync::LazyLock;

use engine::kustomize::{MapTree, Options, render_as};
use engine::object::Digest;
use engine::sops::KeyRing;
use libfuzzer_sys::fuzz_target;

static RECORD: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let record = include_str!("../../../engine/tests/sops/data-keys.txt");
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .filter_map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect()
    };
    let lines = record.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter_map(|line| Some((line.get(1)?.to_string(), hex(line.get(2)?)))).collect()
});

struct Keys;

impl KeyRing for Keys {
    fn id(&self) -> &str {
        "test"
    }

    fn recipients(&self) -> Vec<String> {
        vec!["age1test".to_owned()]
    }

    fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let digest = Digest::of_bytes(sealed.trim().as_bytes()).hex();
        let known = RECORD.iter().find(|(known, _)| *known == digest).map(|(_, key)| key.clone());
        // What is not known opens to something, so that the rest is read too.
        known.or_else(|| {
            Some(sealed.bytes().chain([0; 33]).take(32 + usize::from(sealed.len() % 7 == 0)).collect())
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, content)) = data.split_first() else { return };
    let name = ["f.yaml", "f.json", "f.env", "f.ini", "f.bin"][usize::from(choice % 5)];
    for kustomization in [
        format!("secretGenerator: [{{name: a, files: [{name}]}}]\n"),
        format!("secretGenerator: [{{name: a, envs: [{name}]}}]\n"),
        format!("resources: [{name}]\n"),
    ] {
        let tree = MapTree::new().with("kustomization.yaml", kustomization).with(name, content);
        let options = Options { keys: Some(&Keys), ..Options::default() };
        if let Err(failed) = render_as(options, &tree, "") {
            let error = failed.error.to_string();
            for value in ["correct horse", "hunter2", "aHVudGVy"] {
                let is_plain = String::from_utf8_lossy(content).contains(value);
                assert!(is_plain || !error.contains(value), "{error}");
            }
        }
    }
});
