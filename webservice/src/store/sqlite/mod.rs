//! The embedded database.
//!
//! A file may be shared by several shops of one host: write-ahead logging lets them read while one writes,
//! writers queue for `BUSY_TIMEOUT`, and a lock file lets only one at a time set the database up.

mod admin;
mod carts;
mod orders;
mod place;
mod products;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use super::{ACQUIRE_TIMEOUT, StoreError, catalogue, migrator};

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "shop", include_str!("../../../migrations/sqlite/0001_shop.sql")),
    (2, "carts audit", include_str!("../../../migrations/sqlite/0002_carts_audit.sql")),
];

/// How long a writer waits for another. Above the acquire timeout, so that a queue shows as a busy pool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(8);

/// Reads run beside each other; more connections than this only wait for the disk.
const FILE_CONNECTIONS: u32 = 4;

/// A transaction that writes. Dropping it undoes it.
struct Writing<'a> {
    tx: Transaction<'a, Sqlite>,
    // Given up after the transaction has ended.
    _turn: MutexGuard<'a, ()>,
}

/// A SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    // Taken before writing: of all connections at most one then waits for the file's write lock, and reads
    // and readiness never queue behind buyers.
    writer: Mutex<()>,
    most_connections: u32,
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
        let most_connections = pool.options().get_max_connections();
        let store = Self { pool, writer: Mutex::new(()), most_connections };
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

    pub(super) fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    pub(super) fn most_connections(&self) -> u32 {
        self.most_connections
    }

    /// Waits for this process's turn to write and begins. IMMEDIATE takes the write lock at once: a transaction that
    /// starts by reading and then wants to write fails instead of waiting when another has written in between.
    async fn write(&self) -> Result<Writing<'_>, StoreError> {
        let turn = self.writer.lock().await;
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Writing { tx, _turn: turn })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
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
