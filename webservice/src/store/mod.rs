//! Where products and orders are kept: one interface, two databases.
//!
//! The two are written apart, in the dialect of each, and held together by one test suite that runs on both.

mod catalogue;
mod postgres;
mod sqlite;

use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::config::{Config, Database};
use crate::order::{NewOrder, Order};
use crate::product::{Category, Product, ProductQuery};

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Longest wait for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database cannot be used right now, or gave something unexpected.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Opening or a query failed.
    #[error("the database failed: {0}; check that it is running and reachable")]
    Database(#[from] sqlx::Error),
    /// The tables could not be brought up to date.
    #[error("the tables could not be migrated: {0}; check the database user's rights")]
    Migrate(#[from] MigrateError),
    /// The lock beside the SQLite file could not be taken.
    #[error(
        "the lock file {path} cannot be taken: {source}; check that its directory exists and is writable"
    )]
    Lock {
        /// The lock file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A stored value has no meaning.
    #[error("the database holds a value that the shop cannot read: {0}")]
    Unreadable(&'static str),
}

impl StoreError {
    /// Whether trying again shortly may help: the database is busy, full, restarting or out of reach.
    pub fn is_passing(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing_code(&code)),
            _ => false,
        }
    }
}

/// SQLite's numbers (5 busy, 6 locked, in the lowest byte) and PostgreSQL's five characters: classes 08
/// connection, 40 transaction rollback, 53 resources, and lock, statement and shutdown timeouts.
fn is_passing_code(code: &str) -> bool {
    if code.len() == 5 {
        let class = ["08", "40", "53"].iter().any(|class| code.starts_with(class));
        return class || ["55P03", "57014", "57P01", "57P02", "57P03"].contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Why an order was not placed. Nothing was changed in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no such product.
    #[error("there is no product {0}")]
    UnknownProduct(i64),
    /// Fewer pieces are left than asked for.
    #[error("{available} of {name:?} left, {wanted} asked for")]
    OutOfStock {
        /// Name of the product.
        name: String,
        /// Pieces left.
        available: i64,
        /// Pieces asked for.
        wanted: i64,
    },
    /// The idempotency key belongs to a different order.
    #[error("the idempotency key was used for a different order")]
    KeyReused,
    /// The order costs more than can be stored.
    #[error("the order costs more than the shop can handle at once")]
    TooExpensive,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for PlaceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An order that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// By this request.
    New(Order),
    /// By an earlier request with the same idempotency key.
    Replayed(Order),
}

/// The open database.
#[derive(Debug)]
pub enum Store {
    /// Embedded.
    Sqlite(SqliteStore),
    /// A server.
    Postgres(PostgresStore),
}

/// Calls the same method of whichever store there is.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self {
            Self::Sqlite(store) => store.$method($($argument),*).await,
            Self::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

impl Store {
    /// Connects, brings the tables up to date and, if asked for, fills an empty catalogue. Safe when several
    /// shops start at once on one database.
    ///
    /// # Errors
    /// The database cannot be reached, locked or migrated.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        match &config.database {
            Database::Memory => Ok(Self::Sqlite(SqliteStore::open(None, config.seed_catalogue).await?)),
            Database::SqliteFile(path) => {
                Ok(Self::Sqlite(SqliteStore::open(Some(path), config.seed_catalogue).await?))
            }
            Database::Postgres(options) => {
                Ok(Self::Postgres(PostgresStore::open(options, config.seed_catalogue).await?))
            }
        }
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// It gives none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        either!(self, ping())
    }

    /// Products in order of their identifiers.
    ///
    /// # Errors
    /// The database failed; so for all that follow.
    pub async fn products(&self, query: &ProductQuery) -> Result<Vec<Product>, StoreError> {
        either!(self, products(query))
    }

    /// One product.
    ///
    /// # Errors
    /// The database failed.
    pub async fn product(&self, id: i64) -> Result<Option<Product>, StoreError> {
        either!(self, product(id))
    }

    /// Categories in order of their names.
    ///
    /// # Errors
    /// The database failed.
    pub async fn categories(&self) -> Result<Vec<Category>, StoreError> {
        either!(self, categories())
    }

    /// Places an order: takes all its pieces from stock and records it, or changes nothing.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(&self, order: &NewOrder) -> Result<Placed, PlaceError> {
        either!(self, place(order))
    }

    /// The order with this number.
    ///
    /// # Errors
    /// The database failed.
    pub async fn order(&self, number: &str) -> Result<Option<Order>, StoreError> {
        either!(self, order(number))
    }

    /// Orders of a session, newest first, those before identifier `before`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn orders(&self, session: &str, before: i64, limit: i64) -> Result<Vec<Order>, StoreError> {
        either!(self, orders(session, before, limit))
    }

    /// Connections in use and idle.
    pub fn connections(&self) -> (u64, u64) {
        let (size, idle) = match self {
            Self::Sqlite(store) => store.connections(),
            Self::Postgres(store) => store.connections(),
        };
        let idle = idle as u64;
        (u64::from(size).saturating_sub(idle), idle)
    }

    /// Waits for queries to end and closes all connections.
    pub async fn close(&self) {
        either!(self, close());
    }
}

/// Migrations from `(version, description, sql)`.
///
/// Ones that this version does not know are accepted: after a rollback an older shop must start on a
/// database that a newer one has extended.
fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|(version, description, sql)| {
        Migration::new(*version, (*description).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.set_ignore_missing(true);
    migrator
}

/// Whether a query failed because a unique value exists already.
fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for code in ["5", "6", "261", "517", "08006", "40001", "40P01", "53300", "55P03", "57014", "57P03"] {
            assert!(is_passing_code(code), "{code}");
        }
        for code in ["1", "19", "2067", "23505", "42P01", "57000", "", "x"] {
            assert!(!is_passing_code(code), "{code}");
        }
    }
}
