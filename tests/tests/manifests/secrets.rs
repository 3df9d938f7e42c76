//! Secrets in Git: encrypted with sops, or not there.

use std::path::Path;

use crate::{environments, fleet, named, repository};

/// What stands for an encrypted value where no key is at hand.
const VALUE: &str = "encrypted";
/// How sops writes one.
const MARK: &str = "ENC[AES256_GCM,";

/// Whether a file is one that `.sops.yaml` has a rule for.
pub(crate) fn is_encrypted(path: &str) -> bool {
    path.ends_with(".sops.yaml")
}

/// An encrypted file as it is once it is decrypted, with [`VALUE`] for what only a key tells.
pub(crate) fn without_values(text: &str) -> String {
    let (document, _) = text.split_once("\nsops:\n").expect("sops ends a file with its own part");
    let lines = document.lines().map(|line| match line.split_once(MARK) {
        Some((before, _)) => format!("{before}{VALUE}"),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn encrypted_files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            encrypted_files(&entry.path(), found);
        } else if is_encrypted(entry.file_name().to_str().unwrap()) {
            found.push((entry.path().display().to_string(), std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

#[test]
fn no_secret_is_in_git_as_it_is() {
    let mut seen = 0;
    for environment in environments() {
        for secret in environment.of_kind("Secret").filter(|object| object["apiVersion"] == "v1") {
            for field in ["data", "stringData"] {
                for (key, value) in secret[field].as_object().into_iter().flatten() {
                    assert_eq!(
                        value,
                        VALUE,
                        "{}: {}: {key} is not encrypted",
                        environment.path,
                        named(secret)
                    );
                    seen += 1;
                }
            }
        }
        // And none hides in a ConfigMap or an environment variable.
        for object in &environment.objects {
            let text = object.to_string();
            for mark in
                ["BEGIN PRIVATE KEY", "BEGIN RSA", "AGE-SECRET-KEY", "hooks.slack.com", "xoxb-", "AKIA"]
            {
                assert!(!text.contains(mark), "{}: {} holds {mark}", environment.path, named(object));
            }
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn encrypted_files_are_for_the_recipient_of_the_rules() {
    let rules = std::fs::read_to_string(repository().join(".sops.yaml")).unwrap();
    let recipient = rules.split_once(" age: ").unwrap().1.trim();
    let mut files = Vec::new();
    encrypted_files(&repository().join("environments"), &mut files);
    assert_eq!(files.len(), 3);
    for (path, text) in files {
        assert!(text.contains(&format!("- recipient: {recipient}\n")), "{path}: run sops updatekeys");
        assert!(
            text.contains("mac: ENC[") && text.contains("encrypted_regex: ^(data|stringData)$"),
            "{path}"
        );
    }
    let fleet = fleet();
    assert!(fleet["staging"]["spec"]["decryption"]["secretRef"]["name"].is_string());
    // Whoever has no key can deploy it all the same.
    assert!(fleet["dev"]["spec"]["decryption"].is_null());
}

#[test]
fn what_is_not_encrypted_is_seen() {
    let text = "stringData:\n    a: ENC[AES256_GCM,data:x,type:str]\n    b: plain\nsops:\n    age: []\n";
    assert_eq!(without_values(text), "stringData:\n    a: encrypted\n    b: plain\n");
}
