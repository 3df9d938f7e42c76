//! What many objects cost: `cargo bench -p apiserver [-- OBJECTS]` prints a table.
//!
//! A bare client on as many connections as the machine has cores (at least 4) applies ConfigMaps, changes them, applies
//! them again unchanged, lists and watches them all. Client and server share the machine.

// A benchmark that meets something unexpected stops there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apiserver::{Config, Server};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Http = Client<HttpConnector, Full<Bytes>>;

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    let kibibytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    kibibytes * 1024
}

fn body(n: usize, round: usize) -> Bytes {
    let data: serde_json::Map<String, Value> =
        (0..8).map(|k| (format!("key-{k}"), format!("value {k} of {n}, round {round}").into())).collect();
    let labels = json!({"app.kubernetes.io/name": "bench", "shard": (n % 16).to_string()});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n:05}"), "labels": labels},
        "data": data})
    .to_string()
    .into()
}

async fn send(client: &Http, method: &str, uri: String, body: Bytes) -> (u16, Bytes) {
    let request = http::Request::builder().method(method).uri(uri);
    let request =
        request.header("content-type", "application/apply-patch+yaml").body(Full::new(body)).unwrap();
    let response = client.request(request).await.unwrap();
    let code = response.status().as_u16();
    (code, response.into_body().collect().await.unwrap().to_bytes())
}

/// Applies all objects from several tasks at once.
async fn apply(client: &Http, url: &str, count: usize, round: usize, code: u16) -> Duration {
    let next = Arc::new(AtomicUsize::new(0));
    let cores = std::thread::available_parallelism().map_or(4, usize::from);
    let start = Instant::now();
    let writers = (0..cores.max(4)).map(|_| {
        let (client, url, next) = (client.clone(), url.to_owned(), next.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                let uri = format!("{url}{MAPS}/m{n:05}?fieldManager=bench&force=true");
                assert_eq!(send(&client, "PATCH", uri, body(n, round)).await.0, code);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    start.elapsed()
}

/// Reads a watch until it has told of all objects; bytes read.
async fn watch(client: &Http, url: &str, count: usize) -> usize {
    let request = http::Request::get(format!("{url}{MAPS}?watch=1")).body(Full::default()).unwrap();
    let mut stream = client.request(request).await.unwrap().into_body();
    let (mut events, mut bytes) = (0, 0);
    while events < count {
        let data = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        events += data.iter().filter(|b| **b == b'\n').count();
        bytes += data.len();
    }
    bytes
}

fn row(what: &str, took: Duration, count: usize, note: &str) {
    let rate = count as f64 / took.as_secs_f64();
    println!("| {what:<34} | {:>9.1} ms | {rate:>10.0} objects/s | {note:<28} |", took.as_secs_f64() * 1e3);
}

#[tokio::main]
async fn main() {
    // Cargo passes `--bench`.
    let count = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(10_000usize);
    let server = Server::start(Config::default()).await.unwrap();
    let url = server.url();
    let client: Http = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let before = resident();
    let created = apply(&client, &url, count, 0, 201).await;
    let per_object = resident().saturating_sub(before) / count as u64;
    println!(
        "| {count} ConfigMaps                                                                                    |"
    );
    row("apply, creating", created, count, &format!("{per_object} bytes resident each"));
    let changed = apply(&client, &url, count, 1, 200).await;
    row("apply, changing", changed, count, "");
    let same = apply(&client, &url, count, 1, 200).await;
    row("apply, changing nothing", same, count, "");

    let start = Instant::now();
    let (code, list) = send(&client, "GET", format!("{url}{MAPS}"), Bytes::new()).await;
    let took = start.elapsed();
    assert_eq!(code, 200);
    row("list", took, count, &format!("{} bytes", list.len()));

    let start = Instant::now();
    let (mut token, mut pages, mut found) = (String::new(), 0, 0);
    loop {
        let uri = format!("{url}{MAPS}?limit=500&continue={token}");
        let page: Value = serde_json::from_slice(&send(&client, "GET", uri, Bytes::new()).await.1).unwrap();
        found += page["items"].as_array().unwrap().len();
        pages += 1;
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
        // A write in between makes the pages that follow earlier than the state.
        apply(&client, &url, 1, 2 + pages, 200).await;
    }
    assert_eq!(found, count);
    row(
        "list in pages of 500, with writes",
        start.elapsed(),
        count,
        &format!("{pages} pages, parsed by the client"),
    );

    let start = Instant::now();
    let selected = format!("{url}{MAPS}?labelSelector=shard%3D3");
    let (_, list) = send(&client, "GET", selected, Bytes::new()).await;
    row("list by label, 1 of 16", start.elapsed(), count, &format!("{} bytes", list.len()));

    let start = Instant::now();
    let bytes = watch(&client, &url, count).await;
    row("watch from the start", start.elapsed(), count, &format!("{bytes} bytes"));

    let start = Instant::now();
    let watchers = (0..10).map(|_| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move { watch(&client, &url, count).await })
    });
    for watcher in watchers.collect::<Vec<_>>() {
        watcher.await.unwrap();
    }
    row("10 watches at once", start.elapsed(), count * 10, "");
    println!("resident at the end: {} MiB (client and server)", resident() >> 20);
    server.shutdown().await;
}
