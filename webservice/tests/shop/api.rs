//! The shop's API over real sockets, on each database.

use std::collections::BTreeSet;

use crate::support::postgres::Postgres;
use crate::support::{ShopClient, config, contract, start};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;
use webservice::{Database, ENDPOINTS, Kind};

#[tokio::test]
async fn the_api_works_on_sqlite_in_memory() {
    suite(Database::Memory).await;
}

#[tokio::test]
async fn the_api_works_on_a_sqlite_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = Database::SqliteFile(directory.path().join("deeper/shop.db"));
    suite(file.clone()).await;
    // What was sold stays sold after a restart, and the catalogue is not filled in again.
    let (shop, client) = start(config(file)).await;
    assert!(stock(&client, 1).await < 40);
    let all = client.get("/api/products?limit=100").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 28);
    close(shop).await;
}

#[tokio::test]
async fn the_api_works_on_postgresql() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    suite(postgres.database("api").await).await;
    // The architecture's schema: money is DECIMAL(10,2).
    let mut connection = postgres.connect("api").await;
    let (price, kind): (String, String) =
        sqlx::query_as("SELECT price::text, pg_typeof(price)::text FROM products WHERE id = 1")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((price.as_str(), kind.as_str()), ("12500.00", "numeric"));
}

#[tokio::test]
async fn after_a_rollback_an_older_shop_starts_on_a_newer_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let (shop, _) = start(config(Database::SqliteFile(path.clone()))).await;
    close(shop).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut newer = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE products ADD COLUMN weight_grams INTEGER;
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'weights', TRUE, x'00', 0);",
    )
    .execute(&mut newer)
    .await
    .unwrap();
    newer.close().await.unwrap();
    let (shop, client) = start(config(Database::SqliteFile(path))).await;
    let wish = json!({ "items": [{ "productId": 1, "quantity": 1 }] });
    assert_eq!(client.order(wish, &[]).await.status, StatusCode::CREATED);
    close(shop).await;
}

/// Everything that must hold whatever the database.
async fn suite(database: Database) {
    let (shop, client) = start(config(database)).await;
    probes_and_headers(&client).await;
    catalogue(&client).await;
    bad_requests(&client).await;
    ordering(&client).await;
    idempotency(&client).await;
    own_orders(&client).await;
    overselling(&client).await;
    every_endpoint_is_routed(&client).await;
    close(shop).await;
}

async fn close(shop: webservice::Running) {
    shop.drain();
    shop.stopped().await;
}

async fn stock(client: &ShopClient, id: i64) -> i64 {
    client.get(&format!("/api/products/{id}")).await.json()["stock"].as_i64().unwrap()
}

async fn probes_and_headers(client: &ShopClient) {
    let health = client.get("/health").await;
    assert_eq!(health.json(), json!({ "status": "ok", "version": "v1.2.3" }));
    assert_eq!(health.header("x-dhakacart-version"), "v1.2.3");
    assert_eq!(client.get("/ready").await.status, StatusCode::OK);

    let page = client.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    for file in ["/assets/shop.js", "/assets/common.js", "/assets/shop.css"] {
        assert!(page.text().contains(file));
        assert_eq!(client.get(file).await.status, StatusCode::OK);
    }
    let head = client.send(Method::HEAD, "/api/products", &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));

    let id = [("x-request-id", "from-the-proxy-1")];
    let echoed = client.send(Method::GET, "/health", &id, "").await.unwrap();
    assert_eq!(echoed.header("x-request-id"), "from-the-proxy-1");
    let forged = [("x-request-id", "no spaces allowed here")];
    let replaced = client.send(Method::GET, "/health", &forged, "").await.unwrap();
    assert_eq!(replaced.header("x-request-id").len(), 36);
}

