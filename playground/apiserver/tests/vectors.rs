//! Replays what a real API server answered (`tests/vectors`) over a socket, and compares.
//!
//! `<uid-N>` and `<rv-N>` are identifiers that must be equal where their symbols are; times, ages and allocated addresses may
//! be any. A scenario may not fall below the number of equal steps in `tests/vectors/EXCEPTIONS.txt`.

// A test that meets something unexpected stops there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apiserver::{Config, Server};
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

type Client = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    Full<bytes::Bytes>,
>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// Symbols of the recording and the values that stand for them here.
#[derive(Default)]
struct Symbols {
    values: HashMap<String, String>,
    next: Option<String>,
}

impl Symbols {
    fn fill(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (symbol, value) in &self.values {
            out = out.replace(symbol, value);
        }
        if let Some(token) = &self.next {
            out = out.replace("<continue>", token);
        }
        out
    }

    /// Compares a recorded value with a given one; symbols that are met first are bound.
    fn equal(&mut self, expected: &Value, given: &Value, path: &str, differences: &mut Vec<String>) {
        match (expected, given) {
            (Value::String(e), Value::String(g)) => {
                if !self.text(e, g) {
                    differences.push(format!("{path}: expected {e:?}, got {g:?}"));
                }
            }
            (Value::Array(e), Value::Array(g)) => {
                let (mut e, mut g) = (e.clone(), g.clone());
                if path.ends_with(".managedFields") || path.ends_with(".causes") {
                    e.sort_by_key(order);
                    g.sort_by_key(order);
                }
                if e.len() != g.len() {
                    let (e, g) = (Value::Array(e), Value::Array(g));
                    differences.push(format!("{path}: expected {e}, got {g}"));
                    return;
                }
                for (i, (e, g)) in e.iter().zip(&g).enumerate() {
                    self.equal(e, g, &format!("{path}[{i}]"), differences);
                }
            }
            (Value::Object(e), Value::Object(g)) => {
                // Binds `metadata` first, so that identifiers in messages are known.
                let mut keys: Vec<&String> =
                    e.keys().chain(g.keys().filter(|k| !e.contains_key(*k))).collect();
                keys.sort_by_key(|k| (k.as_str() != "metadata", k.as_str()));
                let has_causes = e.get("details").is_some_and(|d| d["causes"].is_array());
                let list = e
                    .get("kind")
                    .and_then(Value::as_str)
                    .is_some_and(|k| k.ends_with("List") || k == "Table");
                for key in keys {
                    let below = format!("{path}.{key}");
                    if key == "storageVersionHash" || (key == "message" && has_causes) {
                        continue;
                    }
                    if key == "metadata" && list {
                        let bare = |v: &Value| -> Map<String, Value> {
                            let fields = v.as_object().into_iter().flatten();
                            fields
                                .filter(|(k, _)| *k != "resourceVersion")
                                .map(|(k, v)| (k.clone(), v.clone()))
                                .collect()
                        };
                        if let Some(Value::String(token)) = g.get(key).unwrap_or(&Value::Null).get("continue")
                        {
                            self.next = Some(token.clone());
                        }
                        self.equal(
                            &bare(e.get(key).unwrap_or(&Value::Null)).into(),
                            &bare(g.get(key).unwrap_or(&Value::Null)).into(),
                            &below,
                            differences,
                        );
                        continue;
                    }
                    match (e.get(key), g.get(key)) {
                        (Some(e), Some(g)) => self.equal(e, g, &below, differences),
                        (Some(e), None) => differences.push(format!("{below}: expected {e}, got nothing")),
                        (None, Some(g)) => differences.push(format!("{below}: expected nothing, got {g}")),
                        (None, None) => {}
                    }
                }
            }
            (e, g) if e == g => {}
            (e, g) => differences.push(format!("{path}: expected {e}, got {g}")),
        }
    }

