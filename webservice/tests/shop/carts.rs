//! Carts and the finer points of the catalogue, on each database.

use std::collections::BTreeSet;

use crate::support::postgres::Postgres;
use crate::support::{Answer, ShopClient, config, start};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use webservice::Database;

#[tokio::test]
async fn carts_work_on_sqlite() {
    suite(Database::Memory).await;
}

#[tokio::test]
async fn carts_work_on_postgresql() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    suite(postgres.database("carts").await).await;
}

async fn suite(database: Database) {
    let (shop, client) = start(config(database)).await;
    lines(&client).await;
    checkout(&client).await;
    a_double_checkout(&client).await;
    sorting(&client).await;
    opposite_orders(&client).await;
    shop.drain();
    shop.stopped().await;
}

async fn put(client: &ShopClient, cookie: &str, id: i64, quantity: i64) -> Answer {
    let headers: Vec<_> = (!cookie.is_empty()).then_some(("cookie", cookie)).into_iter().collect();
    client
        .json(Method::PUT, &format!("/api/cart/items/{id}"), &headers, &json!({ "quantity": quantity }))
        .await
}

async fn send(client: &ShopClient, method: Method, path: &str, cookie: &str) -> Answer {
    client.send(method, path, &[("cookie", cookie)], "").await.unwrap()
}

async fn stock(client: &ShopClient, id: i64) -> i64 {
    client.get(&format!("/api/products/{id}")).await.json()["stock"].as_i64().unwrap()
}

async fn lines(client: &ShopClient) {
    assert_eq!(
        client.get("/api/cart").await.json(),
        json!({ "items": [], "totalMinor": 0, "currency": "BDT" })
    );
    let first = put(client, "", 2, 3).await;
    let cookie = first.cookie();
    assert_eq!(first.json()["totalMinor"], 3 * 185_000);
    put(client, cookie, 1, 1).await;
    let again = put(client, cookie, 2, 5).await;
    assert_eq!(again.header("set-cookie"), "");
    let quantities = |cart: Value| -> Vec<(i64, i64)> {
        let items = cart["items"].as_array().unwrap().clone();
        items.iter().map(|i| (i["productId"].as_i64().unwrap(), i["quantity"].as_i64().unwrap())).collect()
    };
    assert_eq!(quantities(again.json()), [(1, 1), (2, 5)]);
    // Nobody else's.
    assert_eq!(quantities(client.get("/api/cart").await.json()), []);
    assert_eq!(quantities(send(client, Method::DELETE, "/api/cart/items/1", cookie).await.json()), [(2, 5)]);
    assert_eq!(quantities(send(client, Method::DELETE, "/api/cart/items/1", cookie).await.json()), [(2, 5)]);
    for (id, quantity, status) in [(2, 0, 400), (2, 101, 400), (9999, 1, 404), (0, 1, 404)] {
        assert_eq!(put(client, cookie, id, quantity).await.status.as_u16(), status, "{id} {quantity}");
    }
    assert_eq!(send(client, Method::DELETE, "/api/cart", cookie).await.status, StatusCode::NO_CONTENT);
    assert_eq!(quantities(send(client, Method::GET, "/api/cart", cookie).await.json()), []);
}

