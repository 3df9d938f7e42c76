//! Orders.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, admin, timestamp};
use crate::order::{Order, OrderItem, Status};
use crate::product::{CURRENCY, Page};
use crate::store::{ChangeError, StatusChange, StoreError};

impl SqliteStore {
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

/// Orders by the idempotency keys they were placed under, with what was asked for.
pub(super) async fn by_keys(
    connection: &mut SqliteConnection,
    keys: &[&str],
) -> Result<BTreeMap<String, (String, Order)>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, order_number, customer_id, total_minor, status, created_at, session,
                idempotency_key, idempotency_request
         FROM orders WHERE idempotency_key IN (SELECT value FROM json_each($1))",
    )
    .bind(json!(keys).to_string())
    .fetch_all(&mut *connection)
    .await?;
    let mut orders = BTreeMap::new();
    for row in &rows {
        let order = with_items(connection, row).await?;
        orders.insert(row.try_get(7)?, (row.try_get(8)?, order));
    }
    Ok(orders)
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
