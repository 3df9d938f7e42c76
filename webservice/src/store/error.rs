//! What can go wrong with the database, and with what is asked of it.

use std::sync::Arc;

use sqlx::migrate::MigrateError;

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
    /// The same few things were fought over for too long.
    #[error("too many want the same at once; try again")]
    Contended,
    /// The database took longer than it ever should.
    #[error("the database gives no answer; check the network between it and the shop")]
    Silent,
    /// Whoever was at work ended before it was done.
    #[error("the work was interrupted; look whether it was done before trying again")]
    Interrupted,
    /// What was done for several at once failed for all of them.
    #[error(transparent)]
    Shared(Arc<StoreError>),
    /// A stored value has no meaning.
    #[error("the database holds a value that the shop cannot read: {0}")]
    Unreadable(&'static str),
}

impl StoreError {
    /// Whether trying again shortly may help: the database is busy, full, restarting or out of reach.
    pub fn is_passing(&self) -> bool {
        let error = match self {
            Self::Database(error) => error,
            Self::Contended | Self::Silent => return true,
            Self::Shared(error) => return error.is_passing(),
            _ => return false,
        };
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing_code(&code)),
            _ => false,
        }
    }
}

impl StoreError {
    /// The same error for `count` orders.
    pub(super) fn for_each(self, count: usize) -> impl Iterator<Item = Self> {
        let shared = Arc::new(self);
        std::iter::repeat_n(shared, count).map(Self::Shared)
    }

    /// Whether the database refused what it was given, and so changed nothing.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(_))) && !self.is_passing()
    }

    /// Whether the connection was lost, so that a question that changes nothing may be asked again on another.
    pub(super) fn is_connection_lost(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Io(_)) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| ["57P01", "57P02", "08006"].contains(&&*code))
            }
            _ => false,
        }
    }

    /// Whether the database undid a transaction because of others (PostgreSQL's class 40): nothing was changed, so
    /// it may be tried again.
    pub(super) fn is_undone(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code.len() == 5 && code.starts_with("40"))
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
    /// There is nothing in the cart.
    #[error("the cart is empty")]
    EmptyCart,
    /// The idempotency key belongs to a different order.
    #[error("the idempotency key was used for a different order")]
    KeyReused,
    /// The order costs more than can be stored.
    #[error("the order costs more than the shop can handle at once")]
    TooExpensive,
    /// More orders wait already than can be placed soon.
    #[error("more want to order than can be served at once; try again shortly")]
    Overloaded,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an administrator's or a customer's change was not made. Nothing was changed in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such thing.
    #[error("there is no such thing")]
    Missing,
    /// It is not what the client thinks it is.
    #[error("it was changed meanwhile")]
    Changed,
    /// The order cannot go there.
    #[error("an order that is {from} cannot become {to}")]
    Illegal {
        /// What it is.
        from: &'static str,
        /// What it should have become.
        to: &'static str,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<sqlx::Error> for PlaceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
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
