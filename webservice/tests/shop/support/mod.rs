//! What the shop's tests share: a small HTTP client, databases, processes.

pub mod contract;
pub mod postgres;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use webservice::{Config, Database, Running};

/// Long enough for a busy machine; reached only by failing tests.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An answer that has fully arrived.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The session's cookie, as it is sent back.
    pub fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Talks to one shop over real connections, which are kept alive.
#[derive(Clone)]
pub struct ShopClient {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl ShopClient {
    pub fn new(address: SocketAddr) -> Self {
        // A retry would hide a connection that the shop closed under a request.
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        Self { address, client }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let checked = method.clone();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        if path.starts_with("/api/") {
            contract::check(&checked, path, &answer);
        }
        Ok(answer)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.unwrap()
    }

    /// Sends JSON.
    pub async fn json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send(method, path, &all, body.to_string()).await.unwrap()
    }

    pub async fn order(&self, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.json(Method::POST, "/api/orders", headers, &body).await
    }

    /// The value of one series, written exactly as in the metrics.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no {series} in\n{text}"))
    }
}

/// Keys of administrators' tokens, and a token that the first of them signed.
pub struct Administrator {
    directory: tempfile::TempDir,
    pub token: String,
}

impl Administrator {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut administrator = Self { directory, token: String::new() };
        administrator.rotate("first QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\n");
        administrator
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("keys")
    }

    /// Replaces the keys as a Secret's mount does, and signs a new token.
    pub fn rotate(&mut self, keys: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, keys).unwrap();
        std::fs::rename(new, self.path()).unwrap();
        let keys = webservice::Keys::open(&self.path()).unwrap().current();
        let token = webservice::sign_token(&keys[0], "farida", jiff::Timestamp::now(), 600);
        self.token = format!("Bearer {token}");
    }
}

/// Settings for tests: a free port of the loopback address, a short drain.
pub fn config(database: Database) -> Config {
    Config {
        bind_address: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 0,
        database,
        version: "v1.2.3".to_owned(),
        drain: Duration::from_millis(400),
        ..Config::default()
    }
}

pub async fn start(config: Config) -> (Running, ShopClient) {
    let shop = webservice::start(config).await.unwrap();
    let client = ShopClient::new(shop.address());
    (shop, client)
}

/// Tries until `check` gives something, and fails after the deadline.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
