//! What administrators see and leave behind.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{PostgresStore, timestamp};
use crate::admin::{AuditEntry, AuditRecord};
use crate::product::Page;
use crate::store::{Sales, StoreError};

impl PostgresStore {
    pub(in crate::store) async fn audit(&self, page: Page) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT id::bigint, (extract(epoch FROM at) * 1000)::bigint, actor, client, request_id, action, target,
                    detail
             FROM audit_log WHERE id < $1::int ORDER BY id DESC LIMIT $2::bigint",
        )
        .bind(page.before as i32)
        .bind(page.limit)
        .fetch_all(&self.pool)
        .await?;
        let record = |row: &sqlx::postgres::PgRow| {
            Ok(AuditRecord {
                id: row.try_get(0)?,
                at: timestamp(row.try_get(1)?)?,
                actor: row.try_get(2)?,
                client: row.try_get(3)?,
                request_id: row.try_get(4)?,
                action: row.try_get(5)?,
                target: row.try_get(6)?,
                detail: serde_json::from_str(row.try_get(7)?)
                    .map_err(|_| StoreError::Unreadable("an audit record"))?,
            })
        };
        rows.iter().map(record).collect()
    }

    pub(in crate::store) async fn sales(&self, since: jiff::Timestamp) -> Result<Sales, StoreError> {
        let by_status = sqlx::query(
            "SELECT status, count(*), (sum(total_amount) * 100)::bigint FROM orders GROUP BY status",
        )
        .fetch_all(&self.pool)
        .await?;
        let best = sqlx::query(
            "SELECT product_id::bigint, min(product_name), sum(quantity)::bigint,
                    (sum(quantity * unit_price) * 100)::bigint
             FROM order_items JOIN orders ON orders.id = order_id
             WHERE status <> 'cancelled' AND created_at >= to_timestamp($1::double precision / 1000)
             GROUP BY product_id ORDER BY 3 DESC, 1 LIMIT 5",
        )
        .bind(since.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        let scarce = sqlx::query(
            "SELECT id::bigint, name, stock::bigint FROM products WHERE deleted_at IS NULL ORDER BY stock, id LIMIT 5",
        )
        .fetch_all(&self.pool)
        .await?;
        let four = |row: &sqlx::postgres::PgRow| {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        };
        let three = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let status = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        Ok(Sales {
            by_status: by_status.iter().map(status).collect::<Result<_, sqlx::Error>>()?,
            best: best.iter().map(four).collect::<Result<_, sqlx::Error>>()?,
            scarce: scarce.iter().map(three).collect::<Result<_, sqlx::Error>>()?,
        })
    }
}

/// Writes an audit record in the transaction of what it tells of.
pub(super) async fn record(connection: &mut PgConnection, entry: &AuditEntry) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_log (at, actor, client, request_id, action, target, detail)
         VALUES (to_timestamp($1::double precision / 1000), $2, $3, $4, $5, $6, $7)",
    )
    .bind(entry.at.as_millisecond())
    .bind(&entry.actor)
    .bind(&entry.client)
    .bind(&entry.request_id)
    .bind(entry.action)
    .bind(&entry.target)
    .bind(entry.detail.to_string())
    .execute(connection)
    .await?;
    Ok(())
}