    fn text(&mut self, expected: &str, given: &str) -> bool {
        match expected {
            "<time>" | "<age>" | "<clusterIP>" | "<continue>" => return !given.is_empty(),
            _ => {}
        }
        let whole =
            expected.starts_with('<') && expected.ends_with('>') && expected.matches('<').count() == 1;
        if whole && (expected.starts_with("<uid-") || expected.starts_with("<rv-")) {
            return match self.values.get(expected) {
                Some(known) => known == given,
                None => {
                    let fresh = !self.values.values().any(|v| v == given);
                    self.values.insert(expected.to_owned(), given.to_owned());
                    fresh
                }
            };
        }
        // Symbols inside a longer text: known ones are filled in, unknown ones match anything without quotes or spaces.
        let filled = self.fill(expected);
        if filled == given {
            return true;
        }
        let mut rest = given;
        let mut pieces = filled.split_inclusive('>').flat_map(|piece| match piece.find('<') {
            Some(at) => vec![(&piece[..at], true)],
            None => vec![(piece, false)],
        });
        let mut gap = false;
        pieces.all(|(literal, then_gap)| {
            let at = if gap { rest.find(literal) } else { rest.starts_with(literal).then_some(0) };
            gap = then_gap;
            match at {
                Some(at) => {
                    rest = &rest[at + literal.len()..];
                    true
                }
                None => false,
            }
        }) && filled.contains('<')
    }
}

fn order(value: &Value) -> String {
    let part = |key: &str| value[key].to_string();
    ["manager", "operation", "subresource", "apiVersion", "field", "message"].map(part).join("|")
}

struct Answer {
    code: u16,
    body: Value,
    warnings: Vec<String>,
}

struct Replay {
    client: Client,
    base: String,
    token: String,
}

