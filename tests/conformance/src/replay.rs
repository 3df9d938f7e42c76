//! Sends the requests of a scenario to a server and compares the answers.

use crate::client::{Access, Answer, Client, Request, Watching};
use crate::scenario::Scenario;
use crate::symbols::Symbols;
use crate::traces::Traces;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// How long a watch may take to end.
const WATCH_LIMIT: Duration = Duration::from_secs(30);

/// Fields of `/version` and `/api` that say which build it is and where it runs.
const BUILD: [&str; 7] = [
    "buildDate",
    "gitCommit",
    "gitTreeState",
    "goVersion",
    "compiler",
    "platform",
    "serverAddressByClientCIDRs",
];

/// Where scenarios are replayed.
#[derive(Debug, Clone)]
pub enum Target {
    /// A server of its own for each scenario, in this process. Pauses are skipped: nothing happens later there.
    Embedded,
    /// A server that others may use too: scenarios clean up behind themselves.
    Server(Access),
}

/// Why a scenario broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is not reached.
    #[error(transparent)]
    Client(#[from] crate::client::Error),
    /// The embedded server does not start.
    #[error(transparent)]
    Embedded(#[from] apiserver::Error),
    /// The scenario's namespace cannot be made.
    #[error("the namespace {namespace} could not be made: {answer}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// What the server said.
        answer: Value,
    },
    /// The scenario is not as it should be.
    #[error("step {step} of {scenario}: {problem}")]
    Step {
        /// Name of the scenario.
        scenario: String,
        /// Index of the step.
        step: usize,
        /// What is wrong.
        problem: String,
    },
}

/// What came of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Steps that were compared.
    pub total: usize,
    /// Indices of the steps whose answers differ, and how.
    pub different: Vec<(usize, Vec<String>)>,
}

impl Outcome {
    /// Steps whose answers are equal.
    pub fn equal(&self) -> usize {
        self.total - self.different.len()
    }
}

/// Replays a scenario.
///
/// # Errors
/// When the server is not reached or the scenario is malformed.
pub async fn replay(scenario: &Scenario, target: &Target) -> Result<Outcome, Error> {
    match target {
        Target::Embedded => {
            let config = embedded(scenario.controllers);
            let server = apiserver::Server::start(config).await?;
            let token = Some(server.admin_token().to_owned());
            let client = Client::new(Access { url: server.url(), token, ..Access::default() })?;
            let stand_in = scenario.controllers;
            let outcome = run(scenario, &client, false, stand_in, &mut Traces::default()).await;
            server.shutdown().await;
            outcome
        }
        Target::Server(access) => {
            let client = Client::new(access.clone())?;
            let mut traces = Traces::default();
            let outcome = run(scenario, &client, true, false, &mut traces).await;
            traces.remove(&client, scenario.controllers).await?;
            outcome
        }
    }
}

/// How the embedded server is started for scenarios of either kind.
pub fn embedded(controllers: bool) -> apiserver::Config {
    // The addresses that tests/control-plane/run.sh gives to Services.
    let service_range = (std::net::Ipv4Addr::new(10, 96, 0, 0), 16);
    apiserver::Config {
        anonymous_admin: false,
        service_accounts: controllers,
        service_range,
        ..apiserver::Config::default()
    }
}

/// Makes the namespace of a scenario: under its own name, or when that is taken under another. The result is the name.
///
/// # Errors
/// When the server refuses.
pub async fn make_namespace(client: &Client, wanted: &str, traces: &mut Traces) -> Result<String, Error> {
    let mut namespace = wanted.to_owned();
    loop {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let request = Request {
            method: "POST".into(),
            path: "/api/v1/namespaces".into(),
            content_type: Some("application/json".into()),
            body: body.to_string(),
            ..Request::default()
        };
        let answer = client.send(&request).await?;
        match answer.code {
            201 => {
                traces.note(&request, &answer);
                return Ok(namespace);
            }
            409 => namespace = format!("{wanted}-{:06x}", fastrand::u32(..0x0100_0000)),
            _ => return Err(Error::Namespace { namespace, answer: answer.body }),
        }
    }
}

/// Makes the account that controllers make in every namespace, where none run.
async fn make_account(client: &Client, namespace: &str) -> Result<(), Error> {
    let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let request = Request {
        method: "POST".into(),
        path: format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
        content_type: Some("application/json".into()),
        body: body.to_string(),
        ..Request::default()
    };
    client.send(&request).await?;
    Ok(())
}

