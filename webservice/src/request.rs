//! What happens around every request: limits, faults, headers, metrics, the log line.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use warp::reply::Response;

use crate::edge::Edge;
use crate::encode;
use crate::endpoint::{Endpoint, Kind};
use crate::metrics::method_label;
use crate::problem::Problem;
use crate::trace::TraceContext;

/// Largest request body in bytes; the largest valid order needs about 3 KiB.
pub const BODY_LIMIT: usize = 64 * 1024;

/// Route label of what no endpoint answers.
const UNMATCHED: &str = "unmatched";

/// Header with the request's identifier.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-dhakacart-version");

/// Where a request came from, and how to find it again.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The nearest address that is not a trusted proxy's.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Identifier of this request.
    pub request_id: Arc<str>,
    /// The trace it belongs to.
    pub trace: TraceContext,
}

/// The part of the shop that a process plays.
pub trait Role: Send + Sync + 'static {
    /// What it has in common with the other.
    fn edge(&self) -> &Edge;

    /// Answers a request of which everything has arrived. HEAD is asked as GET. Where it came from is in the
    /// request's extensions as well.
    fn respond(
        &self,
        kind: Kind,
        origin: &Origin,
        request: Request<Bytes>,
    ) -> impl Future<Output = Response> + Send;

    /// What a client is told when that took longer than a request may.
    fn too_late(&self) -> Problem;
}

/// Answers one request that came from `peer`.
pub async fn handle<R, B>(role: &R, peer: IpAddr, request: Request<B>) -> Response
where
    R: Role,
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let edge = role.edge();
    let in_flight = edge.lifecycle.request();
    let started = Instant::now();
    let method = request.method().clone();
    let headers = request.headers();
    let path = request.uri().path().to_owned();
    let endpoint = Endpoint::find(&path);
    let kind = endpoint.map_or(Kind::Page, |endpoint| endpoint.kind);
    let route = endpoint.map_or(UNMATCHED, |endpoint| endpoint.template);
    let origin = Origin {
        client: edge.settings.trusted_proxies.client(peer, headers),
        peer,
        request_id: request_id(headers),
        trace: TraceContext::of(headers),
    };
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");

    let answering = answer(role, kind, &origin, request);
    let mut response = match tokio::time::timeout(edge.settings.request_timeout, answering).await {
        Ok(response) => response,
        Err(_) => role.too_late().into_response(),
    };
    let status = response.status().as_u16();
    if let (405, Some(endpoint)) = (status, endpoint) {
        insert(response.headers_mut(), header::ALLOW, &endpoint.allow());
    }
    finish_headers(edge, response.headers_mut(), &origin, secure);

    let duration = started.elapsed();
    let method = method_label(&method);
    edge.metrics.request(kind, method, route, status, duration);
    let duration_ms = duration.as_secs_f64() * 1000.0;
    let (request_id, trace_id, client) = (&*origin.request_id, origin.trace.trace_id(), origin.client);
    // Paths are the client's text; the formatter escapes them.
    match kind {
        Kind::Probe => {
            tracing::debug!(target: "request", method, route, path, status, duration_ms, request_id, trace_id, %client);
        }
        _ => {
            tracing::info!(target: "request", method, route, path, status, duration_ms, request_id, trace_id, %client);
        }
    }
    drop(in_flight);
    response
}

async fn answer<R, B>(role: &R, kind: Kind, origin: &Origin, request: Request<B>) -> Response
where
    R: Role,
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let body = match receive(role.edge(), body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let method = parts.method.clone();
    let accept: HeaderMap = parts.headers.get(header::ACCEPT_ENCODING).map_or_else(HeaderMap::new, |value| {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.clone())])
    });
    // The server leaves out the body of an answer to HEAD by itself.
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    parts.extensions.insert(origin.clone());
    let response = role.respond(kind, origin, Request::from_parts(parts, body)).await;
    encode::compress(&method, &accept, response).await
}

/// Takes in the body within its limit and most of the request's time.
fn receive<B>(edge: &Edge, body: B) -> impl Future<Output = Result<Bytes, Problem>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Leaves time to say so when a body arrives too slowly.
    let limit = edge.settings.request_timeout.mul_f64(0.8);
    async move {
        match tokio::time::timeout(limit, Limited::new(body, BODY_LIMIT).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(BODY_LIMIT)),
            Ok(Err(_)) => Err(Problem::bad_request("the body ended early")),
            Err(_) => Err(Problem::slow_request()),
        }
    }
}

fn finish_headers(edge: &Edge, headers: &mut HeaderMap, origin: &Origin, secure: bool) {
    const FIXED: [(HeaderName, HeaderValue); 6] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"),
        ),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    /// For answers that are no pages: nothing in them may run.
    const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    for (name, value) in FIXED {
        headers.insert(name, value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    insert(headers, REQUEST_ID, &origin.request_id);
    // What the backend answered through the frontend carries the backend's version.
    if !headers.contains_key(VERSION) {
        insert(headers, VERSION, &edge.settings.version);
    }
    if edge.lifecycle.is_draining() {
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
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sane = |id: &&str| {
        (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(sane)
        .map_or_else(|| uuid::Uuid::new_v4().to_string().into(), Arc::from)
}
