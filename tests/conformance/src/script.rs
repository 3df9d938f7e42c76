//! Scripts: what the recorder is to ask a server.
//!
//! A script is YAML: a name, what it is about, values to refer to (`let`), and steps. `tests/vectors/README.md` describes it.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no script.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A script.
#[derive(Debug, Clone)]
pub struct Script {
    /// Name of the scenario that it makes.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is for a server with controllers.
    pub controllers: bool,
    /// What to do.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A request, as recorded: references to saved values are still in it.
    Request {
        /// `method`, `path`, `body`, `contentType`, `headers`.
        request: Value,
        /// What the step is for.
        note: Option<String>,
        /// Values of the answer to keep: name and JSON pointer.
        save: Vec<(String, String)>,
    },
    /// Seconds to wait.
    Pause(f64),
    /// A watch to open.
    Watch {
        /// Its number.
        id: u64,
        /// `path`, `headers`.
        request: Value,
    },
    /// A watch to wait for.
    Watched(u64),
}

/// Keys of a step.
const KEYS: [&str; 12] = [
    "do",
    "body",
    "with",
    "each",
    "type",
    "headers",
    "note",
    "save",
    "pause",
    "watch",
    "watched",
    "anonymous",
];

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// When the file cannot be read or has another form.
    pub fn read(path: &Path) -> Result<Script, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Script::parse(&text).map_err(|problem| Error::Malformed { path: path.to_owned(), problem })
    }

    fn parse(text: &str) -> Result<Script, String> {
        let mut yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
        yaml.apply_merge().map_err(|e| e.to_string())?;
        let value: Value = serde_json::to_value(yaml).map_err(|e| e.to_string())?;
        let name = value["name"].as_str().ok_or("name is missing")?.to_owned();
        let namespace = format!("v-{}", name.replace('_', "-"));
        let mut known = value["let"].as_object().cloned().unwrap_or_default();
        known.insert("ns".into(), namespace.clone().into());
        let raw = value["steps"].as_array().ok_or("steps are missing")?;
        let mut steps = Vec::new();
        for (index, step) in raw.iter().enumerate() {
            read_step(step, &known, &mut steps).map_err(|problem| format!("step {index}: {problem}"))?;
        }
        Ok(Script {
            about: value["about"].as_str().ok_or("about is missing")?.to_owned(),
            controllers: value["controllers"] == true,
            name,
            namespace,
            steps,
        })
    }
}

fn read_step(step: &Value, known: &Map<String, Value>, out: &mut Vec<Step>) -> Result<(), String> {
    let fields = step.as_object().ok_or("it is not a map")?;
    if let Some(odd) = fields.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(format!("{odd} is not a key of a step; there are {}", KEYS.join(", ")));
    }
    if let Some(seconds) = step["pause"].as_f64() {
        out.push(Step::Pause(seconds));
        return Ok(());
    }
    if let Some(id) = step["watched"].as_u64() {
        out.push(Step::Watched(id));
        return Ok(());
    }
    let mut request = json!({});
    match resolve(&step["headers"], known)? {
        Value::Null => {}
        headers @ Value::Object(_) => request["headers"] = headers,
        other => return Err(format!("`headers` is a map, not {other}")),
    }
    if step["anonymous"] == true {
        request["token"] = Value::Null;
    }
    if let Some(id) = step["watch"].as_u64() {
        request["path"] = resolve(&step["do"], known)?;
        out.push(Step::Watch { id, request });
        return Ok(());
    }
    let line = resolve(&step["do"], known)?;
    let line = line.as_str().ok_or("`do` is missing: METHOD PATH")?;
    let (method, path) = line.split_once(' ').ok_or("`do` is METHOD PATH")?;
    request["method"] = method.into();
    request["path"] = path.into();
    let content_type = match step["type"].as_str() {
        None | Some("json") => "application/json",
        Some("merge") => "application/merge-patch+json",
        Some("strategic") => "application/strategic-merge-patch+json",
        Some("jsonpatch") => "application/json-patch+json",
        Some("apply") => "application/apply-patch+yaml",
        Some("yaml") => "application/yaml",
        Some(other) => other,
    };
    let note = step["note"].as_str().map(str::to_owned);
    let saved = step["save"].as_object().into_iter().flatten();
    let save: Vec<(String, String)> =
        saved.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
    let variants: Vec<&Value> = match &step["each"] {
        Value::Null => vec![&Value::Null],
        Value::Array(variants) => variants.iter().collect(),
        _ => return Err("`each` is a list of maps, as `with` is one".into()),
    };
    for variant in variants {
        let mut request = request.clone();
        if !step["body"].is_null() {
            let mut body = resolve(&step["body"], known)?;
            for changes in [&step["with"], variant] {
                for (pointer, value) in changes.as_object().into_iter().flatten() {
                    set(&mut body, pointer, resolve(value, known)?)?;
                }
            }
            request["body"] = body;
            request["contentType"] = content_type.into();
        }
        out.push(Step::Request { request, note: note.clone(), save: save.clone() });
    }
    Ok(())
}

