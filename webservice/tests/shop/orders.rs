//! Orders that are written together, on each database.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::support::postgres::Postgres;
use crate::support::{Answer, ShopClient, config, eventually, start};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::task::JoinHandle;
use webservice::Database;

/// A connection beside the shop's, which can keep it from writing.
enum Beside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Beside {
    async fn run(&mut self, sqlite: &'static str, postgres: &'static str) {
        match self {
            Self::Sqlite(connection) => drop(sqlx::raw_sql(sqlite).execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sqlx::raw_sql(postgres).execute(connection).await.unwrap()),
        }
    }

    /// From now on an order for product 27 waits.
    async fn block(&mut self) {
        self.run("BEGIN IMMEDIATE", "BEGIN; SELECT FROM products WHERE id = 27 FOR UPDATE").await;
    }

    async fn release(&mut self) {
        self.run("COMMIT", "COMMIT").await;
    }

    /// The database does not take orders of customer 666.
    async fn refuse_a_customer(&mut self) {
        self.run(
            "CREATE TRIGGER refused BEFORE INSERT ON orders WHEN NEW.customer_id = 666
             BEGIN SELECT RAISE(ABORT, 'no'); END",
            "ALTER TABLE orders ADD CONSTRAINT refused CHECK (customer_id <> 666)",
        )
        .await;
    }
}

#[tokio::test]
async fn orders_are_written_together_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let url = format!("sqlite:{}", path.display());
    let (shop, client) = start(config(Database::SqliteFile(path.clone()))).await;
    let options = SqliteConnectOptions::from_str(&url).unwrap();
    let beside = Beside::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
    suite(&client, beside).await;
    let (other, second) = start(config(Database::SqliteFile(path))).await;
    two_shops([client, second]).await;
    for shop in [shop, other] {
        shop.drain();
        shop.stopped().await;
    }
}

#[tokio::test]
async fn orders_are_written_together_on_postgresql() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    let database = postgres.database("orders").await;
    let (shop, client) = start(config(database.clone())).await;
    suite(&client, Beside::Postgres(postgres.connect("orders").await)).await;
    let (other, second) = start(config(database)).await;
    two_shops([client, second]).await;
    for shop in [shop, other] {
        shop.drain();
        shop.stopped().await;
    }
}

async fn suite(client: &ShopClient, mut beside: Beside) {
    each_order_has_its_own_answer(client, &mut beside).await;
    an_order_that_is_being_written_outlives_its_client(client, &mut beside).await;
    the_database_may_refuse_one(client, &mut beside).await;
}

async fn stock(client: &ShopClient, id: i64) -> i64 {
    client.get(&format!("/api/products/{id}")).await.json()["stock"].as_i64().unwrap()
}

/// Orders that wait one after the other while the first is held up.
struct Queue<'a> {
    client: &'a ShopClient,
    waiting: usize,
}

impl<'a> Queue<'a> {
    /// Holds the shop's writer up with an order for product 27.
    async fn new(client: &'a ShopClient, beside: &mut Beside) -> (Self, JoinHandle<Answer>) {
        let before = client.metric("dhakacart_order_batch_size_count").await;
        beside.block().await;
        let first = send(client, "/api/orders", wish(&[(27, 1)]), &[]);
        eventually("the first order is being written", || async {
            (client.metric("dhakacart_order_batch_size_count").await > before).then_some(())
        })
        .await;
        (Self { client, waiting: 0 }, first)
    }

    /// Resolves when the order waits, so that orders wait in the order in which they were added.
    async fn add(&mut self, path: &str, body: Value, headers: &[(&str, &str)]) -> JoinHandle<Answer> {
        let order = send(self.client, path, body, headers);
        self.waiting += 1;
        let expected = self.waiting as f64;
        eventually("the order waits", || async {
            (self.client.metric("dhakacart_orders_waiting").await == expected).then_some(())
        })
        .await;
        order
    }

    async fn order(&mut self, items: &[(i64, i64)]) -> JoinHandle<Answer> {
        self.add("/api/orders", wish(items), &[]).await
    }
}

fn wish(items: &[(i64, i64)]) -> Value {
    let items = items.iter().map(|(id, quantity)| json!({ "productId": id, "quantity": quantity }));
    json!({ "items": items.collect::<Vec<_>>() })
}

fn send(client: &ShopClient, path: &str, body: Value, headers: &[(&str, &str)]) -> JoinHandle<Answer> {
    let (client, path) = (client.clone(), path.to_owned());
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    tokio::spawn(async move {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client.json(Method::POST, &path, &headers, &body).await
    })
}

