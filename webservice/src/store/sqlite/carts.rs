//! Carts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::SqliteStore;
use crate::cart::{Cart, CartItem, CartRefusal};
use crate::order::MAX_ITEMS;
use crate::store::StoreError;
use crate::store::shelf::Wish;

impl SqliteStore {
    pub(in crate::store) async fn cart(&self, session: &str) -> Result<Cart, StoreError> {
        let rows = sqlx::query(
            "SELECT products.id, name, quantity, price_minor, stock
             FROM cart_items JOIN products ON products.id = product_id
             WHERE session = $1 AND deleted_at IS NULL ORDER BY products.id",
        )
        .bind(session)
        .fetch_all(&self.pool)
        .await?;
        let items = rows.iter().map(|row| {
            Ok(CartItem {
                product_id: row.try_get(0)?,
                name: row.try_get(1)?,
                quantity: row.try_get(2)?,
                unit_price_minor: row.try_get(3)?,
                stock: row.try_get(4)?,
            })
        });
        Ok(Cart::new(items.collect::<Result<_, sqlx::Error>>()?))
    }

    /// Puts pieces of a product into a cart, and says whether it is the cart's first.
    pub(in crate::store) async fn set_cart_item(
        &self,
        session: &str,
        product: i64,
        quantity: i64,
    ) -> Result<Result<bool, CartRefusal>, StoreError> {
        let mut writing = self.write().await?;
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM products WHERE id = $2 AND deleted_at IS NULL),
                    count(*), count(*) FILTER (WHERE product_id = $2)
             FROM cart_items WHERE session = $1",
        )
        .bind(session)
        .bind(product)
        .fetch_one(&mut *writing.tx)
        .await?;
        let (sold, lines, same): (bool, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !sold {
            return Ok(Err(CartRefusal::UnknownProduct));
        }
        if same == 0 && lines >= MAX_ITEMS as i64 {
            return Ok(Err(CartRefusal::Full));
        }
        sqlx::query(
            "INSERT INTO cart_items (session, product_id, quantity, updated_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (session, product_id)
             DO UPDATE SET quantity = excluded.quantity, updated_at = excluded.updated_at",
        )
        .bind(session)
        .bind(product)
        .bind(quantity)
        .bind(Timestamp::now().as_millisecond())
        .execute(&mut *writing.tx)
        .await?;
        writing.tx.commit().await?;
        Ok(Ok(lines == 0))
    }

    /// Removes one product or all.
    pub(in crate::store) async fn remove_cart_items(
        &self,
        session: &str,
        product: Option<i64>,
    ) -> Result<(), StoreError> {
        let mut writing = self.write().await?;
        sqlx::query("DELETE FROM cart_items WHERE session = $1 AND ($2 IS NULL OR product_id = $2)")
            .bind(session)
            .bind(product)
            .execute(&mut *writing.tx)
            .await?;
        Ok(writing.tx.commit().await?)
    }

    pub(in crate::store) async fn forget_carts(&self, older_than: Duration) -> Result<u64, StoreError> {
        let mut writing = self.write().await?;
        let limit = Timestamp::now().as_millisecond().saturating_sub(older_than.as_millis() as i64);
        let done = sqlx::query("DELETE FROM cart_items WHERE updated_at < $1")
            .bind(limit)
            .execute(&mut *writing.tx)
            .await?;
        writing.tx.commit().await?;
        Ok(done.rows_affected())
    }
}

/// What is in the carts of these sessions.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    sessions: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Wish>, StoreError> {
    let rows = sqlx::query(
        "SELECT session, product_id, quantity FROM cart_items WHERE session IN (SELECT value FROM json_each($1))",
    )
    .bind(json!(sessions).to_string())
    .fetch_all(connection)
    .await?;
    let mut carts = BTreeMap::<String, Wish>::new();
    for row in &rows {
        carts.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(carts)
}

/// Empties the carts of these sessions.
pub(super) async fn empty(
    connection: &mut SqliteConnection,
    sessions: &BTreeSet<&str>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM cart_items WHERE session IN (SELECT value FROM json_each($1))")
        .bind(json!(sessions).to_string())
        .execute(connection)
        .await?;
    Ok(())
}
