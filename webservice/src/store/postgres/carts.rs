//! Carts.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use crate::cart::{Cart, CartItem, CartRefusal};
use crate::order::MAX_ITEMS;
use crate::store::StoreError;
use crate::store::shelf::Wish;

impl PostgresStore {
    pub(in crate::store) async fn cart(&self, session: &str) -> Result<Cart, StoreError> {
        let rows = sqlx::query(
            "SELECT products.id::bigint, name, quantity::bigint, (price * 100)::bigint, stock::bigint
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
        let mut tx = self.pool.begin().await?;
        // Two requests of one session take turns, or both could add the last line that fits.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(session)
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM products WHERE id = $2::int AND deleted_at IS NULL),
                    count(*), count(*) FILTER (WHERE product_id = $2::int)
             FROM cart_items WHERE session = $1",
        )
        .bind(session)
        .bind(product as i32)
        .fetch_one(&mut *tx)
        .await?;
        let (sold, lines, same): (bool, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !sold {
            return Ok(Err(CartRefusal::UnknownProduct));
        }
        if same == 0 && lines >= MAX_ITEMS as i64 {
            return Ok(Err(CartRefusal::Full));
        }
        sqlx::query(
            "INSERT INTO cart_items (session, product_id, quantity, updated_at) VALUES ($1, $2::int, $3::bigint, NOW())
             ON CONFLICT (session, product_id) DO UPDATE SET quantity = excluded.quantity, updated_at = NOW()",
        )
        .bind(session)
        .bind(product as i32)
        .bind(quantity)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Ok(lines == 0))
    }

    /// Removes one product or all.
    pub(in crate::store) async fn remove_cart_items(
        &self,
        session: &str,
        product: Option<i64>,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM cart_items WHERE session = $1 AND ($2::int IS NULL OR product_id = $2)")
            .bind(session)
            .bind(product.map(|id| id as i32))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(in crate::store) async fn forget_carts(&self, older_than: Duration) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM cart_items WHERE updated_at < NOW() - make_interval(secs => $1)")
            .bind(older_than.as_secs_f64())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

/// What is in the carts of these sessions. The lines stay as they are until the transaction ends, except that others
/// may be added.
pub(super) async fn hold(
    connection: &mut PgConnection,
    sessions: &[&str],
) -> Result<BTreeMap<String, Wish>, StoreError> {
    // In a fixed order, so that two shops cannot wait for each other.
    let rows = sqlx::query(
        "SELECT session, product_id::bigint, quantity::bigint FROM cart_items WHERE session = ANY ($1::text[])
         ORDER BY session, product_id FOR UPDATE",
    )
    .bind(sessions)
    .fetch_all(connection)
    .await?;
    let mut carts = BTreeMap::<String, Wish>::new();
    for row in &rows {
        carts.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(carts)
}

/// Empties a session's cart and gives what was in it. Locks its lines in the same order as [`hold`].
pub(super) async fn take(connection: &mut PgConnection, session: &str) -> Result<Wish, StoreError> {
    let rows = sqlx::query(
        "WITH held AS (
           SELECT product_id FROM cart_items WHERE session = $1 ORDER BY product_id FOR UPDATE
         )
         DELETE FROM cart_items USING held
         WHERE session = $1 AND cart_items.product_id = held.product_id
         RETURNING cart_items.product_id::bigint, quantity::bigint",
    )
    .bind(session)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?)
}