async fn checkout(client: &ShopClient) {
    let first = put(client, "", 10, 2).await;
    let cookie = first.cookie();
    let before = stock(client, 10).await;
    let key = "checkout-key-1";
    let order = async || {
        let headers = [("cookie", cookie), ("idempotency-key", key)];
        client.send(Method::POST, "/api/cart/checkout", &headers, "").await.unwrap()
    };
    let placed = order().await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text());
    assert_eq!(placed.json()["items"][0]["quantity"], 2);
    // The answer was lost, so the client asks again, with a cart that is empty by now.
    let again = order().await;
    assert_eq!((again.json(), again.header("idempotency-replayed")), (placed.json(), "true"));
    assert_eq!(stock(client, 10).await, before - 2);
    let empty = send(client, Method::POST, "/api/cart/checkout", cookie).await;
    assert_eq!(empty.status, StatusCode::CONFLICT);
    // Another session with the same key is told so, and sees nothing.
    let other = put(client, "", 10, 1).await;
    let headers = [("cookie", other.cookie()), ("idempotency-key", key)];
    let refused = client.send(Method::POST, "/api/cart/checkout", &headers, "").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    // What cannot be had stays in the cart.
    let left = stock(client, 9).await;
    put(client, other.cookie(), 9, left + 1).await;
    let refused = send(client, Method::POST, "/api/cart/checkout", other.cookie()).await;
    assert_eq!(refused.json()["type"], "urn:dhakacart:problem:out-of-stock");
    let cart = send(client, Method::GET, "/api/cart", other.cookie()).await.json();
    assert_eq!(cart["items"].as_array().unwrap().len(), 2);
    assert_eq!((stock(client, 9).await, stock(client, 10).await), (left, before - 2));
    assert_eq!(client.metric("dhakacart_checkouts_total").await, 1.0);
    assert_eq!(client.metric("dhakacart_carts_created_total").await, 3.0);
}

/// Pressing twice without a key orders once, because the first press empties the cart.
async fn a_double_checkout(client: &ShopClient) {
    let cart = put(client, "", 11, 1).await;
    let cookie = cart.cookie().to_owned();
    let presses = (0..8).map(|_| {
        let (client, cookie) = (client.clone(), cookie.clone());
        tokio::spawn(async move { send(&client, Method::POST, "/api/cart/checkout", &cookie).await.status })
    });
    let mut outcomes = Vec::new();
    for press in presses.collect::<Vec<_>>() {
        outcomes.push(press.await.unwrap());
    }
    outcomes.sort();
    assert_eq!(outcomes[0], StatusCode::CREATED);
    assert!(outcomes[1..].iter().all(|status| *status == StatusCode::CONFLICT), "{outcomes:?}");
}

async fn sorting(client: &ShopClient) {
    for (sort, field, down) in [
        ("price", "priceMinor", false),
        ("-price", "priceMinor", true),
        ("name", "name", false),
        ("newest", "id", true),
    ] {
        let mut path = format!("/api/products?limit=5&sort={sort}");
        let (mut seen, mut ids) = (Vec::new(), BTreeSet::new());
        loop {
            let page = client.get(&path).await.json();
            for item in page["items"].as_array().unwrap() {
                ids.insert(item["id"].as_i64().unwrap());
                seen.push((item[field].as_i64().unwrap_or(0), item[field].as_str().unwrap_or("").to_owned()));
            }
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("/api/products?limit=5&sort={sort}&cursor={cursor}");
        }
        assert_eq!((seen.len(), ids.len()), (28, 28), "{sort}");
        let good = |pair: &[(i64, String)]| if down { pair[0] >= pair[1] } else { pair[0] <= pair[1] };
        assert!(seen.windows(2).all(good), "{sort}: {seen:?}");
    }
    let cheap = client.get("/api/products?minPrice=24500&maxPrice=25000&sort=price").await.json();
    let prices: Vec<_> = cheap["items"].as_array().unwrap().iter().map(|i| i["priceMinor"].clone()).collect();
    assert_eq!(prices, [24_500, 25_000]);
}

/// Orders that name the same products in opposite order do not wait for each other for ever.
async fn opposite_orders(client: &ShopClient) {
    let buyers = (0..60).map(|index| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut items =
                vec![json!({ "productId": 13, "quantity": 1 }), json!({ "productId": 14, "quantity": 1 })];
            if index % 2 == 0 {
                items.reverse();
            }
            client.order(json!({ "items": items }), &[]).await.status
        })
    });
    for buyer in buyers.collect::<Vec<_>>() {
        assert_eq!(buyer.await.unwrap(), StatusCode::CREATED);
    }
}
