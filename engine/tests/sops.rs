//! Encrypted files, held against what sops itself makes of them (`sops/record.sh`).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use engine::kustomize::{Cache, MapTree, Options, Rendered, render, render_as};
use engine::object::Digest;
use engine::sops::KeyRing;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sops")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join("files").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

/// Keys that know what the data keys of these files are: opening them is the agent's part.
#[derive(Default)]
struct Keys {
    id: String,
    opened: HashMap<String, Vec<u8>>,
}

impl Keys {
    /// The keys of recipients, by their place in the record: 0, 1 or both.
    fn of(which: &[usize]) -> Self {
        let record = std::fs::read_to_string(folder().join("data-keys.txt")).unwrap();
        let mut recipients: Vec<&str> = record.lines().map(|line| line.split(' ').next().unwrap()).collect();
        recipients.dedup();
        let mut known: Vec<&str> = Vec::new();
        recipients.iter().for_each(|name| {
            if !known.contains(name) {
                known.push(name);
            }
        });
        let wanted: Vec<&str> = which.iter().map(|at| known[*at]).collect();
        let opened = record.lines().filter(|line| wanted.contains(&line.split(' ').next().unwrap()));
        let opened = opened.map(|line| {
            let mut parts = line.split(' ').skip(1).map(str::to_owned);
            (parts.next().unwrap(), bytes(&parts.next().unwrap()))
        });
        Self { id: wanted.join(" "), opened: opened.collect() }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

impl KeyRing for Keys {
    fn id(&self) -> &str {
        &self.id
    }

    fn recipients(&self) -> Vec<String> {
        self.id.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        self.opened.get(&Digest::of_bytes(sealed.trim().as_bytes()).hex()).cloned()
    }
}

fn rendered(tree: &MapTree, keys: &Keys) -> Result<Rendered, String> {
    let options = Options { keys: Some(keys), ..Options::default() };
    render_as(options, tree, "dev").map_err(|failed| failed.error.to_string())
}

/// A Secret that a generator makes of a file.
fn generated(name: &str, entry: &str) -> MapTree {
    let kustomization = format!(
        "generatorOptions: {{disableNameSuffixHash: true}}\nsecretGenerator:\n- name: a\n  {entry}\n"
    );
    MapTree::new().with("dev/kustomization.yaml", kustomization).with(&format!("dev/{name}"), file(name))
}

fn data(rendered: &Rendered, key: &str) -> Vec<u8> {
    let value = &rendered.objects[0].value()["data"][key];
    let encoded = value.as_str().unwrap_or_else(|| panic!("{key} is {value}")).replace('\n', "");
    base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()
}

#[test]
fn decrypted_files_are_what_sops_makes_of_them() {
    for name in [
        "all.yaml",
        "suffix-all.yaml",
        "unsuffix-all.yaml",
        "regex-secret.yaml",
        "unregex-secret.yaml",
        "onlymac-secret.yaml",
        "comment-secret.yaml",
        "uncomment-secret.yaml",
        "patch.yaml",
        "many.yaml",
        "all.json",
        "secret.json",
        "app.env",
        "app.ini",
        "blob.bin",
    ] {
        for which in [&[0][..], &[1], &[0, 1]] {
            let tree = generated(name, &format!("files: [{name}]"));
            let rendered = rendered(&tree, &Keys::of(which)).unwrap_or_else(|error| panic!("{error}"));
            let (ours, theirs) = (data(&rendered, name), file(&format!("{name}.plain")));
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(shown(&ours), shown(&theirs), "{name}");
        }
    }
}

/// A kustomization with one resource.
fn resource(name: &str, content: impl Into<Vec<u8>>) -> MapTree {
    MapTree::new()
        .with("dev/kustomization.yaml", format!("resources: [{name}]\nnamePrefix: dev-\n"))
        .with(&format!("dev/{name}"), content)
}

#[test]
fn manifests_are_decrypted_before_anything_touches_them() {
    for name in ["regex-secret.yaml", "unregex-secret.yaml", "onlymac-secret.yaml", "groups-secret.yaml"] {
        let keys = if name.starts_with("groups") { Keys::of(&[0, 1]) } else { Keys::of(&[0]) };
        let rendered = rendered(&resource(name, file(name)), &keys).unwrap_or_else(|error| panic!("{error}"));
        let object = rendered.objects[0].value();
        assert_eq!(object["metadata"]["name"], "dev-database", "{name}");
        assert_eq!(object["metadata"]["annotations"]["revision"], "0644", "{name}");
        assert_eq!(object["stringData"]["password"], "correct horse battery staple", "{name}");
        assert_eq!(object["stringData"]["quoted"], "it's \"quoted\": yes # no comment", "{name}");
        assert_eq!(object.get("sops"), None, "{name}");
    }
    let rendered = rendered(&resource("secret.json", file("secret.json")), &Keys::of(&[1])).unwrap();
    assert_eq!(rendered.objects[0].value()["stringData"]["lines"], "a\nb\n");
    assert_eq!(rendered.objects[0].value()["metadata"]["annotations"]["a"], "<b> & c");
}

#[test]
fn documents_of_one_file_have_one_mac_and_plain_ones_may_stand_beside_them() {
    let both =
        format!("{}---\n{}", text("many.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\n");
    let names = |rendered: &Rendered| {
        let mut names: Vec<_> = rendered.objects.iter().map(|object| object.name().to_owned()).collect();
        names.sort();
        names
    };
    let done = rendered(&resource("a.yaml", both), &Keys::of(&[0])).unwrap();
    assert_eq!(names(&done), ["dev-one", "dev-plain", "dev-three", "dev-two"]);
    // Encrypted apart and put together.
    let apart = format!("{}---\n{}", text("many.yaml"), text("regex-secret.yaml"));
    let done = rendered(&resource("a.yaml", apart), &Keys::of(&[0])).unwrap();
    assert_eq!(names(&done), ["dev-database", "dev-one", "dev-three", "dev-two"]);
    // A document that was taken out is missed.
    let many = text("many.yaml");
    let cut = many.split("\n---\n").enumerate().filter(|(at, _)| *at != 2).map(|(_, text)| text);
    let error = rendered(&resource("a.yaml", cut.collect::<Vec<_>>().join("\n---\n")), &Keys::of(&[0]));
    assert!(error.unwrap_err().contains("its MAC does not match"));
}

#[test]
fn patches_env_files_and_config_maps_are_decrypted_too() {
    let tree = MapTree::new()
        .with(
            "dev/kustomization.yaml",
            "resources: [web.yaml]\npatches: [{path: patch.yaml}]\n\
             generatorOptions: {disableNameSuffixHash: true}\n\
             secretGenerator: [{name: s, envs: [app.env]}]\n\
             configMapGenerator: [{name: c, files: [key.ini=app.ini, raw=blob.bin]}]\n",
        )
        .with(
            "dev/web.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n\
             spec: {template: {spec: {containers: [{name: web, image: web}]}}}\n",
        )
        .with("dev/patch.yaml", file("patch.yaml"))
        .with("dev/app.env", file("app.env"))
        .with("dev/app.ini", file("app.ini"))
        .with("dev/blob.bin", file("blob.bin"));
    let rendered = rendered(&tree, &Keys::of(&[0])).unwrap_or_else(|error| panic!("{error}"));
    let object = |kind: &str| {
        rendered.objects.iter().map(|object| object.value()).find(|value| value["kind"] == kind).unwrap()
    };
    let container = &object("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"][0], json!({"name": "TOKEN", "value": "from an encrypted patch"}));
    let decoded =
        |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    assert_eq!(object("ConfigMap")["data"]["key.ini"], String::from_utf8(file("app.ini.plain")).unwrap());
    assert_eq!(decoded(&object("ConfigMap")["binaryData"]["raw"]), file("blob.bin.plain"));
    assert_eq!(decoded(&object("Secret")["data"]["PASSWORD"]), b"correct horse = battery");
    assert_eq!(object("Secret")["data"]["EMPTY"], "");
    assert_eq!(object("Secret")["data"].get("sops_mac"), None);
}

#[test]
fn literals_are_decrypted_in_a_kustomization_and_as_whole_files() {
    let tree = MapTree::new().with("dev/kustomization.yaml", file("kustomization.yaml"));
    for which in [[0], [1]] {
        let rendered = rendered(&tree, &Keys::of(&which)).unwrap();
        assert_eq!(data(&rendered, "password"), b"tr0ub4dor&3");
        assert_eq!(data(&rendered, "url"), b"postgres://shop:pw@db/shop");
        let masked = rendered.confidential.mask("postgres://shop:pw@db/shop, tr0ub4dor&3");
        assert_eq!(masked, "[secret], [secret]", "also without its key");
    }
    assert!(rendered(&tree, &Keys::of(&[])).unwrap_err().starts_with("dev/kustomization.yaml:"));
    let options = Options { keep_encrypted: true, ..Options::default() };
    let kept = render_as(options, &tree, "dev").map_err(|failed| failed.error.to_string()).unwrap();
    assert_eq!(kept.objects[0].value()["data"], serde_json::json!({}), "keys and values are unknown");
    let encrypted = text("kustomization.yaml");
    let encrypted = encrypted.split("sops:").next().unwrap();
    let stripped = MapTree::new().with("dev/kustomization.yaml", encrypted);
    let error = rendered(&stripped, &Keys::of(&[0])).unwrap_err();
    assert!(
        error.starts_with("dev/kustomization.yaml:4: this literal is encrypted, and the file has"),
        "{error}"
    );

    let literal = serde_json::Value::from(format!("app.json={}", text("all.json"))).to_string();
    let tree = generated("all.json", &format!("literals: [{literal}]"));
    assert_eq!(data(&rendered(&tree, &Keys::of(&[0])).unwrap(), "app.json"), file("all.json.plain"));
    let error = rendered(&tree, &Keys::of(&[])).unwrap_err();
    assert!(error.starts_with("dev/kustomization.yaml:4: this file is encrypted for age1"), "{error}");
}

#[test]
fn files_in_the_data_of_a_secret_are_decrypted() {
    let encode = |name: &str| base64::engine::general_purpose::STANDARD.encode(file(name));
    let secret = |annotations: &str| {
        let (json, env, blob) = (encode("all.json"), encode("app.env"), encode("blob.bin"));
        resource(
            "s.yaml",
            format!(
                "# c\napiVersion: v1\nkind: Secret\nmetadata: {{name: s, annotations: {{{annotations}}}}}\ndata:\n  a.json: {json}\n  b.env: {env}\n  c: {blob}\n  d: cGxhaW4=\n  e: '%'\n"
            ),
        )
    };
    let opened = rendered(&secret(""), &Keys::of(&[0])).unwrap();
    for (key, plain) in [("a.json", "all.json.plain"), ("b.env", "app.env.plain"), ("c", "blob.bin.plain")] {
        assert_eq!(data(&opened, key), file(plain), "{key}");
    }
    assert_eq!(data(&opened, "d"), b"plain");
    let error = rendered(&secret(""), &Keys::of(&[])).unwrap_err();
    assert!(error.starts_with("dev/s.yaml:2: this file is encrypted for age1"), "{error}");
    let kept = rendered(&secret("holdfast.dev/decrypt: disabled"), &Keys::of(&[])).unwrap();
    assert_eq!(data(&kept, "a.json"), file("all.json"));
}

#[test]
fn errors_name_the_file_and_the_recipients_and_nothing_else() {
    let none = Keys::default();
    let (one, other) = (Keys::of(&[0]), Keys::of(&[1]));
    let (first, second) = (one.id.clone(), other.id.clone());
    let secret = text("regex-secret.yaml");
    let swapped = {
        let mut lines: Vec<&str> = secret.lines().collect();
        let at = |start: &str| lines.iter().position(|line| line.trim().starts_with(start)).unwrap();
        let (password, user) = (at("password:"), at("user:"));
        let (a, b) = (lines[password].replace("password", "user"), lines[user].replace("user", "password"));
        lines[password] = &b;
        lines[user] = &a;
        lines.join("\n")
    };
    let pgp = secret.replace("    age:", "    pgp:").replace("recipient:", "fp:");
    let table: [(String, &Keys, String); 8] = [
        (
            secret.clone(),
            &none,
            format!("is encrypted for {second}, {first}, and the keys that are given are none"),
        ),
        (
            text("other-secret.yaml"),
            &one,
            format!("is encrypted for {second}, and the keys that are given are {first}"),
        ),
        (text("groups-secret.yaml"), &one, "takes keys of 2 of its 2 key groups".to_owned()),
        (secret.replace("name: database", "name: changed"), &one, "its MAC does not match".to_owned()),
        (swapped, &one, "the value of stringData.".to_owned()),
        (pgp, &one, "is encrypted for pgp age1".to_owned()),
        (
            secret.replace("mac: ENC[AES256_GCM,data:", "mac: ENC[AES256_GCM,data:AAAA"),
            &one,
            "its MAC does not match".to_owned(),
        ),
        (
            secret.replace("lastmodified:", "unencrypted_regex: '('\n    lastmodified:"),
            &one,
            "it has several rules".to_owned(),
        ),
    ];
    for (content, keys, expected) in table {
        let error = rendered(&resource("s.yaml", content), keys).unwrap_err();
        assert!(error.starts_with("dev/s.yaml:") && error.contains(&expected), "{expected}: {error}");
        for value in ["correct horse", "hunter2", "BEGIN CERT"] {
            assert!(!error.contains(value), "{error}");
        }
    }
    let error = render(&resource("s.yaml", secret), "dev").unwrap_err();
    assert!(error.to_string().contains("no key is given: name the Secret with the key in spec.decryption"));
}

#[test]
fn what_was_decrypted_is_masked_in_later_errors() {
    // The decrypted value is no number, and the patch says so.
    let tree = resource("s.yaml", file("regex-secret.yaml")).with(
        "dev/kustomization.yaml",
        "resources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  patch: |\n    - {op: test, path: /stringData/password, value: x}\n",
    );
    let error = rendered(&tree, &Keys::of(&[0])).unwrap_err();
    assert!(!error.contains("correct horse"), "{error}");
    let rendered = rendered(&resource("s.yaml", file("regex-secret.yaml")), &Keys::of(&[0])).unwrap();
    assert_eq!(
        rendered.confidential.mask("invalid value \"correct horse battery staple\""),
        "invalid value \"[secret]\""
    );
}

#[test]
fn lines_in_errors_are_those_of_the_encrypted_file() {
    let content = format!("{}---\nkind: ConfigMap\n", text("regex-secret.yaml"));
    let line = content.lines().count();
    let error = rendered(&resource("s.yaml", content), &Keys::of(&[0])).unwrap_err();
    assert!(
        error.starts_with(&format!("dev/s.yaml:{line}: a Kubernetes object needs apiVersion")),
        "{error}"
    );
}

#[test]
fn objects_may_stay_encrypted_for_other_programs() {
    for annotation in ["holdfast.dev/decrypt", "kustomize.toolkit.fluxcd.io/decrypt"] {
        let content =
            text("regex-secret.yaml").replace("revision: \"0644\"", &format!("{annotation}: disabled"));
        let rendered = render(&resource("s.yaml", content), "dev").unwrap();
        assert!(rendered.objects[0].value()["sops"]["mac"].is_string());
    }
}

#[test]
fn renders_depend_on_the_keys_only_where_something_is_encrypted() {
    let tree = MapTree::new()
        .with("base/kustomization.yaml", "resources: [s.yaml]\n")
        .with("base/s.yaml", file("regex-secret.yaml"))
        .with("plain/kustomization.yaml", "resources: [c.yaml]\n")
        .with("plain/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
        .with("dev/kustomization.yaml", "resources: [../base, ../plain]\n");
    let cache = Cache::new();
    let (one, other) = (Keys::of(&[0]), Keys::of(&[1]));
    let render = |keys: Option<&dyn KeyRing>| {
        let options = Options { cache: Some(&cache), keys, ..Options::default() };
        render_as(options, &tree, "dev")
    };
    let first = render(Some(&one)).unwrap();
    assert!(first.reads.unchanged_with(&tree, Some(&one)));
    assert!(!first.reads.unchanged_with(&tree, Some(&other)) && !first.reads.unchanged(&tree));
    // Without the key there is no way to what another environment decrypted.
    let failed = render(None).unwrap_err();
    assert!(failed.error.to_string().contains("no key is given"));
    assert!(failed.reads.unchanged(&tree) && !failed.reads.unchanged_with(&tree, Some(&one)));
    assert_eq!(cache.statistics().hits, 0);
    let again = render(Some(&one)).unwrap();
    assert_eq!((again.objects.len(), cache.statistics().hits), (2, 2));
    assert!(!again.confidential.is_empty(), "what a cached base decrypted is still confidential");
    let plain = render_as(Options { cache: Some(&cache), ..Options::default() }, &tree, "plain").unwrap();
    assert!(plain.reads.unchanged_with(&tree, Some(&other)));
}
