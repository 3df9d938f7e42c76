//! Placing orders, many at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{SqliteStore, carts, orders};
use crate::order::{NewOrder, Order};
use crate::store::shelf::{Bill, Shelf, Wish};
use crate::store::{PlaceError, Placed, StoreError};

/// An order that will be placed, and those that will be told the same because they have its key.
struct Accepted {
    index: usize,
    bill: Bill,
    repeats: Vec<usize>,
}

/// What was decided about a batch.
#[derive(Default)]
struct Decided<'a> {
    accepted: Vec<Accepted>,
    answers: BTreeMap<usize, Result<Placed, PlaceError>>,
    /// Pieces by product, of all accepted orders together.
    sold: Wish,
    /// Sessions whose carts were ordered.
    emptied: BTreeSet<&'a str>,
}

impl SqliteStore {
    /// Places orders. Each is decided on its own, in the order of their arrival.
    pub(in crate::store) async fn place_all(&self, orders: &[NewOrder]) -> Vec<Result<Placed, PlaceError>> {
        let error = match self.write_all(orders).await {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        // A value that the database does not take: everything was undone, and it is one order's fault.
        if orders.len() > 1 && error.is_refused() {
            let mut answers = Vec::with_capacity(orders.len());
            for order in orders {
                answers.append(&mut Box::pin(self.place_all(std::slice::from_ref(order))).await);
            }
            return answers;
        }
        error.for_each(orders.len()).map(|error| Err(error.into())).collect()
    }

    async fn write_all(&self, orders: &[NewOrder]) -> Result<Vec<Result<Placed, PlaceError>>, StoreError> {
        let mut writing = self.write().await?;
        let tx = &mut writing.tx;
        let mut decided = decide(tx, orders).await?;
        if !decided.accepted.is_empty() {
            let ids = write(tx, orders, &decided).await?;
            for Accepted { index, bill, repeats } in std::mem::take(&mut decided.accepted) {
                let order = &orders[index];
                let id =
                    ids.get(&order.number).ok_or(StoreError::Unreadable("an order without identifier"))?;
                let placed = bill.into_order(order, *id);
                for repeat in repeats {
                    decided.answers.insert(repeat, Ok(Placed::Replayed(placed.clone())));
                }
                decided.answers.insert(index, Ok(Placed::New(placed)));
            }
        }
        writing.tx.commit().await?;
        // In the order of their indices, one for each.
        Ok(decided.answers.into_values().collect())
    }
}

/// Decides each order. Nobody else writes meanwhile, so what is read here still holds when it is written.
async fn decide<'a>(
    connection: &mut SqliteConnection,
    orders: &'a [NewOrder],
) -> Result<Decided<'a>, StoreError> {
    let keys: Vec<&str> = orders.iter().filter_map(|order| order.idempotency_key.as_deref()).collect();
    let known = if keys.is_empty() { BTreeMap::new() } else { orders::by_keys(connection, &keys).await? };
    let sessions: BTreeSet<&str> =
        orders.iter().filter(|order| order.from_cart).map(|order| order.session.as_str()).collect();
    let carts =
        if sessions.is_empty() { BTreeMap::new() } else { carts::read(connection, &sessions).await? };
    let nothing = Wish::new();
    let wishes: Vec<&Wish> = orders
        .iter()
        .map(
            |order| {
                if order.from_cart { carts.get(&order.session).unwrap_or(&nothing) } else { &order.items }
            },
        )
        .collect();
    let mut shelf = shelf(connection, &wishes).await?;
    let (mut decided, mut by_key) = (Decided::default(), BTreeMap::<&str, usize>::new());
    for (index, (order, wish)) in orders.iter().zip(wishes).enumerate() {
        let key = order.idempotency_key.as_deref();
        if let Some((request, earlier)) = key.and_then(|key| known.get(key)) {
            decided.answers.insert(index, replay(*request == order.fingerprint(), earlier));
        } else if let Some(first) = key.and_then(|key| by_key.get(key)) {
            let first = &mut decided.accepted[*first];
            if orders[first.index].fingerprint() == order.fingerprint() {
                first.repeats.push(index);
            } else {
                decided.answers.insert(index, Err(PlaceError::KeyReused));
            }
        } else if wish.is_empty() || (order.from_cart && decided.emptied.contains(order.session.as_str())) {
            decided.answers.insert(index, Err(PlaceError::EmptyCart));
        } else {
            match shelf.take(wish) {
                Err(refusal) => drop(decided.answers.insert(index, Err(refusal))),
                Ok(bill) => {
                    for item in &bill.items {
                        *decided.sold.entry(item.product_id).or_default() += item.quantity;
                    }
                    if order.from_cart {
                        decided.emptied.insert(&order.session);
                    }
                    by_key.extend(key.map(|key| (key, decided.accepted.len())));
                    decided.accepted.push(Accepted { index, bill, repeats: Vec::new() });
                }
            }
        }
    }
    Ok(decided)
}

