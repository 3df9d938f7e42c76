//! PostgreSQL.
//!
//! Prices are DECIMAL(10,2) in the tables and paisa in the program; the SQL converts between them.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection, Row};

use super::{ACQUIRE_TIMEOUT, PlaceError, Placed, StoreError, catalogue, is_duplicate, migrator};
use crate::order::{MAX_TOTAL_MINOR, NewOrder, Order, OrderItem};
use crate::product::{CURRENCY, Category, Product, ProductQuery};

const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "shop", include_str!("../../migrations/postgres/0001_shop.sql"))];

/// Ten shops at this size stay below the 100 connections that PostgreSQL allows by default.
const CONNECTIONS: u32 = 8;

/// Connections are renewed so that they spread over a failover's new addresses.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    /// Connects and sets the database up.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn open(options: &PgConnectOptions, seed: bool) -> Result<Self, StoreError> {
        let options = options
            .clone()
            .application_name("dhakacart")
            // A query that outlives its request would hold locks for nobody.
            .options([("statement_timeout", "9s"), ("lock_timeout", "5s")]);
        let pool = PgPoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_connections(CONNECTIONS)
            .max_lifetime(CONNECTION_LIFETIME)
            .connect_with(options)
            .await?;
        let store = Self { pool };
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

    pub(super) async fn products(&self, query: &ProductQuery) -> Result<Vec<Product>, StoreError> {
        let rows = sqlx::query(
            r"SELECT id::bigint, name, description, (price * 100)::bigint, stock::bigint, category FROM products
              WHERE id > $1::bigint
                AND ($2::text IS NULL OR category = $2)
                AND ($3::text IS NULL OR lower(name) LIKE $3 ESCAPE '\' OR lower(description) LIKE $3 ESCAPE '\')
              ORDER BY id LIMIT $4::bigint",
        )
        .bind(query.after)
        .bind(query.category.as_deref())
        .bind(query.like_pattern())
        .bind(query.limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(product).collect()
    }

    pub(super) async fn product(&self, id: i64) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(
            "SELECT id::bigint, name, description, (price * 100)::bigint, stock::bigint, category FROM products WHERE id = $1::bigint",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(product).transpose()
    }

    pub(super) async fn categories(&self) -> Result<Vec<Category>, StoreError> {
        let rows = sqlx::query("SELECT category, count(*) FROM products GROUP BY category ORDER BY category")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(Category { name: row.try_get(0)?, products: row.try_get(1)? })).collect()
    }

    pub(super) async fn place(&self, order: &NewOrder) -> Result<Placed, PlaceError> {
        if let Some(earlier) = self.replay(order).await? {
            return Ok(Placed::Replayed(earlier));
        }
        match self.insert(order).await {
            Ok(placed) => Ok(Placed::New(placed)),
            // The same key came in twice at once and the other request was first.
            Err(PlaceError::Store(StoreError::Database(error))) if is_duplicate(&error) => {
                self.replay(order).await?.map(Placed::Replayed).ok_or_else(|| error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The order that was placed under this one's idempotency key.
    async fn replay(&self, order: &NewOrder) -> Result<Option<Order>, PlaceError> {
        let Some(key) = &order.idempotency_key else { return Ok(None) };
        let row =
            sqlx::query("SELECT order_number, idempotency_request FROM orders WHERE idempotency_key = $1")
                .bind(key)
                .fetch_optional(&self.pool)
                .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<String, _>(1)? != order.fingerprint() {
            return Err(PlaceError::KeyReused);
        }
        Ok(self.order(&row.try_get::<String, _>(0)?).await?)
    }

    async fn insert(&self, order: &NewOrder) -> Result<Order, PlaceError> {
        let mut tx = self.pool.begin().await?;
        let now = order.now.as_millisecond();
        let mut items = Vec::with_capacity(order.items.len());
        for (&product_id, &quantity) in &order.items {
            items.push(take(&mut tx, product_id, quantity, now).await?);
        }
        let total_minor: i64 = items.iter().map(|item| item.unit_price_minor * item.quantity).sum();
        if total_minor > MAX_TOTAL_MINOR {
            return Err(PlaceError::TooExpensive);
        }
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO orders (order_number, customer_id, session, total_amount, status,
                                 idempotency_key, idempotency_request, created_at)
             VALUES ($1, $2::bigint, $3, $4::numeric / 100, 'placed', $5, $6,
                     to_timestamp($7::double precision / 1000)) RETURNING id::bigint",
        )
        .bind(&order.number)
        .bind(order.customer_id)
        .bind(&order.session)
        .bind(total_minor)
        .bind(&order.idempotency_key)
        .bind(order.idempotency_key.as_ref().map(|_| order.fingerprint()))
        .bind(now)
        .fetch_one(&mut *tx)
        .await?;
        for item in &items {
            sqlx::query(
                "INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price)
                 VALUES ($1::bigint, $2::bigint, $3, $4::bigint, $5::numeric / 100)",
            )
            .bind(id)
            .bind(item.product_id)
            .bind(&item.name)
            .bind(item.quantity)
            .bind(item.unit_price_minor)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(Order {
            number: order.number.clone(),
            customer_id: order.customer_id,
            status: "placed".to_owned(),
            items,
            total_minor,
            currency: CURRENCY,
            created_at: timestamp(now)?,
            id,
        })
    }

    pub(super) async fn order(&self, number: &str) -> Result<Option<Order>, StoreError> {
        let row = sqlx::query(
            "SELECT id::bigint, order_number, customer_id::bigint, (total_amount * 100)::bigint, status,
                    (extract(epoch FROM created_at) * 1000)::bigint
             FROM orders WHERE order_number = $1",
        )
        .bind(number)
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) => Ok(Some(self.with_items(&row).await?)),
            None => Ok(None),
        }
    }

    pub(super) async fn orders(
        &self,
        session: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<Order>, StoreError> {
        let rows = sqlx::query(
            "SELECT id::bigint, order_number, customer_id::bigint, (total_amount * 100)::bigint, status,
                    (extract(epoch FROM created_at) * 1000)::bigint
             FROM orders WHERE session = $1 AND id < $2::bigint ORDER BY id DESC LIMIT $3::bigint",
        )
        .bind(session)
        .bind(before)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let mut orders = Vec::with_capacity(rows.len());
        for row in &rows {
            orders.push(self.with_items(row).await?);
        }
        Ok(orders)
    }

    async fn with_items(&self, row: &PgRow) -> Result<Order, StoreError> {
        let id: i64 = row.try_get(0)?;
        let rows = sqlx::query(
            "SELECT product_id::bigint, product_name, quantity::bigint, (unit_price * 100)::bigint
             FROM order_items WHERE order_id = $1::bigint ORDER BY product_id",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        let items = rows.iter().map(item).collect::<Result<_, sqlx::Error>>()?;
        Ok(Order {
            number: row.try_get(1)?,
            customer_id: row.try_get(2)?,
            status: row.try_get(4)?,
            items,
            total_minor: row.try_get(3)?,
            currency: CURRENCY,
            created_at: timestamp(row.try_get(5)?)?,
            id,
        })
    }

    pub(super) fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Takes pieces from stock, or says why not.
async fn take(
    connection: &mut PgConnection,
    product_id: i64,
    quantity: i64,
    now: i64,
) -> Result<OrderItem, PlaceError> {
    // The condition in the update is what makes overselling impossible.
    let taken = sqlx::query(
        "UPDATE products SET stock = stock - $1::int,
                             updated_at = to_timestamp($2::double precision / 1000)
         WHERE id = $3::bigint AND stock >= $1::int RETURNING name, (price * 100)::bigint",
    )
    .bind(quantity)
    .bind(now)
    .bind(product_id)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = taken {
        let (name, unit_price_minor) = (row.try_get(0)?, row.try_get(1)?);
        return Ok(OrderItem { product_id, name, quantity, unit_price_minor });
    }
    let left = sqlx::query("SELECT name, stock::bigint FROM products WHERE id = $1")
        .bind(product_id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(PlaceError::UnknownProduct(product_id))?;
    Err(PlaceError::OutOfStock { name: left.try_get(0)?, available: left.try_get(1)?, wanted: quantity })
}

fn product(row: &PgRow) -> Result<Product, StoreError> {
    Ok(Product {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        price_minor: row.try_get(3)?,
        currency: CURRENCY,
        stock: row.try_get(4)?,
        category: row.try_get(5)?,
    })
}

fn item(row: &PgRow) -> Result<OrderItem, sqlx::Error> {
    Ok(OrderItem {
        product_id: row.try_get(0)?,
        name: row.try_get(1)?,
        quantity: row.try_get(2)?,
        unit_price_minor: row.try_get(3)?,
    })
}

fn timestamp(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|_| StoreError::Unreadable("a time"))
}