async fn each_order_has_its_own_answer(client: &ShopClient, beside: &mut Beside) {
    let cart = client.json(Method::PUT, "/api/cart/items/3", &[], &json!({ "quantity": 2 })).await;
    let cookie = [("cookie", cart.cookie())];
    let key = [("idempotency-key", "one-key-for-three")];
    let (ones, threes, left) = (stock(client, 1).await, stock(client, 3).await, stock(client, 9).await);
    let count = client.metric("dhakacart_order_batch_size_count").await;

    let (mut queue, held_up) = Queue::new(client, beside).await;
    let plain = queue.order(&[(1, 1)]).await;
    let keyed = queue.add("/api/orders", wish(&[(9, 1)]), &key).await;
    let too_many = queue.order(&[(9, left)]).await;
    let last_pieces = queue.order(&[(9, left - 1)]).await;
    let half = queue.order(&[(1, 1), (9, 1)]).await;
    let unknown = queue.order(&[(1, 1), (9999, 1)]).await;
    let same_key = queue.add("/api/orders", wish(&[(9, 1)]), &key).await;
    let reused_key = queue.add("/api/orders", wish(&[(9, 2)]), &key).await;
    let checkout = queue.add("/api/cart/checkout", json!({}), &cookie).await;
    let pressed_twice = queue.add("/api/cart/checkout", json!({}), &cookie).await;
    let gone = queue.order(&[(1, 5)]).await;
    let same_product = queue.order(&[(1, 2)]).await;

    // This client goes away while its order waits.
    let in_flight = client.metric("dhakacart_http_requests_in_flight").await;
    gone.abort();
    eventually("the shop notices", || async {
        (client.metric("dhakacart_http_requests_in_flight").await < in_flight).then_some(())
    })
    .await;
    beside.release().await;

    assert_eq!(held_up.await.unwrap().status, StatusCode::CREATED);
    let mut number = String::new();
    for (name, order, status, detail) in [
        ("plain", plain, 201, ""),
        ("keyed", keyed, 201, ""),
        ("too many", too_many, 409, &*format!("{} of ", left - 1)),
        ("last pieces", last_pieces, 201, ""),
        ("half", half, 409, "0 of "),
        ("unknown", unknown, 422, "there is no product 9999"),
        ("same key", same_key, 201, ""),
        ("reused key", reused_key, 422, "Idempotency-Key"),
        ("checkout", checkout, 201, ""),
        ("pressed twice", pressed_twice, 409, "the cart is empty"),
        ("same product", same_product, 201, ""),
    ] {
        let answer = order.await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text());
        assert!(answer.text().contains(detail), "{name}: {}", answer.text());
        match name {
            "keyed" => answer.json()["number"].as_str().unwrap().clone_into(&mut number),
            "same key" => {
                assert_eq!(answer.json()["number"], number.as_str());
                assert_eq!(answer.header("idempotency-replayed"), "true");
            }
            _ => assert_eq!(answer.header("idempotency-replayed"), "", "{name}"),
        }
    }
    assert_eq!(
        (stock(client, 1).await, stock(client, 3).await, stock(client, 9).await),
        (ones - 3, threes - 2, 0)
    );
    // The one that was held up, and all the others at once.
    assert_eq!(client.metric("dhakacart_order_batch_size_count").await, count + 2.0);
    assert_eq!(client.metric("dhakacart_orders_waiting").await, 0.0);
}

async fn an_order_that_is_being_written_outlives_its_client(client: &ShopClient, beside: &mut Beside) {
    let before = (stock(client, 2).await, stock(client, 27).await);
    let (mut queue, held_up) = Queue::new(client, beside).await;
    let behind = queue.order(&[(2, 1)]).await;
    held_up.abort();
    eventually("the shop notices", || async {
        (client.metric("dhakacart_http_requests_in_flight").await <= 2.0).then_some(())
    })
    .await;
    beside.release().await;
    assert_eq!(behind.await.unwrap().status, StatusCode::CREATED);
    assert_eq!((stock(client, 2).await, stock(client, 27).await), (before.0 - 1, before.1 - 1));
}

/// What is wrong with one order is nothing to the others.
async fn the_database_may_refuse_one(client: &ShopClient, beside: &mut Beside) {
    beside.refuse_a_customer().await;
    let before = stock(client, 4).await;
    let (mut queue, held_up) = Queue::new(client, beside).await;
    let good = [queue.order(&[(4, 1)]).await];
    let mut body = wish(&[(4, 10)]);
    body["customerId"] = json!(666);
    let refused = queue.add("/api/orders", body, &[]).await;
    let also_good = queue.order(&[(4, 2)]).await;
    beside.release().await;
    for good in good.into_iter().chain([held_up, also_good]) {
        assert_eq!(good.await.unwrap().status, StatusCode::CREATED);
    }
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!refused.text().contains("refused"), "{}", refused.text());
    assert_eq!(stock(client, 4).await, before - 3);
}

/// Shops beside each other sell the last pieces once, whatever order things are named in, and each key once.
async fn two_shops(clients: [ShopClient; 2]) {
    let left = [stock(&clients[0], 12).await, stock(&clients[0], 13).await];
    let pieces = left[0].min(left[1]).min(40);
    for (index, product) in [12, 13].into_iter().enumerate() {
        for _ in 0..(left[index] - pieces) / 100 {
            clients[0].order(wish(&[(product, 100)]), &[]).await;
        }
        let rest = (left[index] - pieces) % 100;
        if rest > 0 {
            clients[0].order(wish(&[(product, rest)]), &[]).await;
        }
    }
    let buyers = (0..160_usize).map(|index| {
        let client = clients[index % 2].clone();
        // Each key comes twice: once through each shop.
        let key = format!("two-shops-{}", index / 2);
        tokio::spawn(async move {
            let items = if index % 4 < 2 { [(12, 1), (13, 1)] } else { [(13, 1), (12, 1)] };
            (key.clone(), client.order(wish(&items), &[("idempotency-key", &key)]).await)
        })
    });
    let mut numbers = BTreeMap::<String, Vec<String>>::new();
    for buyer in buyers.collect::<Vec<_>>() {
        let (key, answer) = buyer.await.unwrap();
        match answer.status {
            StatusCode::CREATED => {
                numbers.entry(key).or_default().push(answer.json()["number"].as_str().unwrap().to_owned());
            }
            StatusCode::CONFLICT => {}
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert_eq!(numbers.len() as i64, pieces, "{numbers:?}");
    assert!(numbers.values().all(|same| same.iter().all(|number| *number == same[0])), "{numbers:?}");
    assert_eq!((stock(&clients[0], 12).await, stock(&clients[1], 13).await), (0, 0));
}
