//! What the recordings do not show: grace, namespaces, history, races, access, odd input.

use apiserver::{Config, LogRequest, LogStream, PodLogs, Server};
use futures::StreamExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

struct Cluster {
    server: Server,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Cluster {
    async fn start() -> Cluster {
        Cluster::with(Config::default()).await
    }

    async fn with(config: Config) -> Cluster {
        let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        Cluster { server: Server::start(config).await.unwrap(), client }
    }

    async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
        let uri = format!("{}{path}", self.server.url());
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let response = self.client.request(builder.body(Full::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (code, bytes) = self.raw(method, path, &[("content-type", kind)], bytes).await;
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, "application/json", body).await
    }
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_running_pod_is_given_time_until_its_node_lets_go() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.post(PODS, pod("p")).await.0, 201);
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    assert_eq!(cluster.post(&format!("{PODS}/p/binding"), binding).await.0, 201);
    let path = format!("{PODS}/p");
    let (code, dying) = cluster.send("DELETE", &path, "", Value::Null).await;
    assert_eq!((code, &dying["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    let (_, again) = cluster.send("DELETE", &path, "", Value::Null).await;
    assert_eq!(again["metadata"]["resourceVersion"], dying["metadata"]["resourceVersion"]);
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": dying["metadata"]["uid"]}});
    assert_eq!(cluster.send("DELETE", &path, "application/json", options).await.0, 200);
    assert_eq!(cluster.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_stateful_set_mounts_its_claim_templates() {
    let cluster = Cluster::start().await;
    let set = |mounted: &str| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {
        "serviceName": "s", "selector": {"matchLabels": {"app": "s"}}, "template": {"metadata": {"labels": {"app": "s"}},
            "spec": {"containers": [{"name": "c", "image": "x:1",
                "volumeMounts": [{"name": mounted, "mountPath": "/data"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}})
    };
    let path = "/apis/apps/v1/namespaces/default/statefulsets";
    assert_eq!(cluster.post(path, set("other")).await.0, 422);
    let (code, body) = cluster.post(path, set("data")).await;
    assert_eq!(code, 201, "{body}");
}

#[tokio::test]
async fn an_eviction_respects_disruption_budgets() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p")).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(cluster.send("PATCH", &format!("{PODS}/p/status"), MERGE, ready).await.0, 200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}});
    assert_eq!(cluster.post(budgets, budget).await.0, 201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = format!("{PODS}/p/eviction");
    assert_eq!(cluster.post(&path, eviction.clone()).await.0, 429);
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    assert_eq!(cluster.send("PATCH", &format!("{budgets}/b/status"), MERGE, status).await.0, 200);
    assert_eq!(cluster.post(&path, eviction).await.0, 201);
    // It goes with the grace that it asks for.
    let (_, dying) = cluster.get(&format!("{PODS}/p")).await;
    assert!(dying["metadata"]["deletionTimestamp"].is_string() || dying["code"] == 404, "{dying}");
    let (_, spent) = cluster.get(&format!("{budgets}/b")).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn a_watch_from_before_the_history_is_told_so() {
    let cluster = Cluster::start().await;
    let (_, first) = cluster.post(MAPS, json!({"metadata": {"name": "x"}})).await;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    for n in 0..4200 {
        let change = json!({"data": {"n": n.to_string()}});
        assert_eq!(cluster.send("PATCH", &format!("{MAPS}/x"), MERGE, change).await.0, 200);
    }
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let (code, event) = cluster.get(&path).await;
    assert_eq!((code, &event["type"], &event["object"]["code"]), (200, &json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_of_many_is_lost() {
    let cluster = Arc::new(Cluster::start().await);
    cluster.post(MAPS, json!({"metadata": {"name": "x"}})).await;
    let writers = (0..8).map(|writer| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"},
                    "data": {format!("k{writer}"): n.to_string()}});
                let path = format!("{MAPS}/x?fieldManager=w{writer}");
                assert_eq!(cluster.send("PATCH", &path, APPLY, body).await.0, 200);
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|r| r.unwrap());
    let (_, object) = cluster.get(&format!("{MAPS}/x")).await;
    assert_eq!(object["data"].as_object().unwrap().len(), 8);
    assert!(object["data"].as_object().unwrap().values().all(|v| v == "24"));
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn roles_are_looked_at_for_impersonated_users() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]});
    assert_eq!(cluster.post(&format!("{rbac}/rolebindings"), binding).await.0, 201);
    let as_reader = [("impersonate-user", "system:serviceaccount:default:reader")];
    for (path, code) in [
        (PODS, 200),
        ("/api/v1/namespaces/kube-system/pods", 403),
        ("/api/v1/namespaces/default/secrets", 403),
        ("/api/v1/nodes", 403),
        ("/api/v1/namespaces/default", 200),
        ("/apis/apps/v1", 200),
    ] {
        assert_eq!(cluster.raw("GET", path, &as_reader, Vec::new()).await.0, code, "{path}");
    }
    let token = cluster
        .post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "reader"}}))
        .await;
    assert_eq!(token.0, 201);
    let path = "/api/v1/namespaces/default/serviceaccounts/reader/token";
    let (_, token) = cluster.post(path, json!({"spec": {}})).await;
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(cluster.raw("GET", PODS, &headers, Vec::new()).await.0, 200);
    assert_eq!(cluster.raw("DELETE", PODS, &headers, Vec::new()).await.0, 403);
    assert_eq!(cluster.raw("GET", PODS, &[("authorization", "Bearer nonsense")], Vec::new()).await.0, 401);
    let strangers = [("authorization", bearer.as_str()), ("impersonate-user", "admin")];
    assert_eq!(cluster.raw("GET", PODS, &strangers, Vec::new()).await.0, 403);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    assert_eq!(cluster.post(&format!("{rbac}/rolebindings"), binding).await.0, 201);
    let headers = [("impersonate-user", "ann"), ("content-type", "application/json")];
    let role = |resource: &str| {
        json!({"metadata": {"name": format!("r-{resource}")},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
    };
    let roles = format!("{rbac}/roles");
    let post = |path: String, body: Value| {
        let (cluster, headers) = (&cluster, &headers);
        async move { cluster.raw("POST", &path, headers, body.to_string().into_bytes()).await }
    };
    assert_eq!(post(roles.clone(), role("pods")).await.0, 201);
    let (code, text) = post(roles, role("nodes")).await;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(code, 403);
    assert!(text.contains("attempting to grant RBAC permissions not currently held"), "{text}");
    let bind = |name: &str| {
        json!({"metadata": {"name": format!("as-{name}")}, "roleRef": {"kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": "ben"}]})
    };
    assert_eq!(post(format!("{rbac}/rolebindings"), bind("view")).await.0, 201);
    assert_eq!(post(format!("{rbac}/rolebindings"), bind("cluster-admin")).await.0, 403);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let cluster = Cluster::start().await;
    for n in 0..25 {
        cluster
            .post(MAPS, json!({"metadata": {"name": format!("m{n:02}"), "labels": {"n": n.to_string()}}}))
            .await;
    }
    let (mut names, mut token, mut versions) = (Vec::new(), String::new(), Vec::new());
    loop {
        let (_, page) = cluster.get(&format!("{MAPS}?limit=10&continue={token}")).await;
        names.extend(page["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()));
        versions.push(page["metadata"]["resourceVersion"].clone());
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
        // What happens while a client pages does not show: all pages are of one state.
        cluster.send("DELETE", &format!("{MAPS}/m00"), "", Value::Null).await;
        cluster.send("DELETE", &format!("{MAPS}/m24"), "", Value::Null).await;
        cluster.post(MAPS, json!({"metadata": {"name": "m15a"}})).await;
    }
    assert!(!names.contains(&json!("m15a")) && names.contains(&json!("m24")), "{names:?}");
    assert!(versions.iter().all(|v| *v == versions[0]), "{versions:?}");
    assert_eq!(names.len(), 25);
    let (_, one) = cluster.get(&format!("{MAPS}?labelSelector=n=7")).await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let (_, all) = cluster.get("/api/v1/configmaps").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 24);
}

#[tokio::test]
async fn a_page_from_before_a_compaction_has_expired() {
    let cluster = Cluster::start().await;
    for n in 0..5 {
        cluster.post(MAPS, json!({"metadata": {"name": format!("m{n}")}})).await;
    }
    let (_, page) = cluster.get(&format!("{MAPS}?limit=2")).await;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let version = page["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    cluster.send("DELETE", &format!("{MAPS}/m4"), "", Value::Null).await;
    let exact = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&exact).await.1["items"].as_array().unwrap().len(), 5);
    cluster.server.compact();
    assert_eq!(cluster.get(&exact).await.0, 410);
    let (code, status) = cluster.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    // The answer has a token with which one can go on in the current state.
    let token = status["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = cluster.get(&format!("{MAPS}?continue={token}")).await;
    let names: Vec<&Value> =
        rest["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["m2", "m3"]);
}

#[tokio::test]
async fn a_restarted_server_has_what_it_had() {
    let mut cluster = Cluster::start().await;
    let (_, made) = cluster.post(MAPS, json!({"metadata": {"name": "x"}})).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let definition = json!({"metadata": {"name": "things.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(cluster.post(definitions, definition).await.0, 201);
    let (url, token) = (cluster.server.url(), cluster.server.admin_token().to_owned());
    let watch = format!("{url}{MAPS}?watch=1");
    let open = http::Request::get(watch).body(Full::default()).unwrap();
    let mut stream = cluster.client.request(open).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    let kept = cluster.server.stop_keeping().await;
    while let Some(Ok(_)) = stream.frame().await {}
    cluster.server = Server::start_with(Config::default(), kept).await.unwrap();
    assert_eq!((cluster.server.url(), cluster.server.admin_token()), (url, token.as_str()));
    assert_eq!(cluster.get(&format!("{MAPS}/x")).await.1, made);
    assert_eq!(cluster.get("/apis/a.io/v1/namespaces/default/things").await.0, 200);
    // A watch goes on where it was: what was written in between is told.
    assert_eq!(cluster.send("PATCH", &format!("{MAPS}/x"), MERGE, json!({"data": {"a": "b"}})).await.0, 200);
    let (_, event) = cluster.get(&format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}")).await;
    assert_eq!((&event["type"], &event["object"]["data"]), (&json!("MODIFIED"), &json!({"a": "b"})));
    let (_, other) = cluster.post(MAPS, json!({"metadata": {"name": "y"}})).await;
    assert_ne!(other["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn the_api_has_a_service_that_leads_to_it() {
    let mut cluster = Cluster::start().await;
    let (_, service) = cluster.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]),
        (&json!("127.96.0.1"), &json!(443))
    );
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let port = |slice: &Value| slice["ports"][0]["port"].as_u64().unwrap();
    let (_, slice) = cluster.get(slices).await;
    assert_eq!(port(&slice), u64::from(cluster.server.address().port()));
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
    assert_eq!(cluster.get("/api/v1/namespaces/default/endpoints/kubernetes").await.0, 200);
    // Elsewhere after a restart, it says so.
    let old = cluster.server.address();
    let kept = cluster.server.stop_keeping().await;
    let _taken = std::net::TcpListener::bind(old).unwrap();
    assert!(Server::start_with(Config::default(), kept).await.is_err());
    cluster = Cluster::start().await;
    let kept = cluster.server.stop_keeping().await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Config { address: elsewhere, ..Config::default() };
    cluster.server = Server::start_with(config, kept).await.unwrap();
    assert_eq!(port(&cluster.get(slices).await.1), u64::from(elsewhere.port()));
}

#[tokio::test]
async fn old_events_are_forgotten() {
    let config = Config { event_lifetime: Duration::from_millis(300), ..Config::default() };
    let cluster = Cluster::with(config).await;
    let events = "/api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    assert_eq!(cluster.post(events, event).await.0, 201);
    let watch = format!("{}{events}?watch=1&timeoutSeconds=20", cluster.server.url());
    let open = http::Request::get(watch).body(Full::default()).unwrap();
    let stream = cluster.client.request(open).await.unwrap().into_body().collect();
    // The watch ends by itself after 20 seconds: that is the deadline.
    let told = tokio::select! {
        told = stream => String::from_utf8(told.unwrap().to_bytes().to_vec()).unwrap(),
        () = async { while cluster.get(&format!("{events}/e")).await.0 != 404 {} } => return,
    };
    panic!("the event is still there after 20 s: {told}");
}

#[tokio::test]
async fn a_definition_waits_for_its_last_instance() {
    let cluster = Cluster::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let definition = json!({"metadata": {"name": "things.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
            {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(cluster.post(definitions, definition).await.0, 201);
    let things = "/apis/a.io/v1/namespaces/default/things";
    let thing = json!({"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": "t", "finalizers": ["a.io/hold"]},
        "spec": {"any": [1]}});
    assert_eq!(cluster.post(things, thing).await.0, 201);
    let (_, beta) = cluster.get("/apis/a.io/v1beta1/namespaces/default/things/t").await;
    assert_eq!((&beta["apiVersion"], &beta["spec"]), (&json!("a.io/v1beta1"), &json!({"any": [1]})));
    let one = format!("{definitions}/things.a.io");
    assert_eq!(cluster.send("DELETE", &one, "", Value::Null).await.0, 200);
    assert_eq!(cluster.get(&one).await.0, 200);
    let (_, held) = cluster.get(&format!("{things}/t")).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let release = json!({"metadata": {"finalizers": null}});
    assert_eq!(cluster.send("PATCH", &format!("{things}/t"), MERGE, release).await.0, 200);
    assert_eq!(cluster.get(&one).await.0, 404);
    assert_eq!(cluster.get(things).await.0, 404);
}

struct Echo;

impl PodLogs for Echo {
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, String>> {
        Box::pin(async move {
            let line = format!(
                "{}/{}/{} {:?}\n",
                request.namespace, request.pod, request.container, request.tail_lines
            );
            Ok(futures::stream::once(async move { bytes::Bytes::from(line) }).boxed())
        })
    }
}

#[tokio::test]
async fn logs_come_from_whoever_has_them() {
    let cluster = Cluster::with(Config { pod_logs: Some(Arc::new(Echo)), ..Config::default() }).await;
    cluster.post(PODS, pod("p")).await;
    let (code, text) = cluster.raw("GET", &format!("{PODS}/p/log?tailLines=3"), &[], Vec::new()).await;
    assert_eq!((code, text.as_slice()), (200, &b""[..]), "it runs nowhere yet");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "here"}});
    assert_eq!(cluster.post(&format!("{PODS}/p/binding"), binding).await.0, 201);
    let (code, text) = cluster.raw("GET", &format!("{PODS}/p/log?tailLines=3"), &[], Vec::new()).await;
    assert_eq!((code, text.as_slice()), (200, &b"default/p/c Some(3)\n"[..]));
    assert_eq!(cluster.get(&format!("{PODS}/p/log?container=zzz")).await.0, 400);
    assert_eq!(cluster.get(&format!("{PODS}/p/log?sinceSeconds=0")).await.0, 422);
    assert_eq!(cluster.get(&format!("{PODS}/p/log?sinceTime=yesterday")).await.0, 400);
    assert_eq!(cluster.get(&format!("{PODS}/none/log")).await.0, 404);
}

/// A small generator of repeatable numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A value with odd shapes, made of the words that the API knows.
fn odd(dice: &mut Dice, depth: usize) -> Value {
    const WORDS: [&str; 22] = [
        "metadata",
        "spec",
        "template",
        "containers",
        "name",
        "labels",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "ports",
        "selector",
        "status",
        "$patch",
        "data",
        "a",
        "versions",
        "resources",
        "limits",
        "kind",
        "apiVersion",
        "$retainKeys",
        "matchLabels",
    ];
    match dice.roll(if depth > 4 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(1e300),
        3 => json!("\u{0}\"\\é"),
        4 => json!(WORDS[dice.roll(WORDS.len())]),
        5 => json!(true),
        6 => (0..dice.roll(3)).map(|_| odd(dice, depth + 1)).collect(),
        _ => {
            let count = dice.roll(5);
            let fields = (0..count).map(|_| (WORDS[dice.roll(WORDS.len())].to_owned(), odd(dice, depth + 1)));
            Value::Object(fields.collect())
        }
    }
}

#[tokio::test]
async fn odd_input_is_refused_and_harms_nobody() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p")).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let paths = [
        PODS,
        MAPS,
        deployments,
        definitions,
        policies,
        "/api/v1/namespaces/default/services",
        "/api/v1/namespaces",
    ];
    let kinds = [MERGE, APPLY, "application/json-patch+json", "application/strategic-merge-patch+json"];
    let mut dice = Dice(7);
    for _ in 0..1500 {
        let mut body = odd(&mut dice, 0);
        let path = paths[dice.roll(paths.len())];
        let patch = dice.roll(2) == 0;
        if let (Value::Object(fields), true) = (&mut body, dice.roll(3) > 0) {
            let name = if patch { "p" } else { "q" };
            if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                metadata.insert("name".into(), name.into());
            } else {
                fields.insert("metadata".into(), json!({"name": name}));
            }
        }
        let (code, _) = if patch {
            let target = format!("{path}/p?fieldManager=f&dryRun=All");
            cluster.send("PATCH", &target, kinds[dice.roll(kinds.len())], body).await
        } else {
            cluster.post(&format!("{path}?dryRun=All"), body).await
        };
        assert!((200..=500).contains(&code));
    }
    for bytes in [&b"\xff\xfe"[..], b"[[[[[[[[", b"{\"a\":", b"k8s\0\xff\xff\xff"] {
        for kind in ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"] {
            assert_eq!(
                cluster.raw("POST", MAPS, &[("content-type", kind)], bytes.to_vec()).await.0,
                400,
                "{kind} {bytes:?}"
            );
        }
    }
    let deep = "[".repeat(50_000).into_bytes();
    assert_eq!(cluster.raw("POST", MAPS, &[("content-type", "application/json")], deep).await.0, 400);
    assert_eq!(cluster.raw("POST", MAPS, &[], vec![b' '; 4 << 20]).await.0, 413);
    for path in [
        "/api/v1/namespaces/%2e%2e/pods?limit=-5",
        "/apis///",
        "/api/v1/pods?fieldSelector=%00",
        "/%ff?%ff=%",
    ] {
        assert!(cluster.get(path).await.0 < 500, "{path}");
    }
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_objects_are_no_burden() {
    let cluster = Arc::new(Cluster::start().await);
    let start = Instant::now();
    let writers = (0..8).map(|writer| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for n in 0..250 {
                let name = format!("m{writer}-{n}");
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
                let path = format!("{MAPS}/{name}?fieldManager=w");
                assert_eq!(cluster.send("PATCH", &path, APPLY, body).await.0, 201);
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|r| r.unwrap());
    let took = start.elapsed();
    println!("2000 applies in {took:?}");
    let (_, list) = cluster.get(MAPS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2000);
    // Unoptimised, on a machine that does other things too.
    assert!(took < Duration::from_secs(60), "{took:?}");
}