async fn catalogue(client: &ShopClient) {
    let mut seen = Vec::new();
    let mut path = "/api/products?limit=10".to_owned();
    loop {
        let page = client.get(&path).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/products?limit=10&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=28).collect::<Vec<i64>>());

    let saree = client.get("/api/products/1").await.json();
    assert_eq!(saree["name"], "Dhakai Jamdani Saree");
    assert_eq!((&saree["priceMinor"], &saree["currency"]), (&json!(1_250_000), &json!("BDT")));

    let names = |page: Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let books = names(client.get("/api/products?category=books").await.json());
    assert_eq!(books.len(), 3);
    assert_eq!(names(client.get("/api/products?search=GITANJALI").await.json()).len(), 1);
    assert_eq!(names(client.get("/api/products?search=saree&category=books").await.json()).len(), 0);
    // Wildcards of SQL mean nothing here.
    assert_eq!(names(client.get("/api/products?search=%25").await.json()).len(), 0);
    assert_eq!(names(client.get("/api/products?search='%20OR%201=1%20--").await.json()).len(), 0);

    let categories = client.get("/api/categories").await.json();
    assert_eq!(categories["items"][0], json!({ "name": "books", "products": 3 }));
}

async fn bad_requests(client: &ShopClient) {
    for (path, status) in [
        ("/api/products?limit=0", 400),
        ("/api/products?limit=1&limit=2", 400),
        ("/api/products?colour=red", 400),
        ("/api/products?cursor=x", 400),
        ("/api/products?search=a%00b", 400),
        ("/api/products/0", 404),
        ("/api/products/99999", 404),
        ("/api/products/1%20OR%201", 404),
        ("/api/orders/DC-251211-0000000000", 404),
        ("/api/orders/nonsense", 404),
        ("/assets/..%2f..%2fetc%2fpasswd", 404),
        ("/nothing", 404),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(answer.json()["status"], status);
    }
    let delete = client.send(Method::DELETE, "/api/orders", &[], "").await.unwrap();
    assert_eq!(delete.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(delete.header("allow"), "GET, POST, HEAD");

    let good = json!({ "items": [{ "productId": 2, "quantity": 1 }] }).to_string();
    for (headers, body, status) in [
        (vec![("content-type", "text/plain")], good.clone(), 415),
        (vec![], good.clone(), 415),
        (vec![("content-type", "application/json")], "{".to_owned(), 400),
        (vec![("content-type", "application/json")], "[".repeat(60_000), 400),
        (vec![("content-type", "application/json")], " ".repeat(65 * 1024), 413),
        (vec![("content-type", "application/json"), ("idempotency-key", "x")], good.clone(), 400),
    ] {
        let answer = client.send(Method::POST, "/api/orders", &headers, body).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{headers:?}: {}", answer.text());
    }
    let unknown = client.order(json!({ "items": [{ "productId": 9999, "quantity": 1 }] }), &[]).await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn ordering(client: &ShopClient) {
    let before = (stock(client, 1).await, stock(client, 2).await);
    let wish = json!({ "customerId": 7, "items": [
        { "productId": 2, "quantity": 3 }, { "productId": 1, "quantity": 1 } ] });
    let placed = client.order(wish, &[]).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text());
    let order = placed.json();
    assert_eq!(order["totalMinor"], 1_250_000 + 3 * 185_000);
    assert_eq!((&order["status"], &order["customerId"]), (&json!("placed"), &json!(7)));
    assert_eq!(order["items"][1]["name"], "Tangail Cotton Saree");
    assert_eq!((stock(client, 1).await, stock(client, 2).await), (before.0 - 1, before.1 - 3));
    // Whoever placed an order sees it; to others it is not there.
    let cookie = placed.header("set-cookie").split(';').next().unwrap();
    let path = placed.header("location");
    assert_eq!(client.send(Method::GET, path, &[("cookie", cookie)], "").await.unwrap().json(), order);
    assert_eq!(client.get(path).await.status, StatusCode::NOT_FOUND);

    // Half of an order is no order: the first item was to be had, the second was not.
    let before = stock(client, 1).await;
    let left = stock(client, 9).await;
    let wish =
        json!({ "items": [{ "productId": 1, "quantity": 1 }, { "productId": 9, "quantity": left + 1 }] });
    let refused = client.order(wish, &[]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.json()["type"], "urn:dhakacart:problem:out-of-stock");
    assert_eq!((stock(client, 1).await, stock(client, 9).await), (before, left));
}

async fn idempotency(client: &ShopClient) {
    let key = [("idempotency-key", "a-key-for-the-test")];
    let wish = json!({ "items": [{ "productId": 3, "quantity": 2 }] });
    let before = stock(client, 3).await;
    let at_once = (0..10).map(|_| {
        let (client, wish) = (client.clone(), wish.clone());
        tokio::spawn(async move { client.order(wish, &key).await })
    });
    let mut numbers = BTreeSet::new();
    let mut fresh = 0;
    for answer in at_once.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        fresh += usize::from(answer.header("idempotency-replayed").is_empty());
        numbers.insert(answer.json()["number"].as_str().unwrap().to_owned());
    }
    assert_eq!((numbers.len(), fresh), (1, 1));
    assert_eq!(stock(client, 3).await, before - 2);

    let other = client.order(json!({ "items": [{ "productId": 3, "quantity": 1 }] }), &key).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(stock(client, 3).await, before - 2);
}

