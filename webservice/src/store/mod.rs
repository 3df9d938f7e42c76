//! Where products and orders are kept: one interface, two databases.
//!
//! The two are written apart, in the dialect of each, and held together by one test suite that runs on both.

mod batches;
mod catalogue;
mod error;
mod group;
mod postgres;
mod shelf;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::admin::{AuditEntry, AuditRecord};
use crate::cart::{Cart, CartRefusal};
use crate::config::{Config, Database};
use crate::order::{NewOrder, Order, Status};
use crate::product::{Category, Page, Product, ProductBody, ProductQuery};

pub use batches::{BOUNDS as BATCH_BOUNDS, Counts as BatchCounts};
pub use error::{ChangeError, PlaceError, StoreError};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use group::{Group, PlaceAll};

/// Longest wait for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// An order that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// By this request.
    New(Order),
    /// By an earlier request with the same idempotency key.
    Replayed(Order),
}

/// A wish to change an order's status.
#[derive(Debug, Clone, Copy)]
pub struct StatusChange<'a> {
    /// What it shall become.
    pub to: Status,
    /// The session that must have placed it; administrators may change any.
    pub owner: Option<&'a str>,
    /// The record of an administrator's change.
    pub audit: Option<&'a AuditEntry>,
}

impl StatusChange<'_> {
    /// Whether an order of `session` that is `from` has to be changed; not if it is there already.
    fn check(&self, from: Status, session: &str) -> Result<bool, ChangeError> {
        if self.owner.is_some_and(|owner| owner != session) {
            return Err(ChangeError::Missing);
        }
        if from == self.to {
            return Ok(false);
        }
        if !from.may_become(self.to) || (self.owner.is_some() && from != Status::Placed) {
            return Err(ChangeError::Illegal { from: from.word(), to: self.to.word() });
        }
        Ok(true)
    }
}

/// How business goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sales {
    /// Status, orders, their value in paisa.
    pub by_status: Vec<(String, i64, i64)>,
    /// Identifier, name, pieces and revenue in paisa of what sells best.
    pub best: Vec<(i64, String, i64, i64)>,
    /// Identifier, name and pieces of what is about to run out.
    pub scarce: Vec<(i64, String, i64)>,
}

/// One of the two.
#[derive(Debug)]
enum Either {
    /// Embedded.
    Sqlite(SqliteStore),
    /// A server.
    Postgres(PostgresStore),
}

impl PlaceAll for Either {
    async fn place_all(&self, orders: &[NewOrder]) -> Vec<Result<Placed, PlaceError>> {
        match self {
            Self::Sqlite(store) => store.place_all(orders).await,
            Self::Postgres(store) => store.place_all(orders).await,
        }
    }
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    database: Arc<Either>,
    orders: Arc<Group<Either>>,
}

/// Calls the same method of whichever store there is.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match &*$self.database {
            Either::Sqlite(store) => store.$method($($argument),*).await,
            Either::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

