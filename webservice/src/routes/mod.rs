//! From paths to handlers.

mod operations;
mod orders;
mod pages;
mod products;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use http::{HeaderValue, header};
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reject::{InvalidQuery, MethodNotAllowed, Rejection};
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::app::App;
use crate::problem::Problem;

/// Everything in [`crate::endpoint::ENDPOINTS`], answered.
pub fn all(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    operations::routes(app)
        .or(products::routes(app))
        .unify()
        .or(orders::routes(app))
        .unify()
        .or(pages::routes())
        .unify()
        .recover(explain)
        .unify()
        .boxed()
}

/// Gives a filter access to the shop.
fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app))
}

/// Query parameters in order, decoded.
fn parameters() -> impl Filter<Extract = (Vec<(String, String)>,), Error = Rejection> + Copy {
    warp::query::<Vec<(String, String)>>()
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

/// Turns warp's rejections into problems.
async fn explain(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = if rejection.is_not_found() {
        Problem::not_found("check the path")
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        Problem::method_not_allowed()
    } else if rejection.find::<InvalidQuery>().is_some() {
        Problem::bad_request("the query string cannot be read")
    } else {
        tracing::error!(?rejection, "a request was rejected in an unforeseen way");
        Problem::internal()
    };
    Ok(problem.into_response())
}
