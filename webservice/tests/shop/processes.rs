//! The `shop` program itself: several at once on one database, signals, the health check.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::support::postgres::Postgres;
use crate::support::{ShopClient, eventually};
use http::StatusCode;
use serde_json::json;

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
        Self::start_as("api", settings)
    }

    fn start_as(role: &str, settings: &[(&str, &str)]) -> Self {
        // Ports are given out in turn, so the one just freed is not given out again soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(SHOP)
            .arg(role)
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

#[tokio::test]
async fn the_fault_switch_ends_the_process_after_its_requests() {
    let mut shop = Process::start(&[("FAULT_CRASH_AFTER_REQUESTS", "3")]);
    shop.ready().await;
    for _ in 0..2 {
        assert_eq!(shop.client.get("/api/products").await.status, StatusCode::OK);
    }
    assert!(shop.client.send(http::Method::GET, "/api/products", &[], "").await.is_err());
    let child = std::cell::RefCell::new(&mut shop.child);
    let status = eventually("the shop ends", || async { child.borrow_mut().try_wait().unwrap() }).await;
    assert_eq!(status.code(), None, "ended by a signal: {status}");
}

#[tokio::test]
async fn the_fault_switch_leaks_up_to_its_cap() {
    const MIB: f64 = 1024.0 * 1024.0;
    let (rate, most) = ((400.0 * MIB).to_string(), (80.0 * MIB).to_string());
    let settings = [("FAULT_LEAK_BYTES_PER_SECOND", rate.as_str()), ("FAULT_LEAK_MAX_BYTES", most.as_str())];
    let mut shop = Process::start(&settings);
    shop.ready().await;
    eventually("the memory is gone", || async {
        (shop.client.metric("process_resident_memory_bytes").await >= 80.0 * MIB).then_some(())
    })
    .await;
    assert!(shop.client.metric("process_resident_memory_bytes").await < 200.0 * MIB);
    assert_eq!(shop.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn both_roles_run_side_by_side_and_a_token_opens_the_dashboard() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "k QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\n").unwrap();
    let keys = keys.to_str().unwrap();
    let mut api = Process::start(&[("ADMIN_KEYS_FILE", keys)]);
    let url = format!("http://127.0.0.1:{}", api.port);
    let mut web = Process::start_as("web", &[("API_URL", &url)]);
    web.ready().await;
    let token = Command::new(SHOP)
        .args(["token", "farida"])
        .env_clear()
        .env("ADMIN_KEYS_FILE", keys)
        .output()
        .unwrap();
    let token = format!("Bearer {}", String::from_utf8(token.stdout).unwrap().trim());
    let headers = [("authorization", token.as_str())];
    let summary = web.client.send(http::Method::GET, "/api/admin/summary", &headers, "").await.unwrap();
    assert_eq!(summary.json()["administrator"], "farida");
    let check =
        Command::new(SHOP).arg("healthcheck").env_clear().env("PORT", web.port.to_string()).output().unwrap();
    assert!(check.status.success());
    assert_eq!((web.terminate().await.code(), api.terminate().await.code()), (Some(0), Some(0)));
}
