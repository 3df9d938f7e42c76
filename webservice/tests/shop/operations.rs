//! Metrics, the fault switch, readiness and the drain.

use std::time::{Duration, Instant};

use crate::support::postgres::Postgres;
use crate::support::{ShopClient, config, eventually, start};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use webservice::{Database, Faults};

#[tokio::test]
async fn metrics_count_by_template_and_outcome() {
    let (_shop, client) = start(config(Database::Memory)).await;
    for id in [1, 2, 99_999] {
        client.get(&format!("/api/products/{id}")).await;
    }
    for path in ["/a", "/b/c", "/health", "/ready"] {
        client.get(path).await;
    }
    client.send("BREW".parse().unwrap(), "/api/products", &[], "").await.unwrap();
    client.order(json!({ "items": [{ "productId": 5, "quantity": 4 }] }), &[]).await;
    client.order(json!({ "items": [{ "productId": 1, "quantity": 100 }] }), &[]).await;

    for (series, value) in [
        (r#"http_requests_total{method="GET",route="/api/products/{id}",code="200"}"#, 2.0),
        (r#"http_requests_total{method="GET",route="/api/products/{id}",code="404"}"#, 1.0),
        (r#"http_requests_total{method="GET",route="unmatched",code="404"}"#, 2.0),
        (r#"http_requests_total{method="OTHER",route="/api/products",code="405"}"#, 1.0),
        (r#"http_requests_total{method="POST",route="/api/orders",code="201"}"#, 1.0),
        (r#"http_request_duration_seconds_count{method="POST",route="/api/orders",code="201"}"#, 1.0),
        (
            r#"http_request_duration_seconds_bucket{method="POST",route="/api/orders",code="201",le="+Inf"}"#,
            1.0,
        ),
        (r#"dhakacart_probe_requests_total{method="GET",route="/health",code="200"}"#, 1.0),
        (r#"dhakacart_orders_total{outcome="placed"}"#, 1.0),
        (r#"dhakacart_orders_total{outcome="out_of_stock"}"#, 1.0),
        ("dhakacart_items_sold_total", 4.0),
        (r#"dhakacart_revenue_minor_total{currency="BDT"}"#, 192_000.0),
        (r#"dhakacart_build_info{version="v1.2.3"}"#, 1.0),
        ("dhakacart_draining", 0.0),
    ] {
        assert_eq!(client.metric(series).await, value, "{series}");
    }
    let text = client.get("/metrics").await.text();
    assert!(!text.contains("/b/c") && !text.contains("BREW"), "clients must not make series");
    assert!(!text.contains(r#"http_requests_total{method="GET",route="/health""#));
}

#[tokio::test]
async fn the_fault_switch_fails_its_share_of_api_requests_only() {
    let faults = Faults { error_percent: 30.0, latency: Duration::from_millis(20), ..Faults::default() };
    let (_shop, client) = start(webservice::Config { faults, ..config(Database::Memory) }).await;
    let mut failed = 0;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = client.get("/api/categories").await;
        assert!(began.elapsed() >= Duration::from_millis(20));
        failed += usize::from(answer.status == StatusCode::INTERNAL_SERVER_ERROR);
        for path in ["/health", "/ready", "/metrics", "/"] {
            assert_eq!(client.get(path).await.status, StatusCode::OK, "{path}");
        }
    }
    assert_eq!(failed, 6);
    let series = r#"http_requests_total{method="GET",route="/api/categories",code="500"}"#;
    assert_eq!(client.metric(series).await, 6.0);
    assert_eq!(client.metric("dhakacart_faults_injected_total").await, 6.0);
}

#[tokio::test]
async fn a_slow_request_is_cut_off() {
    let faults = Faults { error_percent: 0.0, latency: Duration::from_secs(60), ..Faults::default() };
    let request_timeout = Duration::from_millis(100);
    let config = webservice::Config { faults, request_timeout, ..config(Database::Memory) };
    let (shop, client) = start(config).await;
    let answer = client.get("/api/products").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));

    // A body that never comes.
    let mut stream = TcpStream::connect(shop.address()).await.unwrap();
    let head = "POST /api/orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn draining_answers_everything_that_still_comes() {
    let faults = Faults { error_percent: 0.0, latency: Duration::from_millis(600), ..Faults::default() };
    let drain = Duration::from_millis(400);
    let (shop, client) = start(webservice::Config { faults, drain, ..config(Database::Memory) }).await;
    let address = shop.address();
    let get = "GET /health HTTP/1.1\r\nHost: shop\r\n\r\n";

    // A kept-alive connection, idle when the drain begins.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(get.as_bytes()).await.unwrap();
    assert!(head(&mut idle).await.starts_with("HTTP/1.1 200 "));

    // A request in flight that takes longer than the drain.
    let slow = tokio::spawn({
        let client = ShopClient::new(address);
        async move { client.get("/api/categories").await }
    });
    eventually("the slow request is in flight", || async {
        (client.metric("dhakacart_http_requests_in_flight").await >= 2.0).then_some(())
    })
    .await;

    shop.drain();
    let ready = client.get("/ready").await;
    assert_eq!((ready.status, ready.header("connection")), (StatusCode::SERVICE_UNAVAILABLE, "close"));
    assert_eq!(client.get("/health").await.status, StatusCode::OK);

    // The idle connection is served once more and told to go.
    idle.write_all(get.as_bytes()).await.unwrap();
    let answer = head(&mut idle).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");

    // New connections too.
    let newcomer = ShopClient::new(address).get("/health").await;
    assert_eq!((newcomer.status, newcomer.header("connection")), (StatusCode::OK, "close"));

    shop.stopped().await;
    let answer = slow.await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (StatusCode::OK, "close"));
    assert!(TcpStream::connect(address).await.is_err(), "the listener is still open");
}

#[tokio::test]
async fn an_idle_shop_drains_early_and_idle_connections_do_not_hold_it() {
    let drain = Duration::from_secs(6);
    let (shop, _) = start(webservice::Config { drain, ..config(Database::Memory) }).await;
    let began = Instant::now();
    shop.drain();
    shop.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(5), "an unused shop waits for half the drain time");

    let drain = Duration::from_millis(100);
    let (shop, _) = start(webservice::Config { drain, ..config(Database::Memory) }).await;
    let mut silent = TcpStream::connect(shop.address()).await.unwrap();
    shop.drain();
    shop.stopped().await;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
}

/// A load that never stops while shops come and go loses nothing, as in a rollout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_shops_replace_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = Database::SqliteFile(directory.path().join("shop.db"));
    let (first, _) = start(config(file.clone())).await;
    // What a load balancer knows: an address, changed as soon as the old shop is told to go.
    let (endpoint, mut known) = tokio::sync::watch::channel(first.address());
    let load = (0..8).map(|worker| {
        let known = known.clone();
        tokio::spawn(async move {
            let mut clients = std::collections::BTreeMap::new();
            let mut served = 0_u32;
            loop {
                let address = *known.borrow();
                if known.has_changed().is_err() {
                    return served;
                }
                let client = clients.entry(address).or_insert_with(|| ShopClient::new(address));
                let path = if worker % 2 == 0 { "/api/products?limit=1" } else { "/" };
                let answer = client.send(Method::GET, path, &[], "").await.expect("a request failed");
                assert_eq!(answer.status, StatusCode::OK);
                served += 1;
            }
        })
    });
    let load: Vec<_> = load.collect();
    known.mark_unchanged();
    let mut current = first;
    for _ in 0..3 {
        let (next, client) = start(config(file.clone())).await;
        eventually("the next shop has served", || async {
            (client.get("/ready").await.status == StatusCode::OK).then_some(())
        })
        .await;
        current.drain();
        endpoint.send_replace(next.address());
        std::mem::replace(&mut current, next).stopped().await;
    }
    drop(endpoint);
    let mut served = 0;
    for worker in load {
        served += worker.await.unwrap();
    }
    assert!(served > 50, "the load was only {served} requests");
    current.drain();
    current.stopped().await;
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let mut postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    let database = postgres.database("readiness").await;
    let (shop, client) = start(config(database)).await;
    assert_eq!(client.get("/ready").await.status, StatusCode::OK);
    postgres.stop();
    let reason = eventually("the shop notices that the database is gone", || async {
        let answer = client.get("/ready").await;
        (answer.status == StatusCode::SERVICE_UNAVAILABLE).then(|| answer.text())
    })
    .await;
    assert!(reason.contains("the database"), "{reason}");
    let refused = client.get("/api/products").await;
    assert!(refused.status.is_server_error());
    assert!(!refused.text().to_lowercase().contains("postgres"), "{}", refused.text());
    assert_eq!(client.get("/health").await.status, StatusCode::OK, "liveness is not the database's");
    postgres.restart().await;
    eventually("the shop is ready again", || async {
        (client.get("/ready").await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(client.get("/api/products").await.status, StatusCode::OK);
    shop.drain();
    shop.stopped().await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for() {
    let mut postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    let database = postgres.database("later").await;
    postgres.stop();
    let (_shop, client) = start(config(database)).await;
    assert_eq!(client.get("/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/api/products").await.status, StatusCode::SERVICE_UNAVAILABLE);
    postgres.restart().await;
    eventually("the shop becomes ready", || async {
        (client.get("/ready").await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(client.get("/api/products").await.status, StatusCode::OK);
}

/// Reads one answer's head from a kept-alive connection, and its short body.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|w| w == b"\r\n\r\n") || !text.ends_with(b"}") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(text).unwrap()
}
