//! Records what a server answers to a script, as a scenario.

use crate::client::{Access, Answer, Client};
use crate::replay::{self, Error};
use crate::scenario;
use crate::script::{Script, Step};
use crate::symbols::{ANY_PORT, Symbols};
use crate::traces::Traces;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Records a script.
///
/// # Errors
/// When the server is not reached, or the script refers to what was not saved.
pub async fn record(script: &Script, access: &Access) -> Result<Value, Error> {
    let client = Client::new(access.clone())?;
    let mut traces = Traces::default();
    let recorded = run(script, &client, &mut traces).await;
    traces.remove(&client, script.controllers).await?;
    let (steps, version) = recorded?;
    let mode = if script.controllers { "controllers running" } else { "no controllers running" };
    let mut out = json!({"about": script.about, "name": script.name, "namespace": script.namespace,
        "server": format!("Kubernetes {version}, {mode}"), "steps": steps});
    if script.controllers {
        out["controllers"] = true.into();
    }
    Ok(scenario::sorted(&out))
}

async fn run(script: &Script, client: &Client, traces: &mut Traces) -> Result<(Vec<Value>, String), Error> {
    let get = |path: &str| crate::client::Request {
        method: "GET".into(),
        path: path.into(),
        ..crate::client::Request::default()
    };
    let version = client.send(&get("/version")).await?.body["gitVersion"].as_str().unwrap_or("?").to_owned();
    let refuse = |step: usize, problem: String| Error::Step { scenario: script.name.clone(), step, problem };
    let namespace = replay::make_namespace(client, &script.namespace, traces).await?;
    if namespace != script.namespace {
        let problem = format!("the namespace {} exists; remove it and record again", script.namespace);
        return Err(refuse(0, problem));
    }
    let mut names = Names::new();
    let mut saved: BTreeMap<String, String> = BTreeMap::new();
    let mut watches = HashMap::new();
    let mut steps = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        match step {
            Step::Pause(seconds) => {
                tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 60.0))).await;
                steps.push(json!({"pause": seconds}));
            }
            Step::Watch { id, request } => {
                let literal = refer(request, &saved).map_err(|p| refuse(index, p))?;
                let mut sent = replay::read_request(&literal, &Symbols::default());
                sent.method = "GET".into();
                watches.insert(*id, client.watch(&sent).await?);
                steps.push(json!({"id": id, "watch": names.show(&literal)}));
            }
            Step::Watched(id) => {
                let watching =
                    watches.remove(id).ok_or_else(|| refuse(index, format!("there is no watch {id}")))?;
                let (code, events) = replay::ended(watching).await.map_err(|p| refuse(index, p))?;
                let events = names.answer(&Value::Array(events));
                steps.push(json!({"watched": id, "code": code, "events": events}));
            }
            Step::Request { request, note, save } => {
                let literal = refer(request, &saved).map_err(|p| refuse(index, p))?;
                let sent = replay::read_request(&literal, &Symbols::default());
                names.sent(&format!("{} {}", sent.path, sent.body));
                let Answer { code, body, warnings } = {
                    let answer = client.send(&sent).await?;
                    traces.note(&sent, &answer);
                    answer
                };
                for (name, pointer) in save {
                    let value = body.pointer(pointer).and_then(Value::as_str).ok_or_else(|| {
                        refuse(
                            index,
                            format!("the answer has no text at {pointer} to save as {name}: {body}"),
                        )
                    })?;
                    saved.insert(name.clone(), value.to_owned());
                }
                // Before the request is shown: the answer may name what the request refers to.
                let mut response = json!({"code": code, "body": names.answer(&body)});
                if !warnings.is_empty() {
                    response["warnings"] = json!(warnings);
                }
                let mut step = json!({"request": names.show(&literal), "response": response});
                if let Some(note) = note {
                    step["note"] = note.clone().into();
                }
                steps.push(step);
            }
        }
    }
    Ok((steps, version))
}

/// Puts saved values in the place of `${name}`.
fn refer(value: &Value, saved: &BTreeMap<String, String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            let mut out = text.clone();
            for (name, value) in saved {
                out = out.replace(&format!("${{{name}}}"), value);
            }
            if out.contains("${") {
                return Err(format!("{text:?} refers to what was not saved before"));
            }
            Value::String(out)
        }
        Value::Array(items) => items.iter().map(|v| refer(v, saved)).collect::<Result<_, _>>()?,
        Value::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                out.insert(key.clone(), refer(value, saved)?);
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

