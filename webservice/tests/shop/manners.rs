//! How the shop behaves towards clients: limits, other sites, caches, compression, headers.

use std::io::Read;

use crate::support::{config, start};
use http::{Method, StatusCode};
use webservice::{Config, Database, Origins, RateLimit, TrustedProxies};

#[tokio::test]
async fn each_client_has_a_limit_of_its_own() {
    let config = Config {
        rate_limit: RateLimit { per_second: 0.01, burst: 2 },
        trusted_proxies: TrustedProxies::parse("127.0.0.0/8").unwrap(),
        ..config(Database::Memory)
    };
    let (_shop, client) = start(config).await;
    let ask = async |forwarded: &str| {
        let headers = [("x-forwarded-for", forwarded)];
        client.send(Method::GET, "/api/products/1", &headers, "").await.unwrap()
    };
    let first = ask("1.1.1.1").await;
    assert_eq!((first.header("ratelimit-limit"), first.header("ratelimit-remaining")), ("2", "1"));
    assert_eq!(ask("9.9.9.9, 1.1.1.1").await.status, StatusCode::OK, "the nearest untrusted address counts");
    let refused = ask("1.1.1.1").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 90);
    assert_eq!(ask("2.2.2.2").await.status, StatusCode::OK);
    assert_eq!(client.get("/health").await.status, StatusCode::OK, "probes are not limited");
    assert_eq!(client.metric("dhakacart_rate_limited_total").await, 1.0);
}

#[tokio::test]
async fn without_trusted_proxies_a_header_changes_nothing() {
    let rate_limit = RateLimit { per_second: 0.01, burst: 1 };
    let (_shop, client) = start(Config { rate_limit, ..config(Database::Memory) }).await;
    let mut answers = Vec::new();
    for forwarded in ["1.1.1.1", "2.2.2.2"] {
        let headers = [("x-forwarded-for", forwarded)];
        answers.push(client.send(Method::GET, "/api/categories", &headers, "").await.unwrap().status);
    }
    assert_eq!(answers, [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS]);
}

#[tokio::test]
async fn other_sites_need_permission() {
    let cors_origins = Origins::parse("https://app.example").unwrap();
    let (_shop, client) = start(Config { cors_origins, ..config(Database::Memory) }).await;
    let allowed = async |method: Method, origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        let answer = client.send(method, "/api/orders", &headers, "").await.unwrap();
        (answer.status.as_u16(), answer.header("access-control-allow-origin").to_owned())
    };
    let yes = "https://app.example".to_owned();
    assert_eq!(allowed(Method::OPTIONS, "https://app.example").await, (204, yes.clone()));
    assert_eq!(allowed(Method::GET, "https://app.example").await, (200, yes));
    assert_eq!(allowed(Method::OPTIONS, "https://evil.example").await, (405, String::new()));
    assert_eq!(allowed(Method::GET, "https://evil.example").await, (200, String::new()));
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let (_shop, client) = start(config(Database::Memory)).await;
    for path in
        ["/api/products", "/api/products/1", "/api/categories", "/api/openapi.json", "/", "/assets/shop.css"]
    {
        let first = client.get(path).await;
        let tag = [("if-none-match", first.header("etag"))];
        let again = client.send(Method::GET, path, &tag, "").await.unwrap();
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(again.header("etag"), first.header("etag"), "{path}");
        // Browsers take the headers of this answer for those of the page they kept.
        if path == "/" {
            assert_eq!(again.header("content-security-policy"), first.header("content-security-policy"));
        }
    }
    let tag = client.get("/api/products").await.header("etag").to_owned();
    let wish = serde_json::json!({ "items": [{ "productId": 1, "quantity": 1 }] });
    client.order(wish, &[]).await;
    let changed = client.send(Method::GET, "/api/products", &[("if-none-match", &tag)], "").await.unwrap();
    assert_eq!(changed.status, StatusCode::OK, "what was sold shows at once in the shop that sold it");
    assert!(client.metric(r#"dhakacart_catalogue_answers_total{source="cache"}"#).await >= 2.0);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_can_read_them() {
    let (_shop, client) = start(config(Database::Memory)).await;
    for path in ["/api/products", "/assets/shop.js", "/metrics"] {
        let plain = client.get(path).await;
        assert_eq!(plain.header("content-encoding"), "", "{path}");
        let small = client.send(Method::GET, path, &[("accept-encoding", "gzip")], "").await.unwrap();
        assert_eq!(
            (small.header("content-encoding"), small.header("vary")),
            ("gzip", "accept-encoding"),
            "{path}"
        );
        assert!(small.body.len() * 2 < plain.body.len(), "{path}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&small.body[..]).read_to_string(&mut text).unwrap();
        if path != "/metrics" {
            assert_eq!(text, plain.text(), "{path}");
        }
    }
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let (_shop, client) = start(config(Database::Memory)).await;
    for path in ["/", "/dashboard", "/orders/DC-1", "/assets/shop.js", "/api/products", "/nothing", "/health"]
    {
        let answer = client.send(Method::GET, path, &[("x-forwarded-proto", "https")], "").await.unwrap();
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
    }
}
