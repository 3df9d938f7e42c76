//! Orders.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, admin, carts, timestamp};
use crate::order::{MAX_TOTAL_MINOR, NewOrder, Order, OrderItem, Status};
use crate::product::{CURRENCY, Page};
use crate::store::{ChangeError, PlaceError, Placed, StatusChange, StoreError, is_duplicate};

impl SqliteStore {
    pub(in crate::store) async fn place(&self, order: &NewOrder) -> Result<Placed, PlaceError> {
        if let Some(earlier) = self.replay(order).await? {
            return Ok(Placed::Replayed(earlier));
        }
        let error = match self.insert(order).await {
            Ok(placed) => return Ok(Placed::New(placed)),
            Err(error) => error,
        };
        let lost_race = match &error {
            PlaceError::Store(StoreError::Database(error)) => is_duplicate(error),
            // The request that was first took the last pieces, or the cart.
            PlaceError::OutOfStock { .. } | PlaceError::EmptyCart => true,
            _ => false,
        };
        // The same key came in twice at once and the other request was first.
        if lost_race && let Some(earlier) = self.replay(order).await? {
            return Ok(Placed::Replayed(earlier));
        }
        Err(error)
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
        let mut writing = self.write().await?;
        let tx = &mut writing.tx;
        let now = order.now.as_millisecond();
        let wish = if order.from_cart { carts::take(tx, &order.session).await? } else { order.items.clone() };
        if wish.is_empty() {
            return Err(PlaceError::EmptyCart);
        }
        let items = take(tx, &wish, now).await?;
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
        .fetch_one(&mut **tx)
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
            .execute(&mut **tx)
            .await?;
        }
        writing.tx.commit().await?;
        Ok(Order {
            number: order.number.clone(),
            customer_id: order.customer_id,
            status: Status::Placed,
            items,
            total_minor,
            currency: CURRENCY,
            created_at: timestamp(now)?,
            id,
            session: order.session.clone(),
        })
    }

    pub(in crate::store) async fn order(&self, number: &str) -> Result<Option<Order>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let row = sqlx::query(
            "SELECT id, order_number, customer_id, total_minor, status, created_at, session
             FROM orders WHERE order_number = $1",
        )
        .bind(number)
        .fetch_optional(&mut *connection)
        .await?;
        match row {
            Some(row) => Ok(Some(with_items(&mut connection, &row).await?)),
            None => Ok(None),
        }
    }

    pub(in crate::store) async fn orders(
        &self,
        session: Option<&str>,
        status: Option<Status>,
        page: Page,
    ) -> Result<Vec<Order>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let rows = sqlx::query(
            "SELECT id, order_number, customer_id, total_minor, status, created_at, session
             FROM orders WHERE ($1 IS NULL OR session = $1) AND ($2 IS NULL OR status = $2) AND id < $3
             ORDER BY id DESC LIMIT $4",
        )
        .bind(session)
        .bind(status.map(Status::word))
        .bind(page.before)
        .bind(page.limit)
        .fetch_all(&mut *connection)
        .await?;
        let mut orders = Vec::with_capacity(rows.len());
        for row in &rows {
            orders.push(with_items(&mut connection, row).await?);
        }
        Ok(orders)
    }

    pub(in crate::store) async fn set_status(
        &self,
        number: &str,
        change: &StatusChange<'_>,
    ) -> Result<(), ChangeError> {
        let mut writing = self.write().await?;
        let tx = &mut writing.tx;
        let row = sqlx::query("SELECT id, status, session FROM orders WHERE order_number = $1")
            .bind(number)
            .fetch_optional(&mut **tx)
            .await?
            .ok_or(ChangeError::Missing)?;
        let (id, session): (i64, String) = (row.try_get(0)?, row.try_get(2)?);
        if !change.check(status(&row, 1)?, &session)? {
            return Ok(());
        }
        let now = Timestamp::now().as_millisecond();
        sqlx::query("UPDATE orders SET status = $2, updated_at = $3 WHERE id = $1")
            .bind(id)
            .bind(change.to.word())
            .bind(now)
            .execute(&mut **tx)
            .await?;
        if change.to == Status::Cancelled {
            // What is no longer sold stays at 0.
            sqlx::query(
                "UPDATE products SET stock = stock + order_items.quantity, updated_at = $2 FROM order_items
                 WHERE order_items.order_id = $1 AND products.id = order_items.product_id AND deleted_at IS NULL",
            )
            .bind(id)
            .bind(now)
            .execute(&mut **tx)
            .await?;
        }
        if let Some(audit) = change.audit {
            admin::record(tx, audit).await?;
        }
        Ok(writing.tx.commit().await?)
    }
}

/// Takes pieces from stock, or says why not.
async fn take(
    connection: &mut SqliteConnection,
    wish: &BTreeMap<i64, i64>,
    now: i64,
) -> Result<Vec<OrderItem>, PlaceError> {
    let mut items = Vec::with_capacity(wish.len());
    for (&product_id, &quantity) in wish {
        // The condition in the update is what makes overselling impossible.
        let taken = sqlx::query(
            "UPDATE products SET stock = stock - $1, updated_at = $2
             WHERE id = $3 AND stock >= $1 AND deleted_at IS NULL RETURNING name, price_minor",
        )
        .bind(quantity)
        .bind(now)
        .bind(product_id)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = taken {
            let (name, unit_price_minor) = (row.try_get(0)?, row.try_get(1)?);
            items.push(OrderItem { product_id, name, quantity, unit_price_minor });
            continue;
        }
        let left = sqlx::query("SELECT name, stock FROM products WHERE id = $1 AND deleted_at IS NULL")
            .bind(product_id)
            .fetch_optional(&mut *connection)
            .await?
            .ok_or(PlaceError::UnknownProduct(product_id))?;
        let (name, available) = (left.try_get(0)?, left.try_get(1)?);
        return Err(PlaceError::OutOfStock { name, available, wanted: quantity });
    }
    Ok(items)
}

async fn with_items(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<Order, StoreError> {
    let id: i64 = row.try_get(0)?;
    let rows = sqlx::query(
        "SELECT product_id, product_name, quantity, unit_price_minor
         FROM order_items WHERE order_id = $1 ORDER BY product_id",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(OrderItem {
            product_id: row.try_get(0)?,
            name: row.try_get(1)?,
            quantity: row.try_get(2)?,
            unit_price_minor: row.try_get(3)?,
        });
    }
    Ok(Order {
        number: row.try_get(1)?,
        customer_id: row.try_get(2)?,
        status: status(row, 4)?,
        items,
        total_minor: row.try_get(3)?,
        currency: CURRENCY,
        created_at: timestamp(row.try_get(5)?)?,
        id,
        session: row.try_get(6)?,
    })
}

fn status(row: &SqliteRow, column: usize) -> Result<Status, StoreError> {
    Status::parse(row.try_get(column)?).ok_or(StoreError::Unreadable("an order's status"))
}