/// The same for questions: asked once more if the connection broke, because they change nothing.
macro_rules! ask {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match either!($self, $method($($argument),*)) {
            Err(error) if error.is_connection_lost() => {
                tracing::warn!(%error, "asking the database again");
                either!($self, $method($($argument),*))
            }
            answer => answer,
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
        let seed = config.seed_catalogue;
        let database = Arc::new(match &config.database {
            Database::Memory => Either::Sqlite(SqliteStore::open(None, seed).await?),
            Database::SqliteFile(path) => Either::Sqlite(SqliteStore::open(Some(path), seed).await?),
            Database::Postgres(options) => {
                Either::Postgres(PostgresStore::open(options, config.pool_size, seed).await?)
            }
        });
        Ok(Self { orders: Group::new(Arc::clone(&database)), database })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// It gives none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        either!(self, ping())
    }

    /// Products, in the order asked for.
    ///
    /// # Errors
    /// The database failed; so for all that follow.
    pub async fn products(&self, query: &ProductQuery) -> Result<Vec<Product>, StoreError> {
        ask!(self, products(query))
    }

    /// One product.
    ///
    /// # Errors
    /// The database failed.
    pub async fn product(&self, id: i64) -> Result<Option<Product>, StoreError> {
        ask!(self, product(id))
    }

    /// Categories in order of their names.
    ///
    /// # Errors
    /// The database failed.
    pub async fn categories(&self) -> Result<Vec<Category>, StoreError> {
        ask!(self, categories())
    }

    /// Adds a product. The audit record's target becomes its identifier.
    ///
    /// # Errors
    /// The database failed.
    pub async fn create_product(
        &self,
        body: &ProductBody,
        audit: &AuditEntry,
    ) -> Result<Product, StoreError> {
        either!(self, create_product(body, audit))
    }

    /// Describes a product anew, if it is still what `expected` wants.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn update_product(
        &self,
        id: i64,
        body: &ProductBody,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<Product, ChangeError> {
        either!(self, update_product(id, body, expected, audit))
    }

    /// Stops selling a product, if it is still what `expected` wants. Orders keep it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn delete_product(
        &self,
        id: i64,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<(), ChangeError> {
        either!(self, delete_product(id, expected, audit))
    }

    /// A session's cart.
    ///
    /// # Errors
    /// The database failed.
    pub async fn cart(&self, session: &str) -> Result<Cart, StoreError> {
        ask!(self, cart(session))
    }

    /// Sets the pieces of a product in a cart; says whether it is the first line, or why it cannot be.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_cart_item(
        &self,
        session: &str,
        product: i64,
        quantity: i64,
    ) -> Result<Result<bool, CartRefusal>, StoreError> {
        either!(self, set_cart_item(session, product, quantity))
    }

    /// Takes one product, or all, out of a cart.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_cart_items(&self, session: &str, product: Option<i64>) -> Result<(), StoreError> {
        either!(self, remove_cart_items(session, product))
    }

    /// Removes what was put into carts longer ago than `older_than`; says how many lines.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_carts(&self, older_than: Duration) -> Result<u64, StoreError> {
        either!(self, forget_carts(older_than))
    }

    /// Places an order: takes all its pieces from stock and records it, or changes nothing. Orders that arrive at
    /// the same time are written together, each with its own answer.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(&self, order: NewOrder) -> Result<Placed, PlaceError> {
        self.orders.place(order).await
    }

    /// The order with this number.
    ///
    /// # Errors
    /// The database failed.
    pub async fn order(&self, number: &str) -> Result<Option<Order>, StoreError> {
        ask!(self, order(number))
    }

    /// Orders, newest first, of a session or of all, in one status or in any.
    ///
    /// # Errors
    /// The database failed.
    pub async fn orders(
        &self,
        session: Option<&str>,
        status: Option<Status>,
        page: Page,
    ) -> Result<Vec<Order>, StoreError> {
        ask!(self, orders(session, status, page))
    }

    /// Changes an order's status; a cancelled order's pieces go back into stock.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn set_status(&self, number: &str, change: &StatusChange<'_>) -> Result<(), ChangeError> {
        either!(self, set_status(number, change))
    }

    /// Audit records, newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn audit(&self, page: Page) -> Result<Vec<AuditRecord>, StoreError> {
        ask!(self, audit(page))
    }

    /// How business goes; best sellers since `since`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sales(&self, since: jiff::Timestamp) -> Result<Sales, StoreError> {
        ask!(self, sales(since))
    }

    /// Connections in use and idle.
    pub fn connections(&self) -> (u64, u64) {
        let (size, idle) = match &*self.database {
            Either::Sqlite(store) => store.connections(),
            Either::Postgres(store) => store.connections(),
        };
        let idle = idle as u64;
        (u64::from(size).saturating_sub(idle), idle)
    }

    /// Connections that there can be.
    pub fn most_connections(&self) -> u64 {
        u64::from(match &*self.database {
            Either::Sqlite(store) => store.most_connections(),
            Either::Postgres(store) => store.most_connections(),
        })
    }

    /// How many orders were written together, and how many wait.
    pub fn batches(&self) -> BatchCounts {
        self.orders.counts()
    }

    /// Waits for orders and queries to end and closes all connections.
    pub async fn close(&self) {
        self.orders.finish().await;
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