impl Replay {
    fn request(&self, method: &str, path: &str, headers: &Value, anonymous: bool) -> http::request::Builder {
        let mut builder =
            http::Request::builder().method(method).uri(format!("{}{}", self.base, path.replace(' ', "%20")));
        if !anonymous {
            builder = builder.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers.as_object().into_iter().flatten() {
            builder = builder.header(name, value.as_str().unwrap());
        }
        builder
    }

    async fn send(&self, request: &Value, symbols: &Symbols) -> Answer {
        let path = symbols.fill(request["path"].as_str().unwrap());
        let anonymous = request.get("token").is_some_and(Value::is_null);
        let mut builder =
            self.request(request["method"].as_str().unwrap(), &path, &request["headers"], anonymous);
        if let Some(kind) = request["contentType"].as_str() {
            builder = builder.header("content-type", kind);
        }
        let body = match &request["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        let request = builder.body(Full::from(symbols.fill(&body))).unwrap();
        let response = self.client.request(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings =
            response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { code, body, warnings }
    }
}

/// What a watch saw: read on a task until it ends.
type Watching = tokio::task::JoinHandle<(u16, Vec<Value>)>;

async fn open(replay: &Replay, step: &Value, symbols: &Symbols) -> Watching {
    let path = symbols.fill(step["watch"]["path"].as_str().unwrap());
    let request =
        replay.request("GET", &path, &step["watch"]["headers"], false).body(Full::default()).unwrap();
    let response = replay.client.request(request).await.unwrap();
    let code = response.status().as_u16();
    tokio::spawn(async move {
        let bytes = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        (code, lines.map(|l| serde_json::from_slice(l).unwrap()).collect())
    })
}

/// Bookmarks other than the one that ends the initial events need not be equal.
fn without_bookmarks(events: &[Value]) -> Vec<Value> {
    let plain = |e: &&Value| e["type"] != "BOOKMARK" || !e["object"]["metadata"]["annotations"].is_null();
    events.iter().filter(plain).cloned().collect()
}

/// Replays a scenario: equal steps, all steps, and what differs.
async fn replay(scenario: &Value) -> (usize, usize, Vec<String>) {
    let server = Server::start(Config { anonymous_admin: false, ..Config::default() }).await.unwrap();
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let replay = Replay { client, base: server.url(), token: server.admin_token().to_owned() };
    let namespace = scenario["namespace"].as_str().unwrap();
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let made = serde_json::json!({"method": "POST", "path": "/api/v1/namespaces", "body": body, "contentType": "application/json"});
    let mut symbols = Symbols::default();
    assert_eq!(replay.send(&made, &symbols).await.code, 201);
    let (mut equal, mut total, mut report) = (0, 0, Vec::new());
    let mut watches: HashMap<u64, Watching> = HashMap::new();
    for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let mut differences = Vec::new();
        if step.get("watch").is_some() {
            watches.insert(step["id"].as_u64().unwrap(), open(&replay, step, &symbols).await);
            continue;
        } else if let Some(id) = step["watched"].as_u64() {
            let watching = watches.remove(&id).unwrap();
            let (code, events) =
                tokio::time::timeout(Duration::from_secs(20), watching).await.unwrap().unwrap();
            if step["code"] != code {
                differences.push(format!("code: expected {}, got {code}", step["code"]));
            }
            let expected = without_bookmarks(step["events"].as_array().unwrap());
            let events = without_bookmarks(&events);
            symbols.equal(&expected.into(), &events.into(), "events", &mut differences);
        } else if step.get("request").is_some() {
            let answer = replay.send(&step["request"], &symbols).await;
            let expected = &step["response"];
            if expected["code"] != answer.code {
                differences.push(format!("code: expected {}, got {}", expected["code"], answer.code));
            }
            let path = step["request"]["path"].as_str().unwrap();
            let mut body = expected["body"].clone();
            let mut given = answer.body;
            if path == "/version" || path == "/api" {
                for fields in [&mut body, &mut given].into_iter().filter_map(Value::as_object_mut) {
                    for key in ["buildDate", "gitCommit", "gitTreeState", "goVersion", "compiler", "platform"]
                    {
                        fields.remove(key);
                    }
                    // The address is that of the recorded server.
                    fields.remove("serverAddressByClientCIDRs");
                }
            }
            symbols.equal(&body, &given, "body", &mut differences);
            let warnings = expected["warnings"].as_array().cloned().unwrap_or_default();
            let warnings: Vec<&str> = warnings.iter().map(|w| w.as_str().unwrap()).collect();
            if warnings != answer.warnings {
                differences.push(format!("warnings: expected {warnings:?}, got {:?}", answer.warnings));
            }
        } else {
            // A pause gave the real server's controllers time; here nothing happens later.
            continue;
        }
        total += 1;
        if differences.is_empty() {
            equal += 1;
        } else {
            report.push(format!("  #{index} {}", differences.join("\n      ")));
        }
    }
    server.shutdown().await;
    (equal, total, report)
}

/// `name equal-steps`, one scenario a line; what follows `#` says why steps differ.
fn floors() -> HashMap<String, usize> {
    let text = std::fs::read_to_string(folder().join("EXCEPTIONS.txt")).unwrap_or_default();
    let lines = text.lines().map(|l| l.split('#').next().unwrap().trim()).filter(|l| !l.is_empty());
    lines
        .map(|l| {
            let (name, floor) = l.split_once(' ').expect("a line is `name floor`");
            (name.to_owned(), floor.trim().parse().expect("the floor is a number"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_are_given_again() {
    let only = std::env::var("VECTOR").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    assert!(files.len() > 40, "the recorded scenarios are missing");
    let floors = floors();
    let mut running = Vec::new();
    for file in files {
        let scenario: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        if scenario["name"].as_str().unwrap().contains(&only) {
            running.push((scenario.clone(), tokio::spawn(async move { replay(&scenario).await })));
        }
    }
    let (mut all, mut same, mut fallen) = (0, 0, Vec::new());
    for (scenario, task) in running {
        let name = scenario["name"].as_str().unwrap();
        let (equal, total, report) = task.await.unwrap_or_else(|e| (0, 1, vec![format!("  broke off: {e}")]));
        all += total;
        same += equal;
        println!("{name:32} {equal:3} / {total:3}");
        for line in report {
            println!("{line}");
        }
        if equal < floors.get(name).copied().unwrap_or(total) {
            fallen.push(name.to_owned());
        }
    }
    println!("{:32} {same:3} / {all:3}  {:.1} %", "all", 100.0 * same as f64 / all as f64);
    assert!(fallen.is_empty(), "fewer equal steps than before in: {}", fallen.join(", "));
}