async fn run(
    scenario: &Scenario,
    client: &Client,
    pauses: bool,
    stand_in: bool,
    traces: &mut Traces,
) -> Result<Outcome, Error> {
    let namespace = make_namespace(client, &scenario.namespace, traces).await?;
    if stand_in {
        make_account(client, &namespace).await?;
    }
    let moved = if namespace == scenario.namespace { None } else { Some(scenario.moved(&namespace)) };
    let scenario = moved.as_ref().unwrap_or(scenario);
    let mut symbols = Symbols::default();
    let mut outcome = Outcome::default();
    let mut watches: HashMap<u64, Watching> = HashMap::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let refuse = |problem: String| Error::Step { scenario: scenario.name.clone(), step: index, problem };
        let mut differences = Vec::new();
        if let Some(watch) = step.get("watch") {
            let id = step["id"].as_u64().ok_or_else(|| refuse("a watch has no id".into()))?;
            let mut request = read_request(watch, &symbols);
            request.method = "GET".into();
            watches.insert(id, client.watch(&request).await?);
            continue;
        } else if let Some(id) = step["watched"].as_u64() {
            let watching = watches.remove(&id).ok_or_else(|| refuse(format!("there is no watch {id}")))?;
            let (code, events) = ended(watching).await.map_err(refuse)?;
            compare_events(step, code, &events, &mut symbols, &mut differences);
        } else if let Some(request) = step.get("request") {
            let request = read_request(request, &symbols);
            let answer = client.send(&request).await?;
            traces.note(&request, &answer);
            compare(step, &request.path, answer, &mut symbols, &mut differences);
        } else if let Some(seconds) = step["pause"].as_f64() {
            if pauses {
                tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 60.0))).await;
            }
            continue;
        } else {
            return Err(refuse("it is neither a request nor a watch nor a pause".into()));
        }
        outcome.total += 1;
        if !differences.is_empty() {
            outcome.different.push((index, differences));
        }
    }
    Ok(outcome)
}

/// What a watch saw, once it has ended.
///
/// # Errors
/// When it does not end.
pub async fn ended(watching: Watching) -> Result<(u16, Vec<Value>), String> {
    let waited = tokio::time::timeout(WATCH_LIMIT, watching).await;
    let joined = waited.map_err(|_| format!("the watch did not end within {} s", WATCH_LIMIT.as_secs()))?;
    joined.map_err(|e| format!("the watch broke off: {e}"))
}

/// A recorded request with the values of its symbols.
pub fn read_request(step: &Value, symbols: &Symbols) -> Request {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let body = match &step["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    let headers = step["headers"].as_object().into_iter().flatten();
    Request {
        method: text("method").to_owned(),
        path: symbols.fill(text("path")),
        headers: headers.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
        content_type: step["contentType"].as_str().map(str::to_owned),
        body: symbols.fill(&body),
        anonymous: step.get("token").is_some_and(Value::is_null),
    }
}

fn compare(step: &Value, path: &str, answer: Answer, symbols: &mut Symbols, differences: &mut Vec<String>) {
    let expected = &step["response"];
    if expected["code"] != answer.code {
        differences.push(format!("code: expected {}, got {}", expected["code"], answer.code));
    }
    let (mut body, mut given) = (expected["body"].clone(), answer.body);
    if path == "/version" || path == "/api" {
        for fields in [&mut body, &mut given].into_iter().filter_map(Value::as_object_mut) {
            BUILD.iter().for_each(|key| drop(fields.remove(*key)));
        }
    }
    symbols.equal(&body, &given, "body", differences);
    let warnings = expected["warnings"].as_array().into_iter().flatten();
    let warnings: Vec<&str> = warnings.filter_map(Value::as_str).collect();
    if warnings != answer.warnings {
        differences.push(format!("warnings: expected {warnings:?}, got {:?}", answer.warnings));
    }
}

/// Bookmarks other than the one that ends the initial events need not be equal.
fn without_bookmarks(events: &[Value]) -> Value {
    let plain = |e: &&Value| e["type"] != "BOOKMARK" || !e["object"]["metadata"]["annotations"].is_null();
    events.iter().filter(plain).cloned().collect()
}

fn compare_events(
    step: &Value,
    code: u16,
    events: &[Value],
    symbols: &mut Symbols,
    differences: &mut Vec<String>,
) {
    if step["code"] != code {
        differences.push(format!("code: expected {}, got {code}", step["code"]));
    }
    let expected = without_bookmarks(step["events"].as_array().map_or(&[][..], Vec::as_slice));
    symbols.equal(&expected, &without_bookmarks(events), "events", differences);
}
