//! Ordering, and what became of it.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::call::{Call, call};
use super::{answer, json};
use crate::app::{App, store_problem};
use crate::metrics::OrderOutcome;
use crate::order::{self, NewOrder, Status};
use crate::problem::Problem;
use crate::product::Page;
use crate::session::Session;
use crate::store::{ChangeError, PlaceError, Placed, StatusChange};

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let all = || warp::path!("api" / "orders");
    let one = || warp::path!("api" / "orders" / String);
    let placed = all().and(warp::post()).and(call(app)).then(|call| answer(create(call)));
    let listed = all().and(warp::get()).and(call(app)).then(|call| answer(list(call)));
    let got = one().and(warp::get()).and(call(app)).then(|number, call| answer(get(number, call)));
    let changed = one().and(warp::patch()).and(call(app)).then(|number, call| answer(change(number, call)));
    placed.or(listed).unify().or(got).unify().or(changed).unify().boxed()
}

async fn create(call: Call) -> Result<Response, Problem> {
    let session = call.session();
    let read = || {
        call.require_json()?;
        NewOrder::read(&call.body, call.idempotency_key()?, session.id().to_owned(), Timestamp::now())
    };
    let order = read();
    place(&call, order, &session).await
}

/// Places what was read from a request, and counts how that went.
pub(super) async fn place(
    call: &Call,
    order: Result<NewOrder, Problem>,
    session: &Session,
) -> Result<Response, Problem> {
    let metrics = &call.app.edge.metrics;
    let order = order.inspect_err(|_| metrics.order(OrderOutcome::Rejected))?;
    let from_cart = order.from_cart;
    let placed = call.store()?.place(order).await;
    let (order, outcome) = match placed {
        Ok(Placed::New(order)) => {
            let pieces: i64 = order.items.iter().map(|item| item.quantity).sum();
            // Both are sums of positive numbers.
            metrics.sold(pieces.unsigned_abs(), order.total_minor.unsigned_abs());
            if from_cart {
                metrics.checked_out();
            }
            call.app.cache.clear();
            (order, OrderOutcome::Placed)
        }
        Ok(Placed::Replayed(order)) => (order, OrderOutcome::Replayed),
        Err(error) => return Err(refused(call, error)),
    };
    metrics.order(outcome);
    let mut response = json(&order);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    if outcome == OrderOutcome::Replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    if let Ok(location) = HeaderValue::from_str(&format!("/api/orders/{}", order.number)) {
        headers.insert(header::LOCATION, location);
    }
    session.keep(headers);
    Ok(response)
}

fn refused(call: &Call, error: PlaceError) -> Problem {
    let (outcome, problem) = match error {
        PlaceError::OutOfStock { .. } => (OrderOutcome::OutOfStock, Problem::out_of_stock(error.to_string())),
        PlaceError::UnknownProduct(_) | PlaceError::TooExpensive => {
            (OrderOutcome::Rejected, Problem::unprocessable("items", error.to_string()))
        }
        PlaceError::EmptyCart => (OrderOutcome::Rejected, Problem::conflict(error.to_string())),
        PlaceError::KeyReused => {
            (OrderOutcome::Rejected, Problem::unprocessable("Idempotency-Key", error.to_string()))
        }
        PlaceError::Overloaded => return Problem::unavailable(error.to_string()),
        PlaceError::Store(error) => return store_problem(&error),
    };
    call.app.edge.metrics.order(outcome);
    problem
}

/// Orders of the caller's session, newest first.
async fn list(call: Call) -> Result<Response, Problem> {
    let page = Page::from_pairs(&call.query, |_, _| Err("known are limit and cursor"))?;
    let session = call.session();
    let store = call.store()?;
    let mut items = Vec::new();
    if !session.is_new() {
        let wider = Page { limit: page.limit + 1, ..page };
        let orders = store.orders(Some(session.id()), None, wider).await;
        items = orders.map_err(|e| store_problem(&e))?;
    }
    let next = page.cut(&mut items, |order| order.id);
    Ok(json(&json!({ "items": items, "nextCursor": next })))
}

fn missing() -> Problem {
    Problem::not_found("there is no such order among yours")
}

/// An order is seen by the session that placed it, and by administrators.
async fn get(number: String, call: Call) -> Result<Response, Problem> {
    if call.has_token() {
        call.admin()?;
    }
    let order = find(&call, &number).await?;
    if !call.has_token() && order.session != call.session().id() {
        return Err(missing());
    }
    Ok(json(&order))
}

async fn find(call: &Call, number: &str) -> Result<order::Order, Problem> {
    if !order::is_number(number) {
        return Err(missing());
    }
    call.store()?.order(number).await.map_err(|e| store_problem(&e))?.ok_or_else(missing)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusBody {
    status: Status,
}

/// Administrators move an order on; whoever placed it may cancel it until it is paid.
async fn change(number: String, call: Call) -> Result<Response, Problem> {
    let admin = if call.has_token() { Some(call.admin()?) } else { None };
    let StatusBody { status } = call.json()?;
    if admin.is_none() && status != Status::Cancelled {
        return Err(Problem::forbidden(
            "customers can only cancel; everything else needs an administrator's token",
        ));
    }
    if !order::is_number(&number) {
        return Err(missing());
    }
    let session = call.session();
    let audit =
        admin.map(|admin| call.audit(admin, "order.status", &number, json!({ "status": status.word() })));
    let owner = audit.is_none().then(|| session.id());
    let change = StatusChange { to: status, owner, audit: audit.as_ref() };
    call.store()?.set_status(&number, &change).await.map_err(|error| match error {
        ChangeError::Missing => missing(),
        ChangeError::Changed => Problem::changed_meanwhile(),
        ChangeError::Illegal { .. } => Problem::conflict(error.to_string()),
        ChangeError::Store(error) => store_problem(&error),
    })?;
    if status == Status::Cancelled {
        // Its pieces are back.
        call.app.cache.clear();
    }
    if let Some(audit) = audit {
        audit.log();
    }
    Ok(json(&find(&call, &number).await?))
}
