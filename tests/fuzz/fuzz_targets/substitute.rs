//! Variables go into any text, or it is refused; values of Secrets are in no error, and nothing grows without end.
#![no_main]

use engine::kustomize::{MapTree, render};
use engine::object::yaml::write;
use engine::substitute::{Variables, substitute};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut variables = Variables::default();
    for (name, value) in [
        ("A", "1"),
        ("B", "two words: {x}"),
        ("C", ""),
        ("D", "ä/b.c"),
        ("E", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ] {
        let _ = variables.set(name, value, false);
    }
    let _ = variables.set("S", "hunter2-hunter2", true);
    let object = json!({
        "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "labels": {"l": text}},
        "spec": {"f": text, "g": [format!("x{text}y"), {"k": text}], text: 1}
    });
    let Ok(rendered) = render(&MapTree::new().with("a.yaml", write(&object)), "") else { return };
    match substitute(rendered, &variables) {
        Ok(rendered) => {
            let written = write(rendered.objects[0].value());
            if written.contains("hunter2-hunter2") {
                assert!(!rendered.confidential.mask(&written).contains("hunter2-hunter2"));
            }
        }
        Err(error) => assert!(!error.to_string().contains("hunter2-hunter2") || text.contains("hunter2")),
    }
});
