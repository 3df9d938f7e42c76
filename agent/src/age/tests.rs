use super::*;
use base64::Engine as _;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/sops/");

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{FOLDER}{name}")).unwrap()
}

fn keys(entries: &[(&str, &str)]) -> Result<AgeKeys, KeysError> {
    let data = entries.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    AgeKeys::from_secret(&data.collect())
}

/// The sealed data keys of the files that sops wrote for these tests.
fn sealed() -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(format!("{FOLDER}files")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default().replace("\\n", "\n");
        for part in text.split("-----BEGIN AGE ENCRYPTED FILE-----\n").skip(1) {
            let body = &part[..part.find("-----END").unwrap()];
            let lines: Vec<&str> = body.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            all.push(format!(
                "-----BEGIN AGE ENCRYPTED FILE-----\n{}\n-----END AGE ENCRYPTED FILE-----\n",
                lines.join("\n")
            ));
        }
    }
    all
}

#[test]
fn what_age_sealed_opens_as_age_opens_it() {
    let record = read("data-keys.txt");
    let both =
        keys(&[("a.agekey", &read("TEST-ONLY.agekey")), ("b.agekey", &read("TEST-ONLY-other.agekey"))]);
    let one = keys(&[("a.agekey", &read("TEST-ONLY.agekey"))]).unwrap();
    let both = both.unwrap();
    let mut counts = (0, 0);
    for sealed in sealed() {
        let digest = engine::object::Digest::of_bytes(sealed.trim().as_bytes()).hex();
        let Some(line) = record.lines().find(|line| line.contains(&digest)) else { continue };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let expected = line.rsplit(' ').next().unwrap();
        assert_eq!(both.open(&sealed).map(|key| hex(&key)).as_deref(), Some(expected));
        let is_ones = line.starts_with(&one.recipients()[0]);
        assert_eq!(one.open(&sealed).is_some(), is_ones);
        counts = if is_ones { (counts.0 + 1, counts.1) } else { (counts.0, counts.1 + 1) };
    }
    assert!(counts.0 > 10 && counts.1 > 10, "{counts:?}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let keys = keys(&[("a.agekey", &read("TEST-ONLY.agekey"))]).unwrap();
    let sealed = sealed().into_iter().find(|sealed| keys.open(sealed).is_some()).unwrap();
    let start = sealed.find('\n').unwrap() + 1;
    let end = sealed.rfind("\n-----END").unwrap();
    for at in start..end {
        let mut damaged = sealed.clone().into_bytes();
        damaged[at] = match damaged[at] {
            b'\n' => continue,
            b'A' => b'B',
            _ => b'A',
        };
        let damaged = String::from_utf8(damaged).unwrap();
        if damaged != sealed {
            assert_eq!(keys.open(&damaged), None, "{at}");
        }
    }
    for cut in 0..sealed.trim_end().len() {
        assert_eq!(keys.open(&sealed[..cut]), None, "{cut}");
    }
}

#[test]
fn a_header_without_end_costs_nothing() {
    let keys = keys(&[("a.agekey", &read("TEST-ONLY.agekey"))]).unwrap();
    let armored = |stanzas: usize| {
        let file = format!("age-encryption.org/v1\n{}--- {}\n", "-> a\n\n".repeat(stanzas), "A".repeat(43));
        let encoded = base64::engine::general_purpose::STANDARD.encode(file);
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("{ARMOR}\n{}\n-----END AGE ENCRYPTED FILE-----\n", lines.join("\n"))
    };
    // Without the bound the largest would take minutes.
    for stanzas in [10, 100, 7000] {
        assert_eq!(keys.open(&armored(stanzas)), None);
    }
}

#[test]
fn secrets_hold_several_keys_with_comments() {
    let text = format!("# first\n\n{}{}", read("TEST-ONLY.agekey"), read("TEST-ONLY-other.agekey"));
    let ring = keys(&[("keys.agekey", &text), ("again.agekey", &text), ("sops.asc", "not for us")]).unwrap();
    assert_eq!(ring.recipients().len(), 2);
    assert!(
        ring.recipients().iter().all(|name| text.contains(name.as_str())),
        "age-keygen notes the public key"
    );
    assert_eq!(ring.id().split(' ').count(), 2);
    let printed = format!("{ring:?}");
    assert!(printed.contains("age1") && !printed.contains("AGE-SECRET-KEY"), "{printed}");
}

#[test]
fn what_is_no_key_is_named_by_its_place_and_not_shown() {
    let key = read("TEST-ONLY.agekey").lines().last().unwrap().to_owned();
    let damaged = format!("# c\n{}", key.replace("1", "2"));
    for (entries, expected) in [
        (vec![], "it has no entry whose name ends with .agekey"),
        (vec![("identity", key.as_str())], "it has no entry whose name ends with .agekey"),
        (vec![("a.agekey", "# only a comment")], "a.agekey has no line that begins with AGE-SECRET-KEY-1"),
        (vec![("a.agekey", damaged.as_str())], "a.agekey, line 2: this is no key of age"),
        (vec![("a.agekey", &key[..60])], "a.agekey, line 1: this key is damaged"),
        (
            vec![("a.agekey", "AGE-PLUGIN-YUBIKEY-1XYZ")],
            "a.agekey, line 1: keys of plugins are not supported",
        ),
        (vec![("a.agekey", "AGE-SECRET-KEY-PQ-1XYZ")], "a.agekey, line 1: keys that begin with"),
    ] {
        let error = keys(&entries).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains(&key[20..40]), "{error}");
    }
}

#[test]
fn the_command_line_finds_keys_where_sops_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir_all(folder.path().join("sops/age")).unwrap();
    std::fs::write(folder.path().join("sops/age/keys.txt"), read("TEST-ONLY.agekey")).unwrap();
    std::fs::write(folder.path().join("file"), read("TEST-ONLY-other.agekey")).unwrap();
    let with = |pairs: Vec<(&'static str, String)>| {
        let pairs: BTreeMap<&str, String> = pairs.into_iter().collect();
        AgeKeys::from_environment(|name| pairs.get(name).cloned())
    };
    assert!(with(vec![("HOME", path("nobody"))]).unwrap().is_none());
    let count = |pairs| with(pairs).unwrap().unwrap().recipients().len();
    assert_eq!(count(vec![("XDG_CONFIG_HOME", path(""))]), 1);
    assert_eq!(count(vec![("SOPS_AGE_KEY", read("TEST-ONLY.agekey"))]), 1);
    assert_eq!(count(vec![("XDG_CONFIG_HOME", path("")), ("SOPS_AGE_KEY_FILE", path("file"))]), 2);
    let error = with(vec![("SOPS_AGE_KEY_FILE", path("nothing"))]).unwrap_err().to_string();
    assert!(error.contains("nothing cannot be read"), "{error}");
}
