//! Orders.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::{PostgresStore, admin, timestamp};
use crate::order::{Order, OrderItem, Status};
use crate::product::{CURRENCY, Page};
use crate::store::{ChangeError, StatusChange, StoreError};

impl PostgresStore {
    pub(in crate::store) async fn order(&self, number: &str) -> Result<Option<Order>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let row = sqlx::query(
            "SELECT id::bigint, order_number, customer_id::bigint, (total_amount * 100)::bigint, status,
                    (extract(epoch FROM created_at) * 1000)::bigint, session
             FROM orders WHERE order_number = $1",
        )
        .bind(number)
        .fetch_optional(&mut *connection)
        .await?;
        Ok(with_items(&mut connection, row.as_slice()).await?.pop())
    }

    pub(in crate::store) async fn orders(
        &self,
        session: Option<&str>,
        status: Option<Status>,
        page: Page,
    ) -> Result<Vec<Order>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let rows = sqlx::query(
            "SELECT id::bigint, order_number, customer_id::bigint, (total_amount * 100)::bigint, status,
                    (extract(epoch FROM created_at) * 1000)::bigint, session
             FROM orders WHERE ($1::text IS NULL OR session = $1) AND ($2::text IS NULL OR status = $2)
               AND id < $3::int
             ORDER BY id DESC LIMIT $4::bigint",
        )
        .bind(session)
        .bind(status.map(Status::word))
        .bind(page.before as i32)
        .bind(page.limit)
        .fetch_all(&mut *connection)
        .await?;
        with_items(&mut connection, &rows).await
    }

    pub(in crate::store) async fn set_status(
        &self,
        number: &str,
        change: &StatusChange<'_>,
    ) -> Result<(), ChangeError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query("SELECT id, status, session FROM orders WHERE order_number = $1 FOR UPDATE")
            .bind(number)
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(ChangeError::Missing)?;
        let (id, session): (i32, String) = (row.try_get(0)?, row.try_get(2)?);
        if !change.check(status(&row, 1)?, &session)? {
            return Ok(());
        }
        sqlx::query("UPDATE orders SET status = $2, updated_at = NOW() WHERE id = $1")
            .bind(id)
            .bind(change.to.word())
            .execute(&mut *tx)
            .await?;
        if change.to == Status::Cancelled {
            put_back(&mut tx, id).await?;
        }
        if let Some(audit) = change.audit {
            admin::record(&mut tx, audit).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Orders by the idempotency keys they were placed under, with what was asked for.
pub(super) async fn by_keys(
    connection: &mut PgConnection,
    keys: &[&str],
) -> Result<BTreeMap<String, (String, Order)>, StoreError> {
    let rows = sqlx::query(
        "SELECT id::bigint, order_number, customer_id::bigint, (total_amount * 100)::bigint, status,
                (extract(epoch FROM created_at) * 1000)::bigint, session, idempotency_key, idempotency_request
         FROM orders WHERE idempotency_key = ANY ($1::text[])",
    )
    .bind(keys)
    .fetch_all(&mut *connection)
    .await?;
    let orders = with_items(connection, &rows).await?;
    rows.iter()
        .zip(orders)
        .map(|(row, order)| Ok((row.try_get(7)?, (row.try_get(8)?, order))))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(StoreError::from)
}

/// Puts the pieces of a cancelled order back, in the order in which orders lock products. What is no longer sold
/// stays at 0.
async fn put_back(connection: &mut PgConnection, order: i32) -> Result<(), StoreError> {
    sqlx::query(
        "WITH held AS (
           SELECT products.id, order_items.quantity
           FROM products JOIN order_items ON order_items.product_id = products.id
           WHERE order_items.order_id = $1 AND products.deleted_at IS NULL
           ORDER BY products.id FOR UPDATE OF products
         )
         UPDATE products SET stock = stock + held.quantity, updated_at = NOW() FROM held WHERE products.id = held.id",
    )
    .bind(order)
    .execute(connection)
    .await?;
    Ok(())
}

/// Orders with their items, which are read for all of them at once.
async fn with_items(connection: &mut PgConnection, rows: &[PgRow]) -> Result<Vec<Order>, StoreError> {
    let mut orders = Vec::with_capacity(rows.len());
    for row in rows {
        orders.push(Order {
            id: row.try_get(0)?,
            number: row.try_get(1)?,
            customer_id: row.try_get(2)?,
            total_minor: row.try_get(3)?,
            status: status(row, 4)?,
            items: Vec::new(),
            currency: CURRENCY,
            created_at: timestamp(row.try_get(5)?)?,
            session: row.try_get(6)?,
        });
    }
    if orders.is_empty() {
        return Ok(orders);
    }
    let ids: Vec<i32> = orders.iter().map(|order| order.id as i32).collect();
    let lines = sqlx::query(
        "SELECT order_id::bigint, product_id::bigint, product_name, quantity::bigint, (unit_price * 100)::bigint
         FROM order_items WHERE order_id = ANY ($1::int[]) ORDER BY order_id, product_id",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    for line in &lines {
        let id: i64 = line.try_get(0)?;
        if let Some(order) = orders.iter_mut().find(|order| order.id == id) {
            order.items.push(OrderItem {
                product_id: line.try_get(1)?,
                name: line.try_get(2)?,
                quantity: line.try_get(3)?,
                unit_price_minor: line.try_get(4)?,
            });
        }
    }
    Ok(orders)
}

fn status(row: &PgRow, column: usize) -> Result<Status, StoreError> {
    Status::parse(row.try_get(column)?).ok_or(StoreError::Unreadable("an order's status"))
}
