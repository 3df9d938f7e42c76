//! Placing a single order, which is cheaper for the database than a batch of one.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{PostgresStore, carts};
use crate::order::{NewOrder, Order, OrderItem};
use crate::store::StoreError;
use crate::store::shelf::{Bill, Wish};

/// Takes all pieces and writes the order, or changes nothing, in one round trip.
///
/// - `held` locks the products in the order of their identifiers, so that two orders cannot wait for each other.
/// - The condition on the stock in `taken` is what makes overselling impossible.
/// - If a piece is missing, the order's total is NULL, which its column forbids: the whole statement is undone.
const PLACE: &str = "
    WITH wish AS (
      SELECT * FROM unnest($1::int[], $2::int[]) AS wish (product_id, quantity)
    ), held AS (
      SELECT id FROM products WHERE id = ANY ($1::int[]) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE
    ), taken AS (
      UPDATE products SET stock = stock - wish.quantity, updated_at = to_timestamp($8::double precision / 1000)
      FROM held JOIN wish ON wish.product_id = held.id
      WHERE products.id = held.id AND products.stock >= wish.quantity
      RETURNING products.id, products.name, products.price, wish.quantity
    ), placed AS (
      INSERT INTO orders (order_number, customer_id, session, total_amount, status, idempotency_key,
                          idempotency_request, created_at)
      SELECT $3, $4::bigint, $5, CASE WHEN count(*) = cardinality($1::int[]) THEN sum(price * quantity) END,
             'placed', $6, $7, to_timestamp($8::double precision / 1000)
      FROM taken
      RETURNING id, total_amount
    ), lines AS (
      INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price)
      SELECT placed.id, taken.id, taken.name, taken.quantity, taken.price FROM placed, taken
      RETURNING product_id, product_name, quantity, unit_price
    )
    SELECT placed.id::bigint, (placed.total_amount * 100)::bigint, lines.product_id::bigint, lines.product_name,
           lines.quantity::bigint, (lines.unit_price * 100)::bigint
    FROM placed, lines ORDER BY lines.product_id";

const NOT_NULL_VIOLATION: &str = "23502";
const OUT_OF_RANGE: &str = "22003";
const UNIQUE_VIOLATION: &str = "23505";

impl PostgresStore {
    /// Places an order. If something keeps it from being placed, nothing is changed and nothing is given: missing
    /// pieces, a key that was used, an empty cart, too high a sum.
    pub(super) async fn place_alone(&self, order: &NewOrder) -> Result<Option<Order>, StoreError> {
        if !order.from_cart {
            let mut connection = self.pool.acquire().await?;
            return insert(&mut connection, order, &order.items).await;
        }
        let mut tx = self.pool.begin().await?;
        let items = carts::take(&mut tx, &order.session).await?;
        if items.is_empty() {
            return Ok(None);
        }
        let placed = insert(&mut tx, order, &items).await?;
        if placed.is_some() {
            tx.commit().await?;
        }
        Ok(placed)
    }
}

async fn insert(
    connection: &mut PgConnection,
    order: &NewOrder,
    items: &Wish,
) -> Result<Option<Order>, StoreError> {
    let (ids, quantities): (Vec<i32>, Vec<i32>) =
        items.iter().map(|(id, quantity)| (*id as i32, *quantity as i32)).unzip();
    let now = order.now.as_millisecond();
    let placed = sqlx::query(PLACE)
        .bind(ids)
        .bind(quantities)
        .bind(&order.number)
        .bind(order.customer_id)
        .bind(&order.session)
        .bind(&order.idempotency_key)
        .bind(order.idempotency_key.as_ref().map(|_| order.fingerprint()))
        .bind(now)
        .fetch_all(connection)
        .await;
    let rows = match placed {
        Ok(rows) => rows,
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
            let known = [NOT_NULL_VIOLATION, OUT_OF_RANGE, UNIQUE_VIOLATION].contains(&&*code);
            return if known { Ok(None) } else { Err(error.into()) };
        }
    };
    let first = rows.first().ok_or(StoreError::Unreadable("an order without lines"))?;
    let (id, total_minor) = (first.try_get(0)?, first.try_get(1)?);
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(OrderItem {
            product_id: row.try_get(2)?,
            name: row.try_get(3)?,
            quantity: row.try_get(4)?,
            unit_price_minor: row.try_get(5)?,
        });
    }
    Ok(Some(Bill { items, total_minor }.into_order(order, id)))
}
