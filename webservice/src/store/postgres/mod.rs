//! PostgreSQL.
//!
//! Prices are DECIMAL(10,2) in the tables and paisa in the program; the SQL converts between them. Every statement
//! is prepared once on each connection and takes its values as parameters.

mod admin;
mod alone;
mod carts;
mod orders;
mod place;
mod products;

use std::time::Duration;

use jiff::Timestamp;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::{ACQUIRE_TIMEOUT, StoreError, catalogue, migrator};

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "shop", include_str!("../../../migrations/postgres/0001_shop.sql")),
    (2, "carts audit", include_str!("../../../migrations/postgres/0002_carts_audit.sql")),
];

/// Connections are renewed so that they spread over a failover's new addresses.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A connection that was used within this time is taken without asking whether it still works: the question would
/// cost as much as the query itself.
const SURELY_ALIVE: Duration = Duration::from_secs(1);

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    most_connections: u32,
}

impl PostgresStore {
    /// Connects and sets the database up.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn open(
        options: &PgConnectOptions,
        most_connections: u32,
        seed: bool,
    ) -> Result<Self, StoreError> {
        let options = options
            .clone()
            .application_name("dhakacart")
            // A query that outlives its request would hold locks for nobody.
            .options([
                ("statement_timeout", "9s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "10s"),
            ]);
        let pool = PgPoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_connections(most_connections)
            .max_lifetime(CONNECTION_LIFETIME)
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(
                    async move { Ok(metadata.idle_for < SURELY_ALIVE || connection.ping().await.is_ok()) },
                )
            })
            .connect_with(options)
            .await?;
        let store = Self { pool, most_connections };
        // Migrating holds an advisory lock, so shops that start together take turns.
        migrator(MIGRATIONS).run(&store.pool).await?;
        if seed {
            store.seed().await?;
        }
        Ok(store)
    }

    async fn seed(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("LOCK TABLE products IN EXCLUSIVE MODE").execute(&mut *tx).await?;
        let empty: bool =
            sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM products)").fetch_one(&mut *tx).await?;
        if empty {
            for entry in catalogue::CATALOGUE {
                sqlx::query(
                    "INSERT INTO products (name, description, price, stock, category)
                     VALUES ($1, $2, $3::numeric / 100, $4::bigint, $5)",
                )
                .bind(entry.name)
                .bind(entry.description)
                .bind(entry.price_minor)
                .bind(entry.stock)
                .bind(entry.category)
                .execute(&mut *tx)
                .await?;
            }
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.pool.acquire().await?.ping().await?)
    }

    pub(super) fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    pub(super) fn most_connections(&self) -> u32 {
        self.most_connections
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

fn timestamp(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|_| StoreError::Unreadable("a time"))
}