async fn own_orders(client: &ShopClient) {
    assert_eq!(client.get("/api/orders").await.json()["items"], json!([]));
    let set = client.get("/").await.header("set-cookie").to_owned();
    let cookie = [("cookie", set.split(';').next().unwrap())];
    let wish = json!({ "items": [{ "productId": 4, "quantity": 1 }] });
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let placed = client.order(wish.clone(), &cookie).await;
        assert_eq!(placed.header("set-cookie"), "");
        numbers.insert(0, placed.json()["number"].clone());
    }
    let list = |path: String| async move {
        let page = client.send(Method::GET, &path, &cookie, "").await.unwrap().json();
        let items = page["items"].as_array().unwrap().iter().map(|o| o["number"].clone()).collect::<Vec<_>>();
        (items, page["nextCursor"].as_str().map(str::to_owned))
    };
    let (first, cursor) = list("/api/orders?limit=2".to_owned()).await;
    let (rest, end) = list(format!("/api/orders?limit=2&cursor={}", cursor.unwrap())).await;
    assert_eq!([first, rest].concat(), numbers);
    assert_eq!(end, None);
}

/// 200 buyers at once want the last 50 pieces, each one.
async fn overselling(client: &ShopClient) {
    let left = stock(client, 28).await;
    let wish = json!({ "items": [{ "productId": 28, "quantity": left - 50 }] });
    assert_eq!(client.order(wish, &[]).await.status, StatusCode::CREATED);

    let buyers = (0..200).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            client.order(json!({ "items": [{ "productId": 28, "quantity": 1 }] }), &[]).await.status
        })
    });
    let mut outcomes = Vec::new();
    for buyer in buyers.collect::<Vec<_>>() {
        outcomes.push(buyer.await.unwrap());
    }
    let count = |status| outcomes.iter().filter(|outcome| **outcome == status).count();
    assert_eq!(count(StatusCode::CREATED), 50, "{outcomes:?}");
    assert_eq!(count(StatusCode::CONFLICT), 150, "{outcomes:?}");
    assert_eq!(stock(client, 28).await, 0);
}

/// The table that metrics and `Allow` are made from agrees with what is answered, and with the document.
async fn every_endpoint_is_routed(client: &ShopClient) {
    for endpoint in ENDPOINTS {
        let path = endpoint.template.replace("{id}", "1").replace("{name}", "shop.js");
        let path = path.replace("{number}", "DC-251211-0000000000");
        for (method, _) in endpoint.methods {
            let answer = client.send(method.parse().unwrap(), &path, &[], "").await.unwrap();
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let routed = answer.status != StatusCode::NOT_FOUND || answer.text().contains("no such order");
            assert!(routed, "{method} {path}");
        }
        let other = client.send(Method::TRACE, &path, &[], "").await.unwrap();
        assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED, "TRACE {path}");
        for (method, _) in endpoint.methods {
            assert!(other.header("allow").contains(method), "{method} {path}");
        }
    }
}

#[test]
fn the_document_has_every_route_and_every_route_is_in_the_document() {
    let promised: BTreeSet<(String, String)> = contract::document()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let routed: BTreeSet<(String, String)> = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.kind == Kind::Api)
        .flat_map(|e| e.methods.iter().map(|(method, _)| (e.template.to_owned(), (*method).to_owned())))
        .collect();
    assert_eq!(promised, routed);
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.kind == Kind::Api) {
        for (method, success) in endpoint.methods {
            let operation = &contract::document()["paths"][endpoint.template][method.to_lowercase()];
            assert!(operation["responses"].get(success.to_string()).is_some(), "{method} {endpoint:?}");
        }
    }
}