fn replay(same: bool, earlier: &Order) -> Result<Placed, PlaceError> {
    if same { Ok(Placed::Replayed(earlier.clone())) } else { Err(PlaceError::KeyReused) }
}

/// The products of all wishes.
async fn shelf(connection: &mut SqliteConnection, wishes: &[&Wish]) -> Result<Shelf, StoreError> {
    let products: BTreeSet<i64> = wishes.iter().flat_map(|wish| wish.keys().copied()).collect();
    let rows = sqlx::query(
        "SELECT id, name, price_minor, stock FROM products
         WHERE id IN (SELECT value FROM json_each($1)) AND deleted_at IS NULL",
    )
    .bind(json!(products).to_string())
    .fetch_all(connection)
    .await?;
    let mut shelf = Shelf::default();
    for row in &rows {
        shelf.put(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    }
    Ok(shelf)
}

/// Writes what was accepted: identifiers by order number.
async fn write(
    connection: &mut SqliteConnection,
    orders: &[NewOrder],
    decided: &Decided<'_>,
) -> Result<BTreeMap<String, i64>, StoreError> {
    let rows: Vec<_> = decided
        .accepted
        .iter()
        .map(|accepted| {
            let order = &orders[accepted.index];
            let key = order.idempotency_key.as_deref();
            json!([
                order.number,
                order.customer_id,
                order.session,
                accepted.bill.total_minor,
                key,
                key.map(|_| order.fingerprint()),
                order.now.as_millisecond()
            ])
        })
        .collect();
    let placed = sqlx::query(
        "INSERT INTO orders (order_number, customer_id, session, total_minor, status,
                             idempotency_key, idempotency_request, created_at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, 'placed', value ->> 4, value ->> 5, value ->> 6
         FROM json_each($1) WHERE TRUE ORDER BY key RETURNING order_number, id",
    )
    .bind(json!(rows).to_string())
    .fetch_all(&mut *connection)
    .await?;
    let mut ids = BTreeMap::new();
    for row in &placed {
        ids.insert(row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?);
    }
    let lines: Vec<_> = decided
        .accepted
        .iter()
        .filter_map(|accepted| Some((ids.get(&orders[accepted.index].number)?, &accepted.bill)))
        .flat_map(|(id, bill)| bill.items.iter().map(move |item| (id, item)))
        .map(|(id, item)| json!([id, item.product_id, item.name, item.quantity, item.unit_price_minor]))
        .collect();
    sqlx::query(
        "INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price_minor)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each($1)",
    )
    .bind(json!(lines).to_string())
    .execute(&mut *connection)
    .await?;
    let now = orders.iter().map(|order| order.now.as_millisecond()).max();
    let sold: Vec<_> = decided.sold.iter().map(|(product, quantity)| json!([product, quantity])).collect();
    // The table's constraint `stock >= 0` is what makes overselling impossible.
    sqlx::query(
        "UPDATE products SET stock = stock - (sold.value ->> 1), updated_at = $2
         FROM json_each($1) AS sold WHERE products.id = (sold.value ->> 0)",
    )
    .bind(json!(sold).to_string())
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if !decided.emptied.is_empty() {
        carts::empty(connection, &decided.emptied).await?;
    }
    Ok(ids)
}
