//! Faults on demand: each does to a client what its name says, as often as its rule says.

use apiserver::{Config, Fault, Rule, Server};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Long enough for anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    server: Server,
    client: Client<HttpConnector, Full<Bytes>>,
}

type Failure = hyper_util::client::legacy::Error;

impl Cluster {
    async fn start() -> Cluster {
        let mut builder = Client::builder(hyper_util::rt::TokioExecutor::new());
        // A client that repeats by itself would hide what the server did.
        let client = builder.retry_canceled_requests(false).pool_max_idle_per_host(0).build_http();
        Cluster { server: Server::start(Config::default()).await.unwrap(), client }
    }

    async fn open(&self, method: &str, path: &str, body: Value) -> Result<http::Response<Incoming>, Failure> {
        let uri = format!("{}{path}", self.server.url());
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let builder =
            http::Request::builder().method(method).uri(uri).header("content-type", "application/json");
        self.client.request(builder.body(Full::from(bytes)).unwrap()).await
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let response = self.open(method, path, body).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn create(&self, name: &str) -> (u16, Value) {
        self.send("POST", MAPS, json!({"metadata": {"name": name}})).await
    }

    async fn list(&self) -> (u16, Vec<String>) {
        let (code, list) = self.send("GET", MAPS, Value::Null).await;
        let items = list["items"].as_array().into_iter().flatten();
        (code, items.map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect())
    }

    fn add(&self, rule: Rule) -> u64 {
        self.server.faults().add(rule)
    }
}

/// The next event of a watch; `None` at its proper end.
async fn event(body: &mut Incoming) -> Option<Result<Value, hyper::Error>> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("nothing came")?;
    Some(frame.map(|frame| serde_json::from_slice(&frame.into_data().unwrap()).unwrap()))
}

#[tokio::test]
async fn leases_are_read_with_a_clock_that_goes_wrong() {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let cluster = Cluster::start().await;
    let lease = |renewed: &str| {
        json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a",
        "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": renewed}})
    };
    let (first, second) = ("2026-01-01T00:00:10.000000Z", "2026-01-01T00:00:20.000000Z");
    let (_, made) = cluster.send("POST", LEASES, lease(first)).await;
    let one = format!("{LEASES}/leader");
    let renewed = |object: &Value| object["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
    let read = async || {
        let (got, listed) = (
            cluster.send("GET", &one, Value::Null).await.1,
            cluster.send("GET", LEASES, Value::Null).await.1,
        );
        assert_eq!(renewed(&got), renewed(&listed["items"][0]), "a list shows what a get does");
        renewed(&got)
    };

    let frozen = cluster.add(Rule::new(Fault::FreezeLeases).name("leader"));
    let mut next = lease(second);
    next["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let (_, written) = cluster.send("PUT", &one, next).await;
    assert_eq!(renewed(&written), second, "its holder sees what it wrote");
    assert_eq!(read().await, first);
    let watch = format!("{LEASES}?watch=1&timeoutSeconds=1");
    let (_, event) = cluster.send("GET", &watch, Value::Null).await;
    assert_eq!(renewed(&event["object"]), first);

    cluster.add(Rule::new(Fault::ShiftLeases { milliseconds: -1500 }).namespace("default"));
    assert_eq!(read().await, "2026-01-01T00:00:08.500000Z");
    cluster.server.faults().remove(frozen);
    assert_eq!(read().await, "2026-01-01T00:00:18.500000Z");
    cluster.server.faults().clear();
    assert_eq!(read().await, second);
}

#[tokio::test]
async fn requests_are_refused_as_often_as_asked_for() {
    let cluster = Cluster::start().await;
    let seconds = 7;
    for (fault, code, reason, after) in [
        (Fault::Conflict, 409, "Conflict", None),
        (Fault::Expired, 410, "Expired", None),
        (Fault::TooManyRequests { retry_after_seconds: seconds }, 429, "TooManyRequests", Some(seconds)),
        (Fault::InternalError, 500, "InternalError", None),
        (Fault::Unavailable { retry_after_seconds: None }, 503, "ServiceUnavailable", None),
        (Fault::Unavailable { retry_after_seconds: Some(seconds) }, 503, "ServiceUnavailable", Some(seconds)),
    ] {
        let rule = Rule::new(fault.clone()).verbs(["create"]).resources(["configmaps"]).skip(1).times(1);
        let id = cluster.add(rule);
        let body = || json!({"metadata": {"generateName": "m"}});
        assert_eq!(cluster.list().await.0, 200);
        assert_eq!(cluster.send("POST", MAPS, body()).await.0, 201);
        let refused = cluster.open("POST", MAPS, body()).await.unwrap();
        let header = refused.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        assert_eq!((refused.status().as_u16(), header), (code, after.map(|s| s.to_string())), "{fault:?}");
        let bytes = refused.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!(reason)));
        assert_eq!(cluster.send("POST", MAPS, body()).await.0, 201);
        assert_eq!(cluster.server.faults().hits(id), 1);
        cluster.server.faults().clear();
    }
}

