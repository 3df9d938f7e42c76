//! What administrators see.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::call::{Call, call};
use super::{answer, json};
use crate::app::{App, store_problem};
use crate::order::Status;
use crate::problem::Problem;
use crate::product::{CURRENCY, Page};
use crate::store::Sales;

/// Best sellers are those of the last 30 days.
const RECENT: SignedDuration = SignedDuration::from_hours(30 * 24);

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let orders = warp::path!("api" / "admin" / "orders")
        .and(warp::get())
        .and(call(app))
        .then(|call| answer(orders(call)));
    let audit = warp::path!("api" / "admin" / "audit")
        .and(warp::get())
        .and(call(app))
        .then(|call| answer(audit(call)));
    let summary = warp::path!("api" / "admin" / "summary")
        .and(warp::get())
        .and(call(app))
        .then(|call| answer(summary(call)));
    orders.or(audit).unify().or(summary).unify().boxed()
}

/// Everybody's orders, newest first.
async fn orders(call: Call) -> Result<Response, Problem> {
    call.admin()?;
    let mut status = None;
    let page = Page::from_pairs(&call.query, |name, value| match name {
        "status" => match Status::parse(value) {
            Some(known) => {
                status = Some(known);
                Ok(())
            }
            None => Err("it must be placed, paid, shipped, delivered or cancelled"),
        },
        _ => Err("known are status, limit and cursor"),
    })?;
    let wider = Page { limit: page.limit + 1, ..page };
    let mut items = call.store()?.orders(None, status, wider).await.map_err(|e| store_problem(&e))?;
    let next = page.cut(&mut items, |order| order.id);
    Ok(json(&json!({ "items": items, "nextCursor": next })))
}

/// What administrators did, newest first.
async fn audit(call: Call) -> Result<Response, Problem> {
    call.admin()?;
    let page = Page::from_pairs(&call.query, |_, _| Err("known are limit and cursor"))?;
    let wider = Page { limit: page.limit + 1, ..page };
    let mut items = call.store()?.audit(wider).await.map_err(|e| store_problem(&e))?;
    let next = page.cut(&mut items, |record| record.id);
    Ok(json(&json!({ "items": items, "nextCursor": next })))
}

/// How business and this instance are doing.
async fn summary(call: Call) -> Result<Response, Problem> {
    let admin = call.admin()?;
    let now = Timestamp::now();
    let since = now.checked_sub(RECENT).unwrap_or(Timestamp::UNIX_EPOCH);
    let sales = call.store()?.sales(since).await.map_err(|e| store_problem(&e))?;
    let Sales { by_status, best, scarce } = sales;
    let edge = &call.app.edge;
    let (traffic, gauges) = (edge.metrics.traffic(), call.app.gauges());
    let (used, idle, most) = gauges.pool.unwrap_or_default();
    let millis = traffic.quantiles.map(|seconds| (seconds * 10_000.0).round() / 10.0);
    let earned = by_status.iter().filter(|(status, ..)| status != Status::Cancelled.word());
    let orders: serde_json::Map<_, _> = Status::ALL
        .iter()
        .map(|status| {
            let count = by_status.iter().find(|(word, ..)| word == status.word()).map_or(0, |found| found.1);
            (status.word().to_owned(), json!(count))
        })
        .collect();
    Ok(json(&json!({
        "administrator": admin.name,
        "sales": {
            "currency": CURRENCY,
            "revenueMinor": earned.map(|(_, _, minor)| minor).sum::<i64>(),
            "ordersByStatus": orders,
            "bestSellers": best.iter().map(|(id, name, pieces, minor)| json!({
                "productId": id, "name": name, "quantity": pieces, "revenueMinor": minor,
            })).collect::<Vec<_>>(),
        },
        "lowStock": scarce.iter().map(|(id, name, stock)| json!({
            "productId": id, "name": name, "stock": stock,
        })).collect::<Vec<_>>(),
        "instance": {
            "version": edge.settings.version,
            "startedAt": edge.metrics.started(),
            "draining": gauges.draining,
            "requestsInFlight": gauges.in_flight,
            "databaseConnections": { "used": used, "idle": idle, "most": most },
            "requests": traffic.requests,
            "failedRequests": traffic.failed,
            "latencyMilliseconds": { "p50": millis[0], "p95": millis[1], "p99": millis[2] },
        },
    })))
}
