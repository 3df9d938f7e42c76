//! What happens around every request: limits, faults, headers, metrics, the log line.

use std::convert::Infallible;
use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::service::Service;
use warp::reply::Response;

use crate::app::App;
use crate::endpoint::{Endpoint, Kind};
use crate::metrics::method_label;
use crate::problem::Problem;

/// Largest request body in bytes; the largest valid order needs about 3 KiB.
pub const BODY_LIMIT: usize = 64 * 1024;

/// Route label of what no endpoint answers.
const UNMATCHED: &str = "unmatched";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-dhakacart-version");

/// Answers one request by `routes`, which see GET for HEAD and a body that has fully arrived.
pub async fn handle<S, B>(app: &App, routes: &S, request: Request<B>) -> Response
where
    S: Service<Request<Full<Bytes>>, Response = Response, Error = Infallible>,
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let in_flight = app.lifecycle.request();
    let started = Instant::now();
    let method = method_label(request.method());
    let path = request.uri().path().to_owned();
    let endpoint = Endpoint::find(&path);
    let kind = endpoint.map_or(Kind::Page, |endpoint| endpoint.kind);
    let route = endpoint.map_or(UNMATCHED, |endpoint| endpoint.template);
    let id = request_id(request.headers());

    let answering = answer(app, routes, kind, request);
    let mut response = match tokio::time::timeout(app.config.request_timeout, answering).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("the request took too long").into_response(),
    };
    let status = response.status();
    if let (405, Some(endpoint)) = (status.as_u16(), endpoint) {
        insert(response.headers_mut(), header::ALLOW, &endpoint.allow());
    }
    finish_headers(app, response.headers_mut(), &id);

    let duration = started.elapsed();
    app.metrics.request(kind, method, route, status.as_u16(), duration);
    let (status, duration_ms) = (status.as_u16(), duration.as_secs_f64() * 1000.0);
    // Paths are the client's text; the formatter escapes them.
    match kind {
        Kind::Probe => {
            tracing::debug!(target: "request", method, route, path, status, duration_ms, request_id = id);
        }
        _ => tracing::info!(target: "request", method, route, path, status, duration_ms, request_id = id),
    }
    drop(in_flight);
    response
}

async fn answer<S, B>(app: &App, routes: &S, kind: Kind, request: Request<B>) -> Response
where
    S: Service<Request<Full<Bytes>>, Response = Response, Error = Infallible>,
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let body = match receive(app, body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    if kind == Kind::Api {
        if let Some(latency) = app.faults.latency() {
            tokio::time::sleep(latency).await;
        }
        if app.faults.fails() {
            app.metrics.fault();
            return Problem::internal().into_response();
        }
    }
    // The server leaves out the body of an answer to HEAD by itself.
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    match routes.call(Request::from_parts(parts, Full::new(body))).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Takes in the body within its limit and most of the request's time.
fn receive<B>(app: &App, body: B) -> impl Future<Output = Result<Bytes, Problem>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Leaves time to say so when a body arrives too slowly.
    let limit = app.config.request_timeout.mul_f64(0.8);
    async move {
        match tokio::time::timeout(limit, Limited::new(body, BODY_LIMIT).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(BODY_LIMIT)),
            Ok(Err(_)) => Err(Problem::bad_request("the body ended early")),
            Err(_) => Err(Problem::slow_request()),
        }
    }
}

fn finish_headers(app: &App, headers: &mut HeaderMap, id: &str) {
    insert(headers, REQUEST_ID, id);
    insert(headers, VERSION, &app.config.version);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if app.lifecycle.is_draining() {
        // Clients then open their next connection elsewhere instead of finding this one gone.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The proxy's identifier if it is a sane one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(sane)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}
