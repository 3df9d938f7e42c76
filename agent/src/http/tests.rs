//! The server over a real socket.

use std::sync::Mutex;

use ring::hmac;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "hunter2";

struct Running {
    base: String,
    client: reqwest::Client,
    hooks: Arc<Mutex<Vec<HookEvent>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn start(ready: bool, secret: Option<&str>) -> Running {
    crate::tls::install();
    let hooks: Arc<Mutex<Vec<HookEvent>>> = Arc::default();
    let log = Arc::clone(&hooks);
    let deps = Deps {
        ready: Box::new(move || ready),
        telemetry: Telemetry::new(),
        hook_secret: secret.map(|secret| Secret::new(secret.to_owned())),
        on_hook: Box::new(move |event| {
            log.lock().unwrap().push(event);
            3
        }),
        board: Box::new(|| vec![view()]),
    };
    let (stop, stopped) = watch::channel(false);
    let serving = serve("127.0.0.1:0".parse().unwrap(), deps, stopped).await.unwrap();
    Running {
        base: format!("http://{}", serving.address),
        client: reqwest::Client::new(),
        hooks,
        stop,
        task: serving.task,
    }
}

fn view() -> EnvironmentView {
    EnvironmentView {
        key: "holdfast-system/dev".into(),
        phase: "Settled".into(),
        ready: "True".into(),
        revision: Some("main@1a2b3c4d5e6f".into()),
        subject: Some("<script>alert(1)</script> & 'more'".into()),
        message: "all is well".into(),
        transitions: vec![TransitionView {
            at: jiff::Timestamp::UNIX_EPOCH,
            reason: "Settled".into(),
            to: "Settled".into(),
            message: "4 of 4 objects are ready".into(),
        }],
        gates: vec![GateView { name: "errors".into(), verdict: "passed".into(), passed: 5, failed: 0 }],
        ..EnvironmentView::default()
    }
}

impl Running {
    async fn get(&self, path: &str) -> (u16, String, HeaderMap) {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, answer.text().await.unwrap(), headers)
    }

    async fn hook(&self, provider: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let mut request = self.client.post(format!("{}/hooks/{provider}", self.base)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    }
}

fn signature(body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn probes_metrics_and_pages_answer() {
    let server = start(true, None).await;
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 200);
    let (status, metrics, headers) = server.get("/metrics").await;
    assert!(status == 200 && metrics.contains("holdfast_build_info"), "{metrics}");
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let (status, body, _) = server.get("/api/environments").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body[0]["key"], &body[0]["ready"]),
        (200, &json!("holdfast-system/dev"), &json!("True"))
    );
    let (status, page, headers) = server.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("holdfast-system/dev") && page.contains("4 of 4 objects are ready"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;more&#39;"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert_eq!(server.get("/elsewhere").await.0, 404);
    assert_eq!(server.client.post(format!("{}/metrics", server.base)).send().await.unwrap().status(), 405);
    assert_eq!(start(false, None).await.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn genuine_webhooks_are_understood() {
    let server = start(true, Some(SECRET)).await;
    let body = json!({
        "ref": "refs/heads/main",
        "repository": {"clone_url": "https://forge/acme/shop.git", "ssh_url": "git@forge:acme/shop.git"},
    })
    .to_string();
    let forge = HookEvent {
        repositories: vec!["https://forge/acme/shop.git".into(), "git@forge:acme/shop.git".into()],
        branch: Some("main".into()),
    };
    let sha = format!("sha256={}", signature(&body));
    let status =
        server.hook("github", &[("x-hub-signature-256", &sha), ("x-github-event", "push")], &body).await;
    assert_eq!(status, 202);
    let gitea = [("x-gitea-signature", &*signature(&body)), ("x-gitea-event", "push")];
    assert_eq!(server.hook("gitea", &gitea, &body).await, 202);
    assert_eq!(*server.hooks.lock().unwrap(), [forge.clone(), forge]);
    let body = json!({"ref": "refs/tags/v1", "project": {"git_http_url": "https://lab/a.git"}}).to_string();
    let gitlab = [("x-gitlab-token", SECRET), ("x-gitlab-event", "Tag Push Hook")];
    assert_eq!(server.hook("gitlab", &gitlab, &body).await, 202);
    let expected = HookEvent { repositories: vec!["https://lab/a.git".into()], branch: Some("v1".into()) };
    assert_eq!(server.hooks.lock().unwrap().pop(), Some(expected));
    let sha = format!("sha256={}", signature(""));
    assert_eq!(server.hook("generic", &[("x-signature", &sha)], "").await, 202);
    let expected = HookEvent { repositories: vec![], branch: None };
    assert_eq!(server.hooks.lock().unwrap().pop(), Some(expected));
    let (_, metrics, _) = server.get("/metrics").await;
    assert!(
        metrics.contains(r#"holdfast_webhooks_total{provider="gitlab",result="accepted"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn everything_else_is_refused() {
    let server = start(true, Some(SECRET)).await;
    let body = r#"{"repository":{"clone_url":"https://forge/a.git"}}"#;
    let sha = format!("sha256={}", signature(body));
    let wrong = format!("sha256={}", signature("other"));
    for (provider, headers, body, status) in [
        ("github", vec![], body, 401),
        ("github", vec![("x-hub-signature-256", wrong.as_str())], body, 401),
        ("github", vec![("x-hub-signature-256", "sha256=zz")], body, 401),
        ("github", vec![("x-hub-signature-256", "sha256=")], body, 401),
        ("gitea", vec![("x-gitea-signature", sha.as_str())], body, 401),
        ("gitlab", vec![("x-gitlab-token", "hunter3")], body, 401),
        ("gitlab", vec![], body, 401),
        ("generic", vec![("x-hub-signature-256", sha.as_str())], body, 401),
        ("bitbucket", vec![], body, 404),
        // Genuine, but nothing that concerns a source, or nothing that can be read.
        ("github", vec![("x-hub-signature-256", sha.as_str()), ("x-github-event", "ping")], body, 200),
        ("gitlab", vec![("x-gitlab-token", SECRET), ("x-gitlab-event", "Push Hook")], "not json", 400),
        ("gitlab", vec![("x-gitlab-token", SECRET), ("x-gitlab-event", "Push Hook")], "{}", 400),
    ] {
        assert_eq!(server.hook(provider, &headers, body).await, status, "{provider} {headers:?}");
    }
    let large = "x".repeat(MAX_HOOK + 1);
    assert_eq!(server.hook("generic", &[], &large).await, 413);
    assert_eq!(*server.hooks.lock().unwrap(), []);
    // Without a secret, or with an empty one, nothing is genuine.
    assert_eq!(start(true, None).await.hook("gitlab", &[("x-gitlab-token", "")], body).await, 404);
    assert_eq!(start(true, Some("")).await.hook("gitlab", &[("x-gitlab-token", "")], body).await, 401);
}

#[tokio::test]
async fn the_server_ends_when_told() {
    let server = start(true, None).await;
    assert_eq!(server.get("/livez").await.0, 200);
    drop(server.client);
    server.stop.send(true).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(30), server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_in_use_says_so() {
    let server = start(true, None).await;
    let address: SocketAddr = server.base.trim_start_matches("http://").parse().unwrap();
    let deps = Deps {
        ready: Box::new(|| true),
        telemetry: Telemetry::new(),
        hook_secret: None,
        on_hook: Box::new(|_| 0),
        board: Box::new(Vec::new),
    };
    let error = serve(address, deps, server.stop.subscribe()).await.unwrap_err().to_string();
    assert!(error.contains("choose another address with --http"), "{error}");
}