/// Patterns of what differs from run to run.
struct Patterns {
    uuid: Regex,
    inner_uuid: Regex,
    time: Regex,
    age: Regex,
}

/// Symbols of identifiers, numbered as they first appear.
struct Names {
    patterns: Option<Patterns>,
    symbols: Vec<(String, String)>,
    counts: HashMap<&'static str, usize>,
    sent: String,
}

impl Names {
    fn new() -> Names {
        let patterns = || -> Result<Patterns, regex::Error> {
            Ok(Patterns {
                uuid: Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")?,
                inner_uuid: Regex::new(
                    "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                )?,
                time: Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")?,
                age: Regex::new(r"^(\d+[smhdy])+$")?,
            })
        };
        Names { patterns: patterns().ok(), symbols: Vec::new(), counts: HashMap::new(), sent: String::new() }
    }

    /// Notes what a client sent: it is no value of the server's.
    fn sent(&mut self, text: &str) {
        self.sent.push_str(text);
        self.sent.push('\n');
    }

    fn symbol(&mut self, kind: &'static str, value: &str) -> String {
        if let Some((_, symbol)) = self.symbols.iter().find(|(known, _)| known == value) {
            return symbol.clone();
        }
        let count = self.counts.entry(kind).or_insert(0);
        *count += 1;
        let symbol = format!("<{kind}-{count}>");
        self.symbols.push((value.to_owned(), symbol.clone()));
        symbol
    }

    /// An answer with symbols.
    fn answer(&mut self, body: &Value) -> Value {
        self.identify(body);
        self.value(body, "")
    }

    /// Finds the names that the server made up.
    fn identify(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let meta = &value["metadata"];
                if let (Some(prefix), Some(name)) = (meta["generateName"].as_str(), meta["name"].as_str())
                    && name.starts_with(prefix)
                    && !self.sent.contains(&format!("{name:?}"))
                {
                    self.symbol("name", name);
                }
                // The volume that a pod's token comes with.
                let volume = value["name"].as_str().and_then(|n| n.strip_prefix("kube-api-access-"));
                if let Some(suffix) = volume.filter(|_| value["projected"].is_object()) {
                    self.symbol("name", suffix);
                }
                fields.values().for_each(|inner| self.identify(inner));
            }
            Value::Array(items) => items.iter().for_each(|inner| self.identify(inner)),
            _ => {}
        }
    }

    fn value(&mut self, value: &Value, key: &str) -> Value {
        match value {
            Value::String(text) => self.text(text, key).into(),
            Value::Number(number) if key == "nodePort" && !self.sent.contains(&number.to_string()) => {
                ANY_PORT.into()
            }
            Value::Array(items) => items.iter().map(|item| self.value(item, key)).collect(),
            Value::Object(fields) => {
                let mut keys: Vec<&String> = fields.keys().collect();
                keys.sort_by_key(|k| (k.as_str() != "metadata", k.as_str()));
                let is_table = value["kind"] == "Table";
                let mut out = Map::new();
                for key in keys {
                    let inner = &fields[key];
                    out.insert(
                        key.clone(),
                        if is_table && key == "rows" { self.rows(inner) } else { self.value(inner, key) },
                    );
                }
                Value::Object(out)
            }
            other => other.clone(),
        }
    }

    /// Rows of a table: how old something is differs from run to run.
    fn rows(&mut self, rows: &Value) -> Value {
        let mut out = self.value(rows, "rows");
        for row in out.as_array_mut().into_iter().flatten() {
            for cell in row["cells"].as_array_mut().into_iter().flatten() {
                let is_age =
                    cell.as_str().zip(self.patterns.as_ref()).is_some_and(|(t, p)| p.age.is_match(t));
                if is_age {
                    *cell = "<age>".into();
                }
            }
        }
        out
    }

    fn text(&mut self, text: &str, key: &str) -> String {
        let given = self.sent.contains(text);
        let (is_uuid, is_time) =
            self.patterns.as_ref().map_or((false, false), |p| (p.uuid.is_match(text), p.time.is_match(text)));
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match key {
            _ if is_uuid && (!given || self.symbols.iter().any(|(v, _)| v == text)) => {
                self.symbol("uid", text)
            }
            _ if is_time && !given => "<time>".into(),
            "resourceVersion" if is_number && text != "0" => self.symbol("rv", text),
            "clusterIP" | "clusterIPs" if !given && text != "None" && !text.is_empty() => {
                "<clusterIP>".into()
            }
            "continue" if !text.is_empty() => "<continue>".into(),
            "token" if !given && !text.is_empty() => "<token>".into(),
            _ => {
                let found = self.patterns.iter().flat_map(|p| p.inner_uuid.find_iter(text));
                let found: Vec<String> = found.map(|m| m.as_str().to_owned()).collect();
                for uuid in found {
                    if !self.sent.contains(&uuid) {
                        self.symbol("uid", &uuid);
                    }
                }
                self.inside(text)
            }
        }
    }

    /// A text in which identifiers occur. Revisions are looked for only where a sentence is about versions.
    fn inside(&self, text: &str) -> String {
        let mut out = text.to_owned();
        let versions = text.contains("esource version") || text.contains("esourceVersion");
        for (value, symbol) in &self.symbols {
            let is_number = value.bytes().all(|b| b.is_ascii_digit());
            if !is_number || (versions && value.len() > 1) {
                out = out.replace(value.as_str(), symbol);
            }
        }
        out
    }

    /// A request with symbols.
    fn show(&self, request: &Value) -> Value {
        match request {
            Value::String(text) => match self.symbols.iter().find(|(value, _)| value == text) {
                Some((_, symbol)) => symbol.clone().into(),
                None => self.inside(text).into(),
            },
            Value::Array(items) => items.iter().map(|item| self.show(item)).collect(),
            Value::Object(fields) => {
                let pairs = fields.iter().map(|(k, v)| (k.clone(), self.show(v)));
                pairs.collect::<Map<String, Value>>().into()
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_becomes_symbols() {
        let mut names = Names::new();
        names.sent(r#"{"spec": {"renewTime": "2020-01-01T00:00:00Z"}}"#);
        let uid = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a";
        let body = json!({"metadata": {"generateName": "x-", "name": "x-abcde", "uid": uid, "resourceVersion": "417",
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"renewTime": "2020-01-01T00:00:00Z",
            "clusterIP": "10.0.0.1", "ports": [{"nodePort": 30001, "port": 417}]}});
        assert_eq!(
            names.answer(&body),
            json!({"metadata": {"creationTimestamp": "<time>", "generateName": "x-", "name": "<name-1>",
                "resourceVersion": "<rv-1>", "uid": "<uid-1>"}, "spec": {"clusterIP": "<clusterIP>",
                "ports": [{"nodePort": ANY_PORT, "port": 417}], "renewTime": "2020-01-01T00:00:00Z"}})
        );
        let request = json!({"path": "/x/x-abcde?resourceVersion=417&limit=417"});
        assert_eq!(names.show(&request)["path"], "/x/<name-1>?resourceVersion=<rv-1>&limit=<rv-1>");
        let other = "0b0b0b0b-0a0a-4a0a-8a0a-0a0a0a0a0a0a";
        assert_eq!(names.answer(&json!({"message": format!("has {other}.")}))["message"], "has <uid-2>.");
        assert_eq!(
            names.answer(&json!({"message": format!("uid {uid}, port 417")}))["message"],
            "uid <uid-1>, port 417"
        );
    }

    #[test]
    fn ages_in_tables() {
        let table = json!({"kind": "Table", "rows": [{"cells": ["x", 1, "12s"]}], "other": ["12s"]});
        let shown = Names::new().answer(&table);
        assert_eq!(shown["rows"][0]["cells"], json!(["x", 1, "<age>"]));
        assert_eq!(shown["other"], json!(["12s"]));
    }

    #[test]
    fn references_need_to_be_saved() {
        let saved = BTreeMap::from([("rv".to_owned(), "7".to_owned())]);
        assert_eq!(refer(&json!({"p": "x${rv}"}), &saved).unwrap(), json!({"p": "x7"}));
        assert!(refer(&json!("${uid}"), &saved).is_err());
    }
}