/// Puts values of `let` in the place of `$name`: whole values for whole texts, text inside of text.
fn resolve(value: &Value, known: &Map<String, Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            if let Some(whole) = text.strip_prefix('$').and_then(|name| known.get(name)) {
                return resolve(whole, known);
            }
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find('$') {
                out.push_str(&rest[..at]);
                rest = &rest[at + 1..];
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                // `$patch` and the like are the patch's own, `${x}` is for the time of recording.
                match known.get(&rest[..end]) {
                    Some(value) => match resolve(value, known)? {
                        Value::String(text) => out.push_str(&text),
                        _ => return Err(format!("${} is not text", &rest[..end])),
                    },
                    None => {
                        out.push('$');
                        out.push_str(&rest[..end]);
                    }
                }
                rest = &rest[end..];
            }
            out.push_str(rest);
            Value::String(out)
        }
        Value::Array(items) => items.iter().map(|v| resolve(v, known)).collect::<Result<_, _>>()?,
        Value::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                out.insert(key.clone(), resolve(value, known)?);
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

/// Sets the value at a JSON pointer; `$absent` removes it, a list grows by one at its end or at `-`.
fn set(target: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    let parts: Vec<String> =
        pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~")).collect();
    let (last, parents) = parts.split_last().ok_or_else(|| format!("{pointer:?} is not a JSON pointer"))?;
    let mut at = target;
    for part in parents {
        if at.is_null() {
            *at = json!({});
        }
        at = match at {
            Value::Array(items) => {
                let index: usize = part.parse().map_err(|_| format!("{pointer}: {part} is not an index"))?;
                items.get_mut(index).ok_or_else(|| format!("{pointer}: there is no element {index}"))?
            }
            Value::Object(fields) => fields.entry(part.clone()).or_insert(Value::Null),
            _ => return Err(format!("{pointer}: there is nothing below {part}")),
        };
    }
    if at.is_null() {
        *at = json!({});
    }
    match at {
        Value::Array(items) => {
            let index = if last == "-" {
                items.len()
            } else {
                last.parse().map_err(|_| format!("{pointer}: {last} is not an index"))?
            };
            if value == "$absent" {
                items.remove(index);
            } else if index < items.len() {
                items[index] = value;
            } else {
                items.push(value);
            }
        }
        Value::Object(fields) if value == "$absent" => drop(fields.shift_remove(last)),
        Value::Object(fields) => drop(fields.insert(last.clone(), value)),
        _ => return Err(format!("{pointer}: its parent is neither a map nor a list")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_a_body_become_steps() {
        let script = Script::parse(
            "name: a_b\nabout: x\nlet:\n  pods: /api/v1/namespaces/$ns/pods\n  pod: {spec: {a: 1, list: [1]}}\nsteps:\n\
             - do: POST $pods\n  body: $pod\n  each:\n  - {/spec/a: 2}\n  - {/spec/a: $absent, /spec/list/-: 2}\n\
             - do: PATCH $pods/x?v=${rv}\n  body: {$patch: delete}\n  type: strategic\n  save: {rv: /metadata/resourceVersion}\n",
        )
        .unwrap();
        let requests: Vec<&Value> = script
            .steps
            .iter()
            .map(|s| match s {
                Step::Request { request, .. } => request,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(requests[0]["path"], "/api/v1/namespaces/v-a-b/pods");
        assert_eq!(requests[0]["body"], json!({"spec": {"a": 2, "list": [1]}}));
        assert_eq!(requests[1]["body"], json!({"spec": {"list": [1, 2]}}));
        assert_eq!(requests[2]["path"], "/api/v1/namespaces/v-a-b/pods/x?v=${rv}");
        assert_eq!(requests[2]["body"], json!({"$patch": "delete"}));
        assert_eq!(requests[2]["contentType"], "application/strategic-merge-patch+json");
    }

    #[test]
    fn mistakes_are_named() {
        let refused =
            |steps: &str| Script::parse(&format!("name: a\nabout: x\nsteps:\n{steps}")).unwrap_err();
        assert!(refused("- go: GET /x\n").starts_with("step 0: go is not a key of a step"));
        assert_eq!(refused("- do: GET\n"), "step 0: `do` is METHOD PATH");
        assert_eq!(
            refused("- do: POST /x\n  body: {a: [1]}\n  with: {/a/x: 1}\n"),
            "step 0: /a/x: x is not an index"
        );
    }
}
