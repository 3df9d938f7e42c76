//! The manifests in `environments/`: an API server takes every object of them, they fit together, and they say what the
//! architecture asks for. What no test can say is whether AWS does what its controllers are told.

// All of this is test code, its helpers too: what is unexpected ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod architecture;
mod documentation;
mod pods;
mod references;
mod room;
mod secrets;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::kustomize::MapTree;
use engine::object::{Bundle, yaml};
use serde_json::Value;

/// An environment and what it renders to.
struct Rendered {
    path: String,
    objects: Vec<Value>,
}

impl Rendered {
    /// The objects of a kind.
    fn of_kind<'a, 'k>(&'a self, kind: &'k str) -> impl Iterator<Item = &'a Value> + use<'a, 'k> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of a kind with a name.
    fn get(&self, kind: &str, name: &str) -> &Value {
        let found = self.of_kind(kind).find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("{} has no {kind} {name}", self.path))
    }

    /// Deployments: the only workloads that there are.
    fn workloads(&self) -> impl Iterator<Item = &Value> {
        for object in &self.objects {
            let kind = object["kind"].as_str().unwrap();
            assert!(
                !["StatefulSet", "DaemonSet", "Job", "CronJob", "Pod", "ReplicaSet"].contains(&kind),
                "{}: nothing here looks at a {kind} yet",
                self.path
            );
        }
        self.of_kind("Deployment")
    }
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Environment objects of the fleet by name.
fn fleet() -> BTreeMap<String, Value> {
    let mut fleet = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join("environments/fleet")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in yaml::read_documents(&text, &path.display().to_string()).unwrap() {
            if document.value["kind"] == "Environment" {
                let name = document.value["metadata"]["name"].as_str().unwrap().to_owned();
                fleet.insert(name, document.value);
            }
        }
    }
    fleet
}

/// The files below a folder, by their paths from `environments/` on.
fn add_files(folder: &Path, path: &str, tree: &mut MapTree) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if entry.file_type().unwrap().is_dir() {
            add_files(&entry.path(), &path, tree);
        } else {
            let content = std::fs::read_to_string(entry.path()).unwrap();
            let content =
                if secrets::is_encrypted(&path) { secrets::without_values(&content) } else { content };
            *tree = std::mem::take(tree).with(&path, content);
        }
    }
}

/// What a folder below `environments/` renders to, with nobody's keys.
fn render(path: &str) -> Rendered {
    let mut tree = MapTree::new();
    add_files(&repository().join("environments"), "", &mut tree);
    let rendered = engine::kustomize::render(&tree, path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let bundle = Bundle::new(rendered.objects).unwrap();
    let objects = bundle.objects().iter().map(|object| object.value().clone()).collect();
    Rendered { path: path.to_owned(), objects }
}

/// Every environment that the fleet deploys, and the one that it can deploy instead of dev.
fn environments() -> Vec<Rendered> {
    let mut paths: BTreeSet<String> = fleet()
        .values()
        .map(|environment| environment["spec"]["source"]["path"].as_str().unwrap())
        .map(|path| path.strip_prefix("environments/").unwrap().to_owned())
        .collect();
    assert!(paths.len() >= 5, "{paths:?}");
    paths.insert("dev-administrators".to_owned());
    paths.iter().map(|path| render(path)).collect()
}

/// `Kind namespace/name`, for messages.
fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}