#[tokio::test]
async fn a_reset_connection_wrote_nothing_and_a_lost_answer_did() {
    let cluster = Cluster::start().await;
    let post = |name: &str| cluster.open("POST", MAPS, json!({"metadata": {"name": name}}));
    cluster.add(Rule::new(Fault::Reset).verbs(["create"]).times(1));
    let error = post("a").await.unwrap_err();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    let mut kinds = Vec::new();
    while let Some(error) = source {
        kinds.extend(error.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
        source = error.source();
    }
    assert_eq!(kinds, [std::io::ErrorKind::ConnectionReset], "{error:?}");
    assert_eq!(cluster.send("GET", &format!("{MAPS}/a"), Value::Null).await.0, 404);
    cluster.add(Rule::new(Fault::LoseAnswer).verbs(["create"]).times(1));
    assert!(post("a").await.is_err());
    assert_eq!(cluster.send("GET", &format!("{MAPS}/a"), Value::Null).await.0, 200);
    assert_eq!(cluster.create("a").await.0, 409);
}

#[tokio::test]
async fn delays_add_up_and_a_hang_has_no_end() {
    let cluster = Cluster::start().await;
    cluster.add(Rule::delay(Duration::from_millis(60)).verbs(["list"]));
    cluster.add(Rule::delay(Duration::from_millis(40)).resources(["configmaps"]));
    let start = Instant::now();
    assert_eq!(cluster.list().await.0, 200);
    assert!(start.elapsed() >= Duration::from_millis(100));
    cluster.server.faults().clear();
    let id = cluster.add(Rule::new(Fault::Hang).resources(["/version"]));
    let hanging = cluster.open("GET", "/version", Value::Null);
    tokio::select! {
        result = hanging => panic!("{result:?}"),
        () = async {
            cluster.server.faults().wait_for_hits(id, 1).await;
            // Others are answered all the while.
            assert_eq!(cluster.list().await.0, 200);
        } => {}
    }
    tokio::time::timeout(PATIENCE, cluster.server.shutdown())
        .await
        .expect("a hanging request held the server");
}

#[tokio::test]
async fn open_watches_break_off_or_fall_silent() {
    let cluster = Cluster::start().await;
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=2");
    let open = || async { cluster.open("GET", &watch, Value::Null).await.unwrap().into_body() };
    let mut first = open().await;
    cluster.create("a").await;
    assert_eq!(event(&mut first).await.unwrap().unwrap()["type"], "ADDED");
    // One that is open already breaks off after the next event.
    let id = cluster.add(Rule::new(Fault::DropWatch { after_events: 1 }).resources(["configmaps"]).times(1));
    cluster.server.faults().wait_for_hits(id, 1).await;
    cluster.create("b").await;
    assert_eq!(event(&mut first).await.unwrap().unwrap()["object"]["metadata"]["name"], "b");
    assert!(event(&mut first).await.unwrap().is_err());
    // A new one is told of `a` and of nothing after it, until its time is over.
    cluster.add(Rule::new(Fault::SilenceWatch { after_events: 1 }).verbs(["watch"]));
    let mut second = open().await;
    cluster.create("c").await;
    assert_eq!(event(&mut second).await.unwrap().unwrap()["object"]["metadata"]["name"], "a");
    assert!(event(&mut second).await.is_none());
    cluster.server.faults().clear();
    cluster.add(Rule::new(Fault::Expired).verbs(["watch"]));
    let error = event(&mut open().await).await.unwrap().unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn a_stale_list_shows_the_past() {
    let cluster = Cluster::start().await;
    cluster.create("a").await;
    let id = cluster.add(Rule::new(Fault::StaleList).verbs(["list"]));
    let (_, made) = cluster.create("b").await;
    cluster.send("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(cluster.list().await.1, ["a"]);
    // One that asks for at least what it has seen gets it.
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    let (_, list) = cluster.send("GET", &path, Value::Null).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "b");
    assert!(cluster.server.faults().remove(id));
    assert_eq!(cluster.list().await.1, ["b"]);
}

#[tokio::test]
async fn chance_repeats_itself_with_the_same_seed() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let cluster = Cluster::start().await;
        cluster.server.faults().reseed(seed);
        cluster.add(Rule::new(Fault::InternalError).verbs(["list"]).probability(0.5));
        let mut codes = Vec::new();
        for _ in 0..40 {
            codes.push(cluster.list().await.0);
        }
        assert!(codes.contains(&200) && codes.contains(&500), "{codes:?}");
        runs.push(codes);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_game_day_is_led_over_http_by_administrators_only() {
    let cluster = Cluster::start().await;
    const FAULTS: &str = "/playground/faults";
    let rule = json!({"fault": {"type": "unavailable", "retryAfterSeconds": 1}, "verbs": ["list"]});
    let (code, added) = cluster.send("POST", &format!("{FAULTS}?seed=3"), json!([rule])).await;
    assert_eq!((code, &added["added"]), (201, &json!([1])));
    assert_eq!(cluster.list().await.0, 503);
    let (_, shown) = cluster.send("GET", FAULTS, Value::Null).await;
    assert_eq!(
        (&shown["rules"][0]["rule"]["fault"], &shown["rules"][0]["hits"]),
        (&rule["fault"], &json!(1))
    );
    assert_eq!(cluster.send("POST", FAULTS, json!({"fault": {"type": "none"}})).await.0, 400);
    assert_eq!(cluster.send("DELETE", &format!("{FAULTS}/9"), Value::Null).await.0, 404);
    assert_eq!(cluster.send("PUT", FAULTS, Value::Null).await.0, 405);
    let uri = format!("{}{FAULTS}", cluster.server.url());
    let request = http::Request::delete(uri).header("impersonate-user", "somebody").body(Full::default());
    assert_eq!(cluster.client.request(request.unwrap()).await.unwrap().status().as_u16(), 403);
    assert_eq!(cluster.list().await.0, 503);
    assert_eq!(cluster.send("DELETE", &format!("{FAULTS}/1"), Value::Null).await.0, 200);
    assert_eq!(cluster.list().await.0, 200);
}
