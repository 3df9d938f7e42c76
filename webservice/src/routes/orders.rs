//! Ordering.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, json, parameters, with};
use crate::app::{App, store_problem};
use crate::metrics::OrderOutcome;
use crate::order::{self, NewOrder};
use crate::problem::Problem;
use crate::product::{cursor, cursor_after, limit, shorten};
use crate::session::Session;
use crate::store::{PlaceError, Placed};

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let place = warp::path!("api" / "orders")
        .and(warp::post())
        .and(with(app))
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .then(|app, headers, body| answer(place(app, headers, body)));
    let list = warp::path!("api" / "orders")
        .and(warp::get())
        .and(with(app))
        .and(warp::header::headers_cloned())
        .and(parameters())
        .then(|app, headers, parameters| answer(list(app, headers, parameters)));
    let get = warp::path!("api" / "orders" / String)
        .and(warp::get())
        .and(with(app))
        .then(|number, app| answer(get(number, app)));
    place.or(list).unify().or(get).unify().boxed()
}

async fn place(app: Arc<App>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let session = Session::of(&headers);
    let rejected = |problem| {
        app.metrics.order(OrderOutcome::Rejected);
        problem
    };
    let order = read(&headers, &body, &session).map_err(rejected)?;
    let placed = app.store()?.place(&order).await;
    let (order, outcome) = match placed {
        Ok(Placed::New(order)) => {
            let pieces: i64 = order.items.iter().map(|item| item.quantity).sum();
            // Both are sums of positive numbers.
            app.metrics.sold(pieces.unsigned_abs(), order.total_minor.unsigned_abs());
            (order, OrderOutcome::Placed)
        }
        Ok(Placed::Replayed(order)) => (order, OrderOutcome::Replayed),
        Err(error) => return Err(refused(&app, error)),
    };
    app.metrics.order(outcome);
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

fn read(headers: &HeaderMap, body: &[u8], session: &Session) -> Result<NewOrder, Problem> {
    // Browsers send other types across sites without asking, so this also stops forged forms.
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = media_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::not_json());
    }
    let key = match headers.get("idempotency-key") {
        Some(value) => {
            let text = value.to_str();
            Some(text.map_err(|_| Problem::invalid("Idempotency-Key", "it must be ASCII text"))?)
        }
        None => None,
    };
    NewOrder::read(body, key, session.id().to_owned(), Timestamp::now())
}

fn refused(app: &App, error: PlaceError) -> Problem {
    let (outcome, problem) = match error {
        PlaceError::OutOfStock { .. } => (OrderOutcome::OutOfStock, Problem::out_of_stock(error.to_string())),
        PlaceError::UnknownProduct(_) => {
            (OrderOutcome::Rejected, Problem::unprocessable("items", error.to_string()))
        }
        PlaceError::TooExpensive => {
            (OrderOutcome::Rejected, Problem::unprocessable("items", error.to_string()))
        }
        PlaceError::KeyReused => {
            (OrderOutcome::Rejected, Problem::unprocessable("Idempotency-Key", error.to_string()))
        }
        PlaceError::Store(error) => return store_problem(&error),
    };
    app.metrics.order(outcome);
    problem
}

/// Orders of the caller's session, newest first.
async fn list(
    app: Arc<App>,
    headers: HeaderMap,
    parameters: Vec<(String, String)>,
) -> Result<Response, Problem> {
    let (mut most, mut before) = (24, i64::MAX);
    for (name, value) in &parameters {
        match name.as_str() {
            "limit" => most = limit(value)?,
            "cursor" => before = cursor(value)?,
            _ => return Err(Problem::invalid(shorten(name), "known are limit and cursor")),
        }
    }
    let session = Session::of(&headers);
    let mut items = Vec::new();
    if !session.is_new() {
        let orders = app.store()?.orders(session.id(), before, most + 1).await;
        items = orders.map_err(|e| store_problem(&e))?;
    }
    let more = items.len() as i64 > most;
    items.truncate(most as usize);
    let next = if more { items.last().map(|last| cursor_after(last.id)) } else { None };
    Ok(json(&json!({ "items": items, "nextCursor": next })))
}

/// Whoever knows an order's number may see it, as on a parcel's tracking page.
async fn get(number: String, app: Arc<App>) -> Result<Response, Problem> {
    let missing = || Problem::not_found("there is no such order");
    if !order::is_number(&number) {
        return Err(missing());
    }
    let order = app.store()?.order(&number).await.map_err(|e| store_problem(&e))?;
    Ok(json(&order.ok_or_else(missing)?))
}
