//! Placing orders, many at once.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::{PostgresStore, carts, orders};
use crate::order::{NewOrder, Order};
use crate::store::shelf::{Shelf, Wish};
use crate::store::{PlaceError, Placed, StoreError};

/// How often in a row nothing may come of an attempt: others took what was there, or the database undid it.
const ATTEMPTS: usize = 5;

/// Takes the pieces of all orders and writes them, or changes nothing, in one round trip and one commit.
///
/// - `held` locks the products in the order of their identifiers, and orders are inserted in the order of their
///   idempotency keys, so that two shops cannot wait for each other.
/// - Nothing is inserted unless there is enough of every product for all orders together, which is what `line` asks.
/// - An order whose idempotency key is taken, by then or while this waits, is left out and takes nothing from stock.
/// - The products' constraint `stock >= 0` is what makes overselling impossible.
///
/// It answers with the locked products, as they were before, and the orders that were placed. The plan is made once on
/// each connection, before there are statistics of anything: the outer join lets it expect as many lines as there are
/// wishes, where an inner one lets it expect a single line and join by nested loops.
const PLACE: &str = "
    WITH asked AS (
      SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bool[])
        AS asked (number, customer, session, key, request, at, from_cart)
    ), held AS (
      SELECT id, name, price, stock FROM products
      WHERE id = ANY ($8::int[]) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE
    ), line AS (
      SELECT wish.number, held.id, held.name, held.price, wish.quantity
      FROM unnest($9::text[], $10::int[], $11::int[]) AS wish (number, product, quantity)
      LEFT JOIN held ON held.id = wish.product
      WHERE cardinality($12::int[]) = (
        SELECT count(*) FROM unnest($12::int[], $13::int[]) AS need (product, quantity)
        JOIN held ON held.id = need.product AND held.stock >= need.quantity)
    ), placed AS (
      INSERT INTO orders (order_number, customer_id, session, total_amount, status, idempotency_key,
                          idempotency_request, created_at)
      SELECT number, customer, session, total, 'placed', key, request, to_timestamp(at::double precision / 1000)
      FROM asked JOIN (SELECT number, sum(price * quantity) AS total FROM line GROUP BY number) AS bill USING (number)
      WHERE total < 100000000
      ORDER BY key, at
      ON CONFLICT DO NOTHING
      RETURNING id, order_number
    ), sold AS (
      INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price)
      SELECT placed.id, line.id, name, quantity, price FROM placed JOIN line ON line.number = placed.order_number
      RETURNING product_id, quantity
    ), taken AS (
      UPDATE products SET stock = products.stock - taken.quantity,
        updated_at = (SELECT to_timestamp(max(at)::double precision / 1000) FROM asked)
      FROM (SELECT product_id, sum(quantity) AS quantity FROM sold GROUP BY product_id) AS taken
      WHERE products.id = taken.product_id
    ), emptied AS (
      DELETE FROM cart_items USING asked, placed, line
      WHERE asked.from_cart AND placed.order_number = asked.number AND line.number = asked.number
        AND cart_items.session = asked.session AND cart_items.product_id = line.id
    )
    SELECT id::bigint, name, (price * 100)::bigint, stock::bigint FROM held
    UNION ALL
    SELECT id::bigint, order_number, NULL, NULL FROM placed";

/// Orders of one batch, and the answers that are known.
struct Batch<'a> {
    orders: &'a [NewOrder],
    answers: Vec<Option<Result<Placed, PlaceError>>>,
    /// What was on the shelf when it was too little for all.
    scarce: Option<Shelf>,
}

impl<'a> Batch<'a> {
    fn new(orders: &'a [NewOrder]) -> Self {
        Self { orders, answers: orders.iter().map(|_| None).collect(), scarce: None }
    }

    /// Orders without an answer, in the order of their arrival.
    fn open(&self) -> Vec<usize> {
        (0..self.orders.len()).filter(|index| self.answers[*index].is_none()).collect()
    }

    fn answer(&mut self, index: usize, answer: Result<Placed, PlaceError>) {
        self.answers[index] = Some(answer);
    }

    /// Answers, with `error` for whoever has none.
    fn finish(self, error: StoreError) -> Vec<Result<Placed, PlaceError>> {
        let errors = error.for_each(self.answers.len());
        self.answers
            .into_iter()
            .zip(errors)
            .map(|(answer, error)| answer.unwrap_or(Err(error.into())))
            .collect()
    }
}

/// What came of a round, once it is committed.
#[derive(Default)]
struct Outcome {
    placed: Vec<(usize, Order)>,
    /// Refused, unless an earlier request with the same key was not.
    refused: Vec<(usize, PlaceError)>,
    /// An earlier request with the same key may have been placed.
    unknown: Vec<usize>,
}

