//! Variables in rendered objects: where they are put, what fields become, and what is refused.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests may")]

use engine::kustomize::{MapTree, Rendered, render};
use engine::substitute::{Variables, substitute};
use serde_json::{Value, json};

fn variables() -> Variables {
    let mut variables = Variables::default();
    for (name, value, is_secret) in [
        ("N", "3", false),
        ("NAME", "web", false),
        ("ON", "true", false),
        ("QUOTE", "\"", false),
        ("EMPTY", "", false),
        ("MAP", "{a: 1, b: [x]}", false),
        ("COLON", "a: b", false),
        ("HASH", "abc #123", false),
        ("STAR", "*.example.com", false),
        ("LINES", "one\ntwo\n", false),
        ("TOKEN", "hunter2-hunter2", true),
    ] {
        variables.set(name, value, is_secret).unwrap();
    }
    variables
}

fn rendered(manifest: &str) -> Result<Rendered, String> {
    let tree = MapTree::new().with("dev/a.yaml", manifest);
    substitute(render(&tree, "dev").unwrap(), &variables()).map_err(|error| error.to_string())
}

/// What a field of a custom object becomes.
fn field(yaml: &str) -> Value {
    let manifest = format!("apiVersion: x.io/v1\nkind: Thing\nmetadata: {{name: a}}\nspec:\n  f: {yaml}\n");
    rendered(&manifest).unwrap_or_else(|error| panic!("{error}")).objects[0].value()["spec"]["f"].clone()
}

/// The first group is what Flux makes of these fields, the second is where Flux would fail or lose text.
#[test]
fn fields_become_what_yaml_reads_in_them() {
    for (yaml, expected) in [
        ("${N}", json!(3)),
        ("\"${N}\"", json!(3)),
        ("${N}0m", json!("30m")),
        ("${ON}", json!(true)),
        ("${QUOTE}${N}${QUOTE}", json!("3")),
        ("${UNSET:=\"5\"}", json!("5")),
        ("${UNSET:=5.5}", json!(5.5)),
        ("${EMPTY}", json!(null)),
        ("${UNSET:=null}", json!(null)),
        ("${MAP}", json!({"a": 1, "b": ["x"]})),
        ("${UNSET:=[]}", json!([])),
        ("prefix-${NAME}", json!("prefix-web")),
        ("$${N}", json!("${N}")),
        ("$N and $(N)", json!("$N and $(N)")),
        ("|\n    port=${N}\n    name=${NAME}", json!("port=3\nname=web\n")),
        ("\"${NAME}: ${N}\"", json!("web: 3")),
        ("[\"${N}\", {k: \"${N}\"}]", json!([3, {"k": 3}])),
        ("${LINES}", json!("onetwo")),
    ]
    .into_iter()
    .chain([
        ("${COLON}", json!("a: b")),
        ("${HASH}", json!("abc #123")),
        ("${STAR}", json!("*.example.com")),
    ]) {
        assert_eq!(field(yaml), expected, "{yaml}");
    }
}

#[test]
fn names_keys_and_text_maps_take_variables_too() {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${NAME}-config\n  labels: {n: \"${N}\", \"${NAME}.io/on\": \"${ON}\"}\ndata:\n  \"${NAME}.conf\": \"${N}\"\n  list: \"[${N}]\"\n  quoted: ${QUOTE}x${QUOTE}\n";
    let rendered = rendered(manifest).unwrap();
    assert_eq!(
        *rendered.objects[0].value(),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "web-config", "labels": {"n": "3", "web.io/on": "true"}},
            "data": {"web.conf": "3", "list": "[3]", "quoted": "x"}
        })
    );
}

#[test]
fn marked_objects_stay_as_they_are() {
    for mark in ["holdfast.dev/substitute", "kustomize.toolkit.fluxcd.io/substitute"] {
        for field in ["labels", "annotations"] {
            let manifest = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, {field}: {{{mark}: disabled}}}}\ndata: {{run: 'echo ${{HOME}} $$'}}\n"
            );
            let rendered = rendered(&manifest).unwrap();
            assert_eq!(rendered.objects[0].value()["data"]["run"], "echo ${HOME} $$");
        }
    }
}

#[test]
fn errors_name_object_field_and_variable_and_show_no_value() {
    for (manifest, expected) in [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x/y: 'a ${HOME}'}\n",
            "ConfigMap a (dev/a.yaml:1), /data/x~1y: the variable HOME is not set; set it in spec.substitute",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: 'x', '${NAME}': 1, web: 2}\n",
            "ConfigMap a (dev/a.yaml:1), /data/web: with its variables put in, this key is there twice",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '${EMPTY}'}\n",
            "ConfigMap ${EMPTY} (dev/a.yaml:1), : a Kubernetes object needs metadata.name",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: '${TOKEN'}\n",
            "ConfigMap a (dev/a.yaml:1), /data/b: the expression for TOKEN",
        ),
    ] {
        let error = rendered(manifest).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2"));
    }
}

#[test]
fn what_came_from_a_secret_is_masked_in_later_messages() {
    let rendered = rendered(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: '${TOKEN^^}', c: '${N}'}\n",
    )
    .unwrap();
    assert_eq!(
        rendered.confidential.mask("hunter2-hunter2 or HUNTER2-HUNTER2 is not 3"),
        "[secret] or [secret] is not 3"
    );
    assert!(!format!("{:?}", variables()).contains("hunter2"));
}

#[test]
fn variables_are_told_apart_by_their_values() {
    let mut other = variables();
    assert_eq!(other.id(), variables().id());
    other.set("N", "4", false).unwrap();
    assert_ne!(other.id(), variables().id());
    for wrong in ["", "1a", "a-b", "a.b", "ä"] {
        assert!(other.set(wrong, "x", false).is_err(), "{wrong}");
    }
}
