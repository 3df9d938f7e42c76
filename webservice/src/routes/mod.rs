//! From paths to handlers.

mod admin;
mod call;
mod cart;
pub(crate) mod operations;
mod orders;
mod pages;
mod products;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reject::{InvalidQuery, MethodNotAllowed, Rejection};
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::app::App;
use crate::problem::Problem;
pub(crate) use pages::page;

/// Everything in [`crate::endpoint::ENDPOINTS`], answered.
pub fn all(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    // Most asked for first.
    products::routes(app)
        .or(cart::routes(app))
        .unify()
        .or(orders::routes(app))
        .unify()
        .or(operations::routes(app))
        .unify()
        .or(admin::routes(app))
        .unify()
        .or(pages::routes())
        .unify()
        .recover(explain)
        .unify()
        .boxed()
}

/// Turns a handler's result into an answer.
async fn answer(result: impl Future<Output = Result<Response, Problem>>) -> Response {
    result.await.unwrap_or_else(Problem::into_response)
}

/// JSON that may not be cached: stock and orders change by the second.
fn json(body: &impl Serialize) -> Response {
    let mut response = warp::reply::json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer without a body.
fn nothing() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Turns warp's rejections into problems.
async fn explain(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = if rejection.find::<MethodNotAllowed>().is_some() {
        Problem::method_not_allowed()
    } else if rejection.is_not_found() {
        Problem::not_found("check the path")
    } else if rejection.find::<InvalidQuery>().is_some() {
        Problem::bad_request("the query string cannot be read")
    } else {
        tracing::error!(?rejection, "a request was rejected in an unforeseen way");
        Problem::internal()
    };
    Ok(problem.into_response())
}