impl PostgresStore {
    /// Places orders. Each is decided on its own, in the order of their arrival.
    pub(in crate::store) async fn place_all(&self, orders: &[NewOrder]) -> Vec<Result<Placed, PlaceError>> {
        // One order is cheaper to place than several; whatever keeps it from being placed is found out below.
        if let [order] = orders {
            match self.place_alone(order).await {
                Ok(Some(placed)) => return vec![Ok(Placed::New(placed))],
                Err(error) if !error.is_undone() => return self.fail(Batch::new(orders), error).await,
                _ => {}
            }
        }
        let mut batch = Batch::new(orders);
        let (mut attempts, mut open) = (0, orders.len());
        while open > 0 && attempts < ATTEMPTS {
            match self.round(&mut batch).await {
                Err(error) if !error.is_undone() => return self.fail(batch, error).await,
                _ => {}
            }
            let left = batch.open().len();
            attempts = if left < open { 0 } else { attempts + 1 };
            open = left;
        }
        batch.finish(StoreError::Contended)
    }

    /// Places as many as can be placed together.
    async fn round(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut outcome = Outcome::default();
        let leaders = leaders(batch, &mut outcome);
        let sessions: BTreeSet<&str> = leaders
            .iter()
            .filter(|index| batch.orders[**index].from_cart)
            .map(|index| batch.orders[*index].session.as_str())
            .collect();
        if sessions.is_empty() {
            write(&mut connection, batch, &leaders, &BTreeMap::new(), &mut outcome).await?;
        } else {
            let mut tx = connection.begin().await?;
            let carts = carts::hold(&mut tx, &sessions.into_iter().collect::<Vec<_>>()).await?;
            write(&mut tx, batch, &leaders, &carts, &mut outcome).await?;
            tx.commit().await?;
        }
        self.decide(&mut connection, batch, outcome).await
    }

    /// Answers what was placed, what an earlier request with the same key explains, and what is refused in any case.
    async fn decide(
        &self,
        connection: &mut PgConnection,
        batch: &mut Batch<'_>,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        for (index, order) in outcome.placed {
            batch.answer(index, Ok(Placed::New(order)));
        }
        let indices = outcome.refused.iter().map(|(index, _)| *index).chain(outcome.unknown.iter().copied());
        let earlier = earlier(connection, batch, indices).await?;
        for (index, placed) in earlier {
            batch.answer(index, placed);
        }
        for (index, refusal) in outcome.refused {
            if batch.answers[index].is_none() {
                batch.answer(index, Err(refusal));
            }
        }
        Ok(())
    }

    /// Answers after the database failed.
    async fn fail(&self, mut batch: Batch<'_>, error: StoreError) -> Vec<Result<Placed, PlaceError>> {
        let open = batch.open();
        // A value that the database does not take: everything was undone, and it is one order's fault.
        if open.len() > 1 && error.is_refused() {
            for index in open {
                let alone = std::slice::from_ref(&batch.orders[index]);
                if let Some(answer) = Box::pin(self.place_all(alone)).await.pop() {
                    batch.answer(index, answer);
                }
            }
            return batch.finish(error);
        }
        // The connection may have broken after the commit, or an earlier request was placed: the keys tell.
        if open.iter().any(|index| batch.orders[*index].idempotency_key.is_some())
            && let Ok(mut connection) = self.pool.acquire().await
            && let Ok(earlier) = earlier(&mut connection, &batch, open.into_iter()).await
        {
            for (index, placed) in earlier {
                batch.answer(index, placed);
            }
        }
        batch.finish(error)
    }
}

/// Of the open orders the first with each key and the first of each cart. The others are looked at afterwards.
fn leaders(batch: &Batch<'_>, outcome: &mut Outcome) -> Vec<usize> {
    let (mut keys, mut carts) = (BTreeSet::new(), BTreeSet::new());
    let mut leaders = Vec::new();
    for index in batch.open() {
        let order = &batch.orders[index];
        let key = order.idempotency_key.as_ref().is_none_or(|key| keys.insert(key.as_str()));
        if key && (!order.from_cart || carts.insert(order.session.as_str())) {
            leaders.push(index);
        } else {
            outcome.unknown.push(index);
        }
    }
    leaders
}

