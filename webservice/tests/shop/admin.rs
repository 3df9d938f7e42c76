//! What administrators may do, on each database: change the catalogue, move orders on, and be held to it.

use crate::support::postgres::Postgres;
use crate::support::{Administrator, Answer, ShopClient, config, start};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use webservice::{Config, Database};

#[tokio::test]
async fn administrators_work_on_sqlite() {
    suite(Database::Memory).await;
}

#[tokio::test]
async fn administrators_work_on_postgresql() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    suite(postgres.database("admin").await).await;
    // What was done stays done, for whoever has the shop's own rights too.
    let mut connection = postgres.connect("admin").await;
    let changed = sqlx::query("UPDATE audit_log SET actor = 'somebody'").execute(&mut connection).await;
    assert!(changed.unwrap_err().to_string().contains("final"));
}

async fn suite(database: Database) {
    let mut farida = Administrator::new();
    let config = Config { admin_keys: Some(farida.path()), ..config(database) };
    let (shop, client) = start(config).await;
    only_administrators(&client, &mut farida).await;
    let id = products(&client, &farida).await;
    orders(&client, &farida, id).await;
    audit(&client, &farida, id).await;
    summary(&client, &farida).await;
    shop.drain();
    shop.stopped().await;
}

async fn as_admin(
    client: &ShopClient,
    farida: &Administrator,
    method: Method,
    path: &str,
    body: Value,
) -> Answer {
    client.json(method, path, &[("authorization", &farida.token)], &body).await
}

fn lamp() -> Value {
    json!({ "name": "Solar Lamp", "description": "Two\nlines", "priceMinor": 9_950, "stock": 3, "category": "new-things" })
}

async fn only_administrators(client: &ShopClient, farida: &mut Administrator) {
    let old = farida.token.clone();
    for (method, path) in [
        (Method::POST, "/api/products"),
        (Method::PUT, "/api/products/1"),
        (Method::DELETE, "/api/products/1"),
        (Method::GET, "/api/admin/orders"),
        (Method::GET, "/api/admin/audit"),
        (Method::GET, "/api/admin/summary"),
    ] {
        for headers in [&[][..], &[("authorization", "Bearer a.b.c")], &[("authorization", "Basic eA==")]] {
            let answer = client.json(method.clone(), path, headers, &lamp()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"dhakacart\"");
        }
    }
    // A rotation that keeps the old key keeps its tokens; one that drops it does not.
    let first = "first QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE\n";
    let second = "second QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\n";
    let summary = async |token: &str| {
        let headers = [("authorization", token)];
        client.send(Method::GET, "/api/admin/summary", &headers, "").await.unwrap().status
    };
    farida.rotate(&format!("{second}{first}"));
    assert_eq!((summary(&old).await, summary(&farida.token).await), (StatusCode::OK, StatusCode::OK));
    farida.rotate(second);
    assert_eq!(
        (summary(&old).await, summary(&farida.token).await),
        (StatusCode::UNAUTHORIZED, StatusCode::OK)
    );
}

