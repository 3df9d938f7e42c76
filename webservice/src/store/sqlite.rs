//! The embedded database.
//!
//! A file may be shared by several shops of one host: write-ahead logging lets them read while one writes,
//! writers queue for `BUSY_TIMEOUT`, and a lock file lets only one at a time set the database up.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection, Row};
use tokio::sync::Mutex;

use super::{ACQUIRE_TIMEOUT, PlaceError, Placed, StoreError, catalogue, is_duplicate, migrator};
use crate::order::{MAX_TOTAL_MINOR, NewOrder, Order, OrderItem};
use crate::product::{CURRENCY, Category, Product, ProductQuery};

const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "shop", include_str!("../../migrations/sqlite/0001_shop.sql"))];

/// How long a writer waits for another. Above the acquire timeout, so that a queue shows as a busy pool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(8);

/// Reads run beside each other; more connections than this only wait for the disk.
const FILE_CONNECTIONS: u32 = 4;

/// A SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    // Taken before writing: of all connections at most one then waits for the file's write lock, and reads
    // and readiness never queue behind buyers.
    writer: Mutex<()>,
}

impl SqliteStore {
    /// Opens the file at `path`, or a database in memory, and sets it up.
    ///
    /// # Errors
    /// The file cannot be opened, locked or migrated.
    pub async fn open(path: Option<&Path>, seed: bool) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Normal)
            // Containers have no writable place for temporary files.
            .pragma("temp_store", "memory");
        let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
        let (options, pool, lock) = match path {
            Some(path) => {
                let lock = lock_beside(path).await?;
                let options =
                    options.filename(path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
                (options, pool.max_connections(FILE_CONNECTIONS), Some(lock))
            }
            // The database lives in its only connection, which therefore must never be closed.
            None => (
                options.in_memory(true),
                pool.max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None),
                None,
            ),
        };
        let pool = pool.connect_with(options).await?;
        let store = Self { pool, writer: Mutex::new(()) };
        migrator(MIGRATIONS).run(&store.pool).await?;
        if seed {
            store.seed().await?;
        }
        drop(lock);
        Ok(store)
    }

    async fn seed(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let empty: bool =
            sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM products)").fetch_one(&mut *tx).await?;
        if empty {
            let now = Timestamp::now().as_millisecond();
            for entry in catalogue::CATALOGUE {
                sqlx::query(
                    "INSERT INTO products (name, description, price_minor, stock, category, created_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $6)",
                )
                .bind(entry.name)
                .bind(entry.description)
                .bind(entry.price_minor)
                .bind(entry.stock)
                .bind(entry.category)
                .bind(now)
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
            r"SELECT id, name, description, price_minor, stock, category FROM products
              WHERE id > $1
                AND ($2 IS NULL OR category = $2)
                AND ($3 IS NULL OR lower(name) LIKE $3 ESCAPE '\' OR lower(description) LIKE $3 ESCAPE '\')
              ORDER BY id LIMIT $4",
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
            "SELECT id, name, description, price_minor, stock, category FROM products WHERE id = $1",
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
        let _turn = self.writer.lock().await;
        // IMMEDIATE takes the write lock at once: a transaction that starts by reading and then wants to
        // write fails instead of waiting when another has written in between.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
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
            "INSERT INTO orders (order_number, customer_id, session, total_minor, status,
                                 idempotency_key, idempotency_request, created_at)
             VALUES ($1, $2, $3, $4, 'placed', $5, $6, $7) RETURNING id",
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
                "INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price_minor)
                 VALUES ($1, $2, $3, $4, $5)",
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
            "SELECT id, order_number, customer_id, total_minor, status, created_at
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
            "SELECT id, order_number, customer_id, total_minor, status, created_at
             FROM orders WHERE session = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
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

    async fn with_items(&self, row: &SqliteRow) -> Result<Order, StoreError> {
        let id: i64 = row.try_get(0)?;
        let rows = sqlx::query(
            "SELECT product_id, product_name, quantity, unit_price_minor
             FROM order_items WHERE order_id = $1 ORDER BY product_id",
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
    connection: &mut SqliteConnection,
    product_id: i64,
    quantity: i64,
    now: i64,
) -> Result<OrderItem, PlaceError> {
    // The condition in the update is what makes overselling impossible.
    let taken = sqlx::query(
        "UPDATE products SET stock = stock - $1, updated_at = $2
         WHERE id = $3 AND stock >= $1 RETURNING name, price_minor",
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
    let left = sqlx::query("SELECT name, stock FROM products WHERE id = $1")
        .bind(product_id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(PlaceError::UnknownProduct(product_id))?;
    Err(PlaceError::OutOfStock { name: left.try_get(0)?, available: left.try_get(1)?, wanted: quantity })
}

fn product(row: &SqliteRow) -> Result<Product, StoreError> {
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

fn item(row: &SqliteRow) -> Result<OrderItem, sqlx::Error> {
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

/// Waits for the lock file beside the database; dropping the answer gives it up, as does the end of the
/// process in whatever way.
async fn lock_beside(path: &Path) -> Result<File, StoreError> {
    const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
    let mut name = OsString::from(path);
    name.push(".lock");
    let lock = PathBuf::from(name);
    let failed = |source| StoreError::Lock { path: lock.display().to_string(), source };
    let taking = tokio::task::spawn_blocking({
        let lock = lock.clone();
        move || {
            if let Some(parent) = lock.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let file = File::options().create(true).truncate(false).write(true).open(lock)?;
            file.lock()?;
            Ok(file)
        }
    });
    match tokio::time::timeout(LOCK_TIMEOUT, taking).await {
        Ok(Ok(taken)) => taken.map_err(failed),
        Ok(Err(join)) => Err(failed(std::io::Error::other(join))),
        Err(elapsed) => Err(failed(std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed))),
    }
}
