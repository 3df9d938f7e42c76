//! The frontend: pages of its own, everything else from the backend, and what happens when that is not well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{ShopClient, config, eventually, start};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use webservice::{Database, Running, WebConfig};

async fn frontend(backend: SocketAddr) -> (Running, ShopClient) {
    let config = WebConfig {
        bind_address: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 0,
        version: "v2.0.0".to_owned(),
        drain: Duration::from_millis(200),
        request_timeout: Duration::from_secs(1),
        ..WebConfig::new(format!("http://{backend}").parse().unwrap())
    };
    let web = webservice::start_web(config).await.unwrap();
    let client = ShopClient::new(web.address());
    (web, client)
}

async fn ready(client: &ShopClient) {
    eventually("the frontend is ready", || async {
        (client.get("/ready").await.status == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pages_are_served_and_the_api_is_handed_on() {
    let (shop, backend) = start(config(Database::Memory)).await;
    let (web, client) = frontend(shop.address()).await;
    ready(&client).await;
    assert_eq!(client.get("/health").await.json(), json!({ "status": "ok", "version": "v2.0.0" }));
    for (path, version) in
        [("/", "v2.0.0"), ("/dashboard", "v2.0.0"), ("/api/products", "v1.2.3"), ("/api/x", "v1.2.3")]
    {
        assert_eq!(client.get(path).await.header("x-dhakacart-version"), version, "{path}");
    }
    for path in ["/assets/nothing.js", "/nothing", "/assets/../x", "/api/x"] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let posted = client.send(Method::POST, "/", &[], "").await.unwrap();
    assert_eq!((posted.status, posted.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    let head = client.send(Method::HEAD, "/api/products", &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));

    // Cookies, identifiers, bodies, entity tags and compression go through.
    let wish = json!({ "items": [{ "productId": 1, "quantity": 1 }] });
    let placed = client.order(wish, &[("x-request-id", "the-request-id-1")]).await;
    assert_eq!((placed.status, placed.header("x-request-id")), (StatusCode::CREATED, "the-request-id-1"));
    let cookie = [("cookie", placed.cookie())];
    let own = client.send(Method::GET, placed.header("location"), &cookie, "").await.unwrap();
    assert_eq!(own.json(), placed.json());
    let tag = client.get("/api/products").await.header("etag").to_owned();
    let again = client.send(Method::GET, "/api/products", &[("if-none-match", &tag)], "").await.unwrap();
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    let small = client.send(Method::GET, "/api/products", &[("accept-encoding", "gzip")], "").await.unwrap();
    assert_eq!(small.header("content-encoding"), "gzip");

    // Many requests, few connections.
    assert!(backend.metric("dhakacart_http_connections").await <= 4.0);
    assert!(
        client.metric(r#"http_requests_total{method="GET",route="/api/products",code="200"}"#).await >= 2.0
    );
    web.drain();
    assert_eq!(client.get("/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    web.stopped().await;
}

#[tokio::test]
async fn a_frontend_waits_for_its_backend_once_and_outlives_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_web, client) = frontend(nobody).await;
    let waiting = client.get("/ready").await;
    assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(waiting.text().contains("backend"));
    let order = json!({ "items": [{ "productId": 1, "quantity": 1 }] });
    let refused = client.order(order, &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    assert_eq!(refused.json()["type"], "urn:dhakacart:problem:bad-gateway");
    assert_eq!(client.metric(r#"dhakacart_upstream_failures_total{reason="connect"}"#).await, 1.0);

    let (shop, _) = start(webservice::Config { port: nobody.port(), ..config(Database::Memory) }).await;
    ready(&client).await;
    shop.drain();
    shop.stopped().await;
    assert_eq!(client.get("/api/products").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(client.get("/ready").await.status, StatusCode::OK, "pages are still to be had");
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

/// A backend that answers its health and then does `what` with requests: `hang`, or `cut` the connection.
async fn unwell(what: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                loop {
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    if buffer.starts_with(b"GET /health ") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                        continue;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    if what == "cut" {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_backend_that_hangs_is_not_waited_for_for_ever() {
    let (address, requests) = unwell("hang").await;
    let (_web, client) = frontend(address).await;
    ready(&client).await;
    let answer = client.get("/api/products").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_what_changes_nothing_is_sent_twice() {
    let (address, requests) = unwell("cut").await;
    let (_web, client) = frontend(address).await;
    ready(&client).await;
    for (method, times) in
        [(Method::POST, 1), (Method::PATCH, 1), (Method::PUT, 1), (Method::DELETE, 1), (Method::GET, 2)]
    {
        let before = requests.load(Ordering::SeqCst);
        let path = if method == Method::POST { "/api/orders" } else { "/api/products/1" };
        let path = if method == Method::PATCH { "/api/orders/DC-260101-0123456789" } else { path };
        let answer = client.json(method.clone(), path, &[], &json!({})).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{method}");
        assert_eq!(requests.load(Ordering::SeqCst) - before, times, "{method}");
    }
}