/// Creates, changes and deletes; gives a product that is still there.
async fn products(client: &ShopClient, farida: &Administrator) -> i64 {
    // Asked before, so that a kept answer would show.
    let found = async || client.get("/api/products?search=solar%20lamp").await.json()["items"].clone();
    assert_eq!(found().await, json!([]));
    let created = as_admin(client, farida, Method::POST, "/api/products", lamp()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
    let path = created.header("location").to_owned();
    let id = created.json()["id"].as_i64().unwrap();
    assert_eq!(found().await[0]["id"], id);
    assert_eq!(client.get(&path).await.header("etag"), created.header("etag"));

    let mut changed = lamp();
    changed["stock"] = json!(5);
    let put = |tag: &str, body: Value| {
        let headers = [("authorization", farida.token.clone()), ("if-match", tag.to_owned())];
        let path = path.clone();
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            client.json(Method::PUT, &path, &headers, &body).await
        }
    };
    let updated = put(created.header("etag"), changed.clone()).await;
    assert_eq!((updated.status, updated.json()["stock"].clone()), (StatusCode::OK, json!(5)));
    assert_eq!(put(created.header("etag"), lamp()).await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(found().await[0]["stock"], 5, "what was refused changed nothing");

    let refused = as_admin(
        client,
        farida,
        Method::POST,
        "/api/products",
        json!({
        "name": "", "priceMinor": -1, "stock": 1, "category": "Not This" }),
    )
    .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let fields: Vec<_> =
        refused.json()["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["name", "priceMinor", "category"]);

    let other = as_admin(client, farida, Method::POST, "/api/products", lamp()).await.json()["id"].clone();
    let gone = format!("/api/products/{other}");
    let in_cart =
        client.json(Method::PUT, &format!("/api/cart/items/{other}"), &[], &json!({ "quantity": 1 })).await;
    let deleted = as_admin(client, farida, Method::DELETE, &gone, json!({})).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(client.get(&gone).await.status, StatusCode::NOT_FOUND);
    assert_eq!(found().await.as_array().unwrap().len(), 1);
    let order = client.order(json!({ "items": [{ "productId": other, "quantity": 1 }] }), &[]).await;
    assert_eq!(order.status, StatusCode::UNPROCESSABLE_ENTITY);
    let cookie = [("cookie", in_cart.cookie())];
    let cart = client.send(Method::GET, "/api/cart", &cookie, "").await.unwrap();
    assert_eq!(cart.json()["items"], json!([]));
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(as_admin(client, farida, method, &gone, lamp()).await.status, StatusCode::NOT_FOUND);
    }
    id
}

async fn orders(client: &ShopClient, farida: &Administrator, id: i64) {
    let wish = json!({ "items": [{ "productId": id, "quantity": 2 }, { "productId": 1, "quantity": 1 }] });
    let placed = client.order(wish.clone(), &[]).await;
    let path = placed.header("location").to_owned();
    let stock = async || client.get(&format!("/api/products/{id}")).await.json()["stock"].as_i64().unwrap();
    assert_eq!(stock().await, 3);
    let become_ = async |status: &str| {
        let answer = as_admin(client, farida, Method::PATCH, &path, json!({ "status": status })).await;
        answer.status.as_u16()
    };
    // Strangers see nothing, whoever ordered cannot say that it is paid.
    let cookie = [("cookie", placed.cookie())];
    let own = async |status: &str| {
        client.json(Method::PATCH, &path, &cookie, &json!({ "status": status })).await.status.as_u16()
    };
    let stranger = client.json(Method::PATCH, &path, &[], &json!({ "status": "cancelled" })).await;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND);
    assert_eq!(own("paid").await, 403);
    assert_eq!(
        [become_("shipped").await, become_("delivered").await, become_("lost").await],
        [409, 409, 400]
    );
    assert_eq!([become_("paid").await, become_("paid").await], [200, 200], "twice is once");
    assert_eq!(own("cancelled").await, 409, "customers cancel until it is paid");
    assert_eq!([become_("shipped").await, become_("cancelled").await], [200, 409]);
    assert_eq!([become_("delivered").await, become_("placed").await], [200, 409]);
    assert_eq!(stock().await, 3);

    // A cancelled order's pieces are back, once.
    let placed = client.order(wish, &[]).await;
    assert_eq!(stock().await, 1);
    let cookie = [("cookie", placed.cookie())];
    for _ in 0..2 {
        let body = json!({ "status": "cancelled" });
        let answer = client.json(Method::PATCH, placed.header("location"), &cookie, &body).await;
        assert_eq!((answer.status, answer.json()["status"].clone()), (StatusCode::OK, json!("cancelled")));
        assert_eq!(stock().await, 3);
    }

    let list = async |query: &str| {
        let path = format!("/api/admin/orders{query}");
        let answer = as_admin(client, farida, Method::GET, &path, json!({})).await;
        let statuses = answer.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["status"].clone())
            .collect::<Vec<_>>();
        (statuses, answer.json()["nextCursor"].as_str().map(str::to_owned))
    };
    assert_eq!(list("").await.0, ["cancelled", "delivered"]);
    assert_eq!(list("?status=delivered").await.0, ["delivered"]);
    let (first, cursor) = list("?limit=1").await;
    assert_eq!(first, ["cancelled"]);
    assert_eq!(list(&format!("?limit=1&cursor={}", cursor.unwrap())).await, (vec![json!("delivered")], None));
    let seen = as_admin(client, farida, Method::GET, &path, json!({})).await;
    assert_eq!(seen.json()["status"], "delivered");
}

async fn audit(client: &ShopClient, farida: &Administrator, id: i64) {
    let log = as_admin(client, farida, Method::GET, "/api/admin/audit", json!({})).await.json();
    let of = |index: usize, field: &str| log["items"][index][field].clone();
    let actions: Vec<Value> = (0..7).map(|index| of(index, "action")).collect();
    assert_eq!(
        actions,
        [
            "order.status",
            "order.status",
            "order.status",
            "product.delete",
            "product.create",
            "product.update",
            "product.create"
        ]
    );
    assert_eq!((of(0, "actor"), of(0, "client")), (json!("farida"), json!("127.0.0.1")));
    assert_eq!(of(0, "detail"), json!({ "status": "delivered" }));
    assert_eq!((of(5, "target"), of(5, "detail")["stock"].clone()), (json!(id.to_string()), json!(5)));
    assert_eq!(log["items"].as_array().unwrap().len(), 7, "what was refused or changed nothing is no action");
}

async fn summary(client: &ShopClient, farida: &Administrator) {
    let summary = as_admin(client, farida, Method::GET, "/api/admin/summary", json!({})).await.json();
    assert_eq!(summary["administrator"], "farida");
    assert_eq!(summary["sales"]["revenueMinor"], 1_250_000 + 2 * 9_950);
    assert_eq!(summary["sales"]["ordersByStatus"]["delivered"], 1);
    assert_eq!(summary["sales"]["bestSellers"][0]["name"], "Solar Lamp");
    assert_eq!(summary["lowStock"][0]["stock"], 3);
    assert!(summary["instance"]["requests"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn a_shop_without_keys_has_no_administrators() {
    let farida = Administrator::new();
    let (_shop, client) = start(config(Database::Memory)).await;
    let answer = as_admin(&client, &farida, Method::GET, "/api/admin/summary", json!({})).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}
