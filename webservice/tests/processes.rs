//! The `shop` program itself: several at once on one database, signals, the health check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use http::StatusCode;
use serde_json::json;
use support::postgres::Postgres;
use support::{ShopClient, eventually};

const SHOP: &str = env!("CARGO_BIN_EXE_shop");

/// A shop process that cannot outlive its test.
struct Process {
    child: Child,
    client: ShopClient,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(settings: &[(&str, &str)]) -> Self {
        // Ports are given out in turn, so the one just freed is not given out again soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(SHOP)
            .env_clear()
            .env("BIND_ADDRESS", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("DRAIN_SECONDS", "0.2")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let client = ShopClient::new(([127, 0, 0, 1], port).into());
        Self { child, client, port }
    }

    async fn ready(&self) {
        eventually("the shop is ready", || async {
            let answer = self.client.send(http::Method::GET, "/ready", &[], "").await;
            answer.ok().filter(|answer| answer.status == StatusCode::OK).map(drop)
        })
        .await;
    }

    async fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the shop ends", || async { child.borrow_mut().try_wait().unwrap() }).await
    }
}

/// Starts several shops at the same moment on one database and buys through all of them.
async fn share(settings: &[(&str, &str)]) {
    let mut shops: Vec<Process> = (0..4).map(|_| Process::start(settings)).collect();
    for shop in &shops {
        shop.ready().await;
    }
    for shop in &shops {
        let page = shop.client.get("/api/products?limit=100").await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), 28, "the catalogue is there exactly once");
    }
    let before = shops[0].client.get("/api/products/2").await.json()["stock"].as_i64().unwrap();
    let buyers = (0..60).map(|index| {
        let client = shops[index % shops.len()].client.clone();
        tokio::spawn(async move {
            let answer = client.order(json!({ "items": [{ "productId": 2, "quantity": 1 }] }), &[]).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
            answer.json()["number"].as_str().unwrap().to_owned()
        })
    });
    let mut numbers = BTreeSet::new();
    for buyer in buyers.collect::<Vec<_>>() {
        numbers.insert(buyer.await.unwrap());
    }
    assert_eq!(numbers.len(), 60);
    let after = shops[3].client.get("/api/products/2").await.json()["stock"].as_i64().unwrap();
    assert_eq!(after, before - 60);
    for shop in &mut shops {
        assert_eq!(shop.terminate().await.code(), Some(0));
    }
}

#[tokio::test]
async fn shops_that_start_together_share_one_sqlite_file() {
    let directory = tempfile::tempdir().unwrap();
    let data: &str = directory.path().to_str().unwrap();
    share(&[("DATA_DIR", data)]).await;
    // A shop that was killed in the middle leaves a usable file and no lock behind.
    let mut killed = Process::start(&[("DATA_DIR", data)]);
    killed.child.kill().unwrap();
    Process::start(&[("DATA_DIR", data)]).ready().await;
    assert!(Path::new(data).join("dhakacart.db").is_file());
}

#[tokio::test]
async fn shops_that_start_together_share_one_postgresql_database() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    postgres.database("shared").await;
    share(&[("DATABASE_URL", &postgres.url("shared"))]).await;
}

#[tokio::test]
async fn the_health_check_says_what_the_shop_says() {
    let mut shop = Process::start(&[("SHOP_VERSION", "v9")]);
    shop.ready().await;
    let check = |port: u16| {
        Command::new(SHOP).arg("healthcheck").env_clear().env("PORT", port.to_string()).output().unwrap()
    };
    assert!(check(shop.port).status.success());
    shop.terminate().await;
    let failed = check(shop.port);
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("does not answer"));
}

#[test]
fn unusable_settings_end_the_program_with_a_sentence() {
    let output = Command::new(SHOP).env_clear().env("PORT", "many").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("PORT cannot be used: it must be 0 to 65535"));
}
