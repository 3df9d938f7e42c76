//! The catalogue.

use std::sync::Arc;

use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, json, parameters, with};
use crate::app::{App, store_problem};
use crate::problem::Problem;
use crate::product::{ProductQuery, cursor_after};

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "products")
        .and(warp::get())
        .and(with(app))
        .and(parameters())
        .then(|app, parameters| answer(list(app, parameters)));
    let get = warp::path!("api" / "products" / String)
        .and(warp::get())
        .and(with(app))
        .then(|id, app| answer(get(id, app)));
    let categories =
        warp::path!("api" / "categories").and(warp::get()).and(with(app)).then(|app| answer(categories(app)));
    list.or(get).unify().or(categories).unify().boxed()
}

async fn list(app: Arc<App>, parameters: Vec<(String, String)>) -> Result<Response, Problem> {
    let mut query = ProductQuery::from_pairs(&parameters)?;
    let limit = query.limit;
    // One more than asked for tells whether there is a next page.
    query.limit += 1;
    let mut items = app.store()?.products(&query).await.map_err(|e| store_problem(&e))?;
    let more = items.len() as i64 > limit;
    items.truncate(limit as usize);
    let next = if more { items.last().map(|last| cursor_after(last.id)) } else { None };
    Ok(json(&json!({ "items": items, "nextCursor": next })))
}

async fn get(id: String, app: Arc<App>) -> Result<Response, Problem> {
    let missing = || Problem::not_found("there is no such product");
    let id = id.parse().ok().filter(|id| (1..=i64::from(i32::MAX)).contains(id)).ok_or_else(missing)?;
    let product = app.store()?.product(id).await.map_err(|e| store_problem(&e))?;
    Ok(json(&product.ok_or_else(missing)?))
}

async fn categories(app: Arc<App>) -> Result<Response, Problem> {
    let items = app.store()?.categories().await.map_err(|e| store_problem(&e))?;
    Ok(json(&json!({ "items": items })))
}
