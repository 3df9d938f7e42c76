//! Recorded scenarios as files.

use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why a scenario cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no scenario.
    #[error("{path} is not a scenario: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A sequence of requests in a namespace of its own.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name, as that of the file.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether the ServiceAccount admission plugin was on, as it is where controllers run.
    pub controllers: bool,
    /// The steps as they are in the file.
    pub steps: Vec<Value>,
}

impl Scenario {
    /// Whether others may be replayed beside the scenario: every request stays in its namespace, and no watch has
    /// bookmarks, which tell the server's latest revision.
    pub fn keeps_to_itself(&self) -> bool {
        let own = format!("/namespaces/{}", self.namespace);
        let inside = |path: &str| {
            path.split_once(&own).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        self.steps.iter().all(|step| {
            let has_bookmarks =
                step["watch"]["path"].as_str().is_some_and(|path| path.contains("allowWatchBookmarks=true"));
            !has_bookmarks && step["request"]["path"].as_str().is_none_or(inside)
        })
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// When the file cannot be read or lacks something.
    pub fn read(path: &Path) -> Result<Scenario, Error> {
        let text = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let malformed = |problem: String| Error::Malformed { path: path.to_owned(), problem };
        let value: Value = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
        let text = |key: &str| {
            value[key].as_str().map(str::to_owned).ok_or_else(|| malformed(format!("{key} is missing")))
        };
        let steps = value["steps"].as_array().ok_or_else(|| malformed("steps are missing".into()))?;
        Ok(Scenario {
            name: text("name")?,
            namespace: text("namespace")?,
            controllers: value["controllers"] == true,
            steps: steps.clone(),
        })
    }

    /// All scenarios of a folder, in order of their names.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn read_all(folder: &Path) -> Result<Vec<Scenario>, Error> {
        let refuse = |source| Error::Read { path: folder.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(refuse)? {
            files.push(entry.map_err(refuse)?.path());
        }
        files.retain(|f| f.extension().is_some_and(|e| e == "json"));
        files.sort();
        files.iter().map(|file| Scenario::read(file)).collect()
    }

    /// The same in another namespace.
    pub fn moved(&self, namespace: &str) -> Scenario {
        let steps = self.steps.iter().map(|step| renamed(step, &self.namespace, namespace)).collect();
        Scenario { namespace: namespace.to_owned(), steps, ..self.clone() }
    }
}

fn renamed(value: &Value, from: &str, to: &str) -> Value {
    match value {
        Value::String(text) => text.replace(from, to).into(),
        Value::Array(items) => items.iter().map(|item| renamed(item, from, to)).collect(),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(k, v)| (k.replace(from, to), renamed(v, from, to)));
            pairs.collect::<Map<String, Value>>().into()
        }
        other => other.clone(),
    }
}

/// A value as files have it: keys in order, indented by one space.
pub fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing JSON to memory does not fail.
    let _ = sorted(value).serialize(&mut serializer);
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// A value with the keys of all objects in order.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            let pairs = keys.into_iter().map(|k| (k.clone(), sorted(&fields[k])));
            pairs.collect::<Map<String, Value>>().into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_moved_scenario_names_the_other_namespace_everywhere() {
        let steps = vec![json!({"request": {"path": "/api/v1/namespaces/v-a/pods"}, "v-a": "in v-a"})];
        let scenario = Scenario { name: "a".into(), namespace: "v-a".into(), controllers: false, steps };
        let moved = scenario.moved("v-a-1");
        assert_eq!(
            moved.steps[0],
            json!({"request": {"path": "/api/v1/namespaces/v-a-1/pods"}, "v-a-1": "in v-a-1"})
        );
    }

    #[test]
    fn files_have_their_keys_in_order() {
        assert_eq!(
            pretty(&json!({"b": 1, "a": [{"d": 1, "c": 2}]})),
            "{\n \"a\": [\n  {\n   \"c\": 2,\n   \"d\": 1\n  }\n ],\n \"b\": 1\n}\n"
        );
    }
}
