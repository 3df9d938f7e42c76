//! Orders.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::{PostgresStore, admin, carts, timestamp};
use crate::order::{NewOrder, Order, OrderItem, Status};
use crate::product::{CURRENCY, Page};
use crate::store::{ChangeError, PlaceError, Placed, StatusChange, StoreError};

/// How often an order is tried when its pieces were gone and are back a moment later.
const ATTEMPTS: usize = 3;

/// Takes all pieces and writes the order, or changes nothing, in one round trip.
///
/// - `held` locks the products in the order of their identifiers, so that two orders cannot wait for each other.
/// - The condition on the stock in `taken` is what makes overselling impossible.
/// - If a piece is missing, the order's total is NULL, which its column forbids: the whole statement is undone.
const PLACE: &str = "
    WITH wish AS (
      SELECT * FROM unnest($1::int[], $2::int[]) AS wish (product_id, quantity)
    ), held AS (
      SELECT id FROM products WHERE id = ANY ($1::int[]) AND deleted_at IS NULL ORDER BY id FOR UPDATE
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

impl PostgresStore {
    pub(in crate::store) async fn place(&self, order: &NewOrder) -> Result<Placed, PlaceError> {
        for _ in 0..ATTEMPTS {
            let placed = if order.from_cart {
                self.check_out(order).await
            } else {
                let mut connection = self.pool.acquire().await?;
                insert(&mut connection, order).await
            };
            let error = match placed {
                Ok(placed) => return Ok(Placed::New(placed)),
                Err(error) => error,
            };
            // Whatever failed, an earlier request with the same key may be the reason: it took the last piece,
            // emptied the cart or won a race.
            if let Some(earlier) = self.replay(order).await? {
                return Ok(Placed::Replayed(earlier));
            }
            match error {
                PlaceError::Missing(items) => self.explain(&items).await?,
                PlaceError::Store(error) if error.is_undone() => {}
                error => return Err(error),
            }
        }
        Err(StoreError::Contended.into())
    }

    /// Orders the session's cart and empties it.
    async fn check_out(&self, order: &NewOrder) -> Result<Order, PlaceError> {
        let mut tx = self.pool.begin().await?;
        let items = carts::take(&mut tx, &order.session).await?;
        if items.is_empty() {
            return Err(PlaceError::EmptyCart);
        }
        let placed = insert(&mut tx, &NewOrder { items, ..order.clone() }).await?;
        tx.commit().await?;
        Ok(placed)
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

    /// Says which wish cannot be fulfilled; nothing if all can by now.
    async fn explain(&self, items: &std::collections::BTreeMap<i64, i64>) -> Result<(), PlaceError> {
        let ids: Vec<i32> = items.keys().map(|id| *id as i32).collect();
        let rows = sqlx::query(
            "SELECT id::bigint, name, stock::bigint FROM products WHERE id = ANY ($1::int[]) AND deleted_at IS NULL",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let mut stock = std::collections::BTreeMap::new();
        for row in &rows {
            stock.insert(row.try_get::<i64, _>(0)?, (row.try_get(1)?, row.try_get(2)?));
        }
        for (id, wanted) in items {
            match stock.remove(id) {
                None => return Err(PlaceError::UnknownProduct(*id)),
                Some((name, available)) if available < *wanted => {
                    return Err(PlaceError::OutOfStock { name, available, wanted: *wanted });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

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

async fn insert(connection: &mut PgConnection, order: &NewOrder) -> Result<Order, PlaceError> {
    let (ids, quantities): (Vec<i32>, Vec<i32>) =
        order.items.iter().map(|(id, quantity)| (*id as i32, *quantity as i32)).unzip();
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
    let rows = placed.map_err(|error| {
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        match code.as_str() {
            NOT_NULL_VIOLATION => PlaceError::Missing(order.items.clone()),
            OUT_OF_RANGE => PlaceError::TooExpensive,
            _ => error.into(),
        }
    })?;
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