/// Places those of `leaders` that there is enough for, and notes what became of the others.
async fn write(
    connection: &mut PgConnection,
    batch: &mut Batch<'_>,
    leaders: &[usize],
    carts: &BTreeMap<String, Wish>,
    outcome: &mut Outcome,
) -> Result<(), StoreError> {
    let (orders, mut wishes) = (batch.orders, Vec::with_capacity(leaders.len()));
    for &index in leaders {
        let order = &orders[index];
        let wish = if order.from_cart { carts.get(&order.session) } else { Some(&order.items) };
        match wish {
            Some(wish) if !wish.is_empty() => wishes.push((index, wish)),
            _ => outcome.refused.push((index, PlaceError::EmptyCart)),
        }
    }
    let mut chosen = wishes.clone();
    if let Some(mut scarce) = batch.scarce.take() {
        chosen.retain(|(_, wish)| scarce.take(wish).is_ok());
    }
    if chosen.is_empty() {
        chosen.clone_from(&wishes);
    }
    if chosen.is_empty() {
        return Ok(());
    }
    let products: BTreeSet<i64> = wishes.iter().flat_map(|(_, wish)| wish.keys().copied()).collect();
    let (mut shelf, placed) = statement(connection, orders, &chosen, &products).await?;
    if !shelf.covers(chosen.iter().map(|(_, wish)| *wish)) {
        // Nothing was changed. Whoever could not be served alone is refused; the others are chosen from next time.
        for (index, wish) in wishes {
            if let Err(refusal) = shelf.bill(wish) {
                outcome.refused.push((index, refusal));
            }
        }
        batch.scarce = Some(shelf);
        return Ok(());
    }
    for (index, wish) in wishes {
        if let Some(id) = placed.get(&orders[index].number) {
            // There was enough of everything, so this does not fail.
            if let Ok(bill) = shelf.take(wish) {
                outcome.placed.push((index, bill.into_order(&orders[index], *id)));
            }
            continue;
        }
        let tried = chosen.iter().any(|(chosen, _)| *chosen == index);
        match shelf.bill(wish) {
            // What was put back meanwhile may be enough for it: the next round tells.
            Ok(_) if !tried => {}
            Ok(_) => outcome.unknown.push(index),
            Err(refusal) => outcome.refused.push((index, refusal)),
        }
    }
    Ok(())
}

/// Runs [`PLACE`]: the products as they were, and the identifiers of the placed orders by their numbers.
async fn statement(
    connection: &mut PgConnection,
    orders: &[NewOrder],
    chosen: &[(usize, &Wish)],
    products: &BTreeSet<i64>,
) -> Result<(Shelf, BTreeMap<String, i64>), StoreError> {
    let each = || chosen.iter().map(|(index, _)| &orders[*index]);
    let (mut numbers, mut ids, mut quantities) = (Vec::new(), Vec::new(), Vec::new());
    let mut need = BTreeMap::<i32, i32>::new();
    for (index, wish) in chosen {
        for (product, quantity) in *wish {
            let (product, quantity) = (*product as i32, *quantity as i32);
            numbers.push(orders[*index].number.as_str());
            ids.push(product);
            quantities.push(quantity);
            // At most 128 orders of at most 100 pieces.
            *need.entry(product).or_default() += quantity;
        }
    }
    let request = |order: &NewOrder| order.idempotency_key.as_ref().map(|_| order.fingerprint());
    let rows: Vec<PgRow> = sqlx::query(PLACE)
        .bind(each().map(|order| order.number.as_str()).collect::<Vec<_>>())
        .bind(each().map(|order| order.customer_id.map(|id| id as i32)).collect::<Vec<_>>())
        .bind(each().map(|order| order.session.as_str()).collect::<Vec<_>>())
        .bind(each().map(|order| order.idempotency_key.as_deref()).collect::<Vec<_>>())
        .bind(each().map(request).collect::<Vec<_>>())
        .bind(each().map(|order| order.now.as_millisecond()).collect::<Vec<_>>())
        .bind(each().map(|order| order.from_cart).collect::<Vec<_>>())
        .bind(products.iter().map(|id| *id as i32).collect::<Vec<_>>())
        .bind(numbers)
        .bind(ids)
        .bind(quantities)
        .bind(need.keys().copied().collect::<Vec<_>>())
        .bind(need.values().copied().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let (mut shelf, mut placed) = (Shelf::default(), BTreeMap::new());
    for row in &rows {
        let (id, text): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        match row.try_get::<Option<i64>, _>(2)? {
            Some(price_minor) => shelf.put(id, text, price_minor, row.try_get(3)?),
            None => drop(placed.insert(text, id)),
        }
    }
    Ok((shelf, placed))
}

/// Of these orders, those whose key has been used, with what their sender is told about it.
async fn earlier(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    indices: impl Iterator<Item = usize>,
) -> Result<Vec<(usize, Result<Placed, PlaceError>)>, StoreError> {
    let keyed: Vec<(usize, &str)> =
        indices.filter_map(|index| Some((index, batch.orders[index].idempotency_key.as_deref()?))).collect();
    if keyed.is_empty() {
        return Ok(Vec::new());
    }
    let known = orders::by_keys(connection, &keyed.iter().map(|(_, key)| *key).collect::<Vec<_>>()).await?;
    let answer = |(index, key): (usize, &str)| {
        let (request, order): &(String, Order) = known.get(key)?;
        let same = *request == batch.orders[index].fingerprint();
        Some((index, if same { Ok(Placed::Replayed(order.clone())) } else { Err(PlaceError::KeyReused) }))
    };
    Ok(keyed.into_iter().filter_map(answer).collect())
}
