//! Any patch applies or is refused, with and without a target, in a file and in place.
#![no_main]

use engine::kustomize::{MapTree, render};
use libfuzzer_sys::fuzz_target;

const OBJECTS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {a: b}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:v1
        env: [{name: A, value: a}, {name: B, value: b}]
        ports: [{containerPort: 80, name: http}, {containerPort: 81, protocol: UDP}]
      volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: other}
data: {x: y}
---
apiVersion: example.org/v1
kind: Thing
metadata: {name: thing}
spec: {list: [1, 2, {a: b}], deep: {er: {most: null}}}
";

fuzz_target!(|data: &[u8]| {
    let Some((choice, patch)) = data.split_first() else { return };
    let entry = match choice % 6 {
        0 => "patches: [{path: p.yaml}]",
        1 => "patches: [{path: p.yaml, target: {kind: Deployment}}]",
        2 => {
            "patches: [{path: p.yaml, target: {name: .*}, options: {allowNameChange: true, allowKindChange: true}}]"
        }
        3 => "patchesStrategicMerge: [p.yaml]",
        4 => "patchesJson6902: [{path: p.yaml, target: {version: v1, kind: ConfigMap, name: conf}}]",
        _ => "replacements: [{path: p.yaml}]",
    };
    let tree = MapTree::new()
        .with("kustomization.yaml", format!("resources: [o.yaml]\nnamePrefix: a-\n{entry}\n"))
        .with("o.yaml", OBJECTS)
        .with("p.yaml", patch);
    match render(&tree, "") {
        Ok(rendered) => assert!(rendered.objects.len() <= 3),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
