//! The connection to PostgreSQL is encrypted, and its server's certificate is held to a given authority, as RDS wants.

use std::path::Path;
use std::process::Command;

use crate::support::postgres::Postgres;
use crate::support::{config, start};
use http::StatusCode;
use sqlx::Row;
use webservice::Config;

fn openssl(directory: &Path, arguments: &str) -> Result<(), String> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.map_err(|error| format!("openssl: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// An authority `ca`, a certificate `server` of it for localhost, and an authority `other` that has nothing to do with it.
fn certificates(directory: &Path) -> Result<(), String> {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for name in ["ca", "other"] {
        openssl(
            directory,
            &format!("req -x509 {KEY} -keyout {name}.key -out {name}.crt -days 2 -subj /CN={name}"),
        )?;
    }
    openssl(directory, &format!("req {KEY} -keyout server.key -out server.csr -subj /CN=localhost"))?;
    std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost").map_err(|e| e.to_string())?;
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
    )
}

#[tokio::test]
async fn the_database_is_verified_against_the_given_authority() {
    let files = tempfile::tempdir().unwrap();
    if let Err(why) = certificates(files.path()) {
        return eprintln!("SKIPPED tls: {why}");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let postgres = match Postgres::start_with_tls(files.path(), port).await {
        Ok(postgres) => postgres,
        Err(why) => return eprintln!("SKIPPED postgres: {why}"),
    };
    postgres.database("tls").await;
    let settings = |host: &str, authority: &str| {
        let authority = files.path().join(authority);
        let url = format!(
            "postgres://shop@{host}:{port}/tls?sslmode=verify-full&sslrootcert={}",
            authority.display()
        );
        let from = Config::from_lookup(|name| (name == "DATABASE_URL").then(|| url.clone())).unwrap();
        config(from.database)
    };

    let (shop, client) = start(settings("localhost", "ca.crt")).await;
    assert_eq!(client.get("/ready").await.status, StatusCode::OK);
    assert_eq!(client.get("/api/products").await.status, StatusCode::OK);
    let mut connection = postgres.connect("tls").await;
    let row = sqlx::query(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'dhakacart'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert!(row.get::<Option<bool>, _>(0).expect("the shop is connected"), "every connection is encrypted");
    shop.drain();
    shop.stopped().await;

    // Another authority, and the right one for another name.
    for (host, authority) in [("localhost", "other.crt"), ("127.0.0.1", "ca.crt")] {
        let (shop, client) = start(settings(host, authority)).await;
        let answer = client.get("/ready").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{host} {authority}");
        shop.drain();
        shop.stopped().await;
    }
}
