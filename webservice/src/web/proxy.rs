//! The way to the backend.
//!
//! Connections are kept and used again. A request is sent a second time only if that cannot do anything twice: when
//! its method is one that changes nothing, or when it had not left. Everything else that goes wrong is told to the
//! client, who knows whether trying again is safe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use warp::reply::Response;

use crate::config::WebConfig;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, UpstreamFailure};
use crate::problem::Problem;
use crate::request::{Origin, REQUEST_ID};

/// Largest answer of the backend that is passed on, in bytes; its largest page of orders is below 1 MiB.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// Idle connections are closed before the backend, which waits for 75 s, would do so under a request.
const IDLE: Duration = Duration::from_secs(30);

/// Idle connections kept to the backend.
const MOST_IDLE: usize = 256;

/// Headers that speak of one connection only (RFC 9110 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The backend as the frontend sees it.
#[derive(Debug)]
pub struct Proxy {
    backend: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    answered: AtomicBool,
}

impl Proxy {
    /// A way that was not used yet.
    pub fn new(config: &WebConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect_timeout));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            // A kept connection that turns out to be closed before anything was written to it is no loss.
            .retry_canceled_requests(true)
            .build(connector);
        // What is left of a request's time is for saying that it was too little.
        let timeout = config.request_timeout.mul_f64(0.95);
        let backend = config.api_url.authority().clone();
        Self { backend, client, timeout, answered: AtomicBool::new(false) }
    }

    /// Whether the backend was there at least once.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Asks the backend for its health until it answers or the frontend goes away.
    pub async fn find_backend(&self, lifecycle: &Lifecycle) {
        const LOOK_EVERY: Duration = Duration::from_millis(250);
        let uri = self.uri(PathAndQuery::from_static("/health"));
        loop {
            let mut request = Request::new(Full::default());
            *request.uri_mut() = uri.clone();
            match tokio::time::timeout(self.timeout, self.client.request(request)).await {
                Ok(Ok(answer)) if answer.status().is_success() => {
                    self.answered.store(true, Ordering::Relaxed);
                    tracing::info!(backend = %self.backend, "the backend was found");
                    return;
                }
                Ok(Ok(answer)) => {
                    tracing::debug!(status = answer.status().as_u16(), "the backend is not well")
                }
                Ok(Err(error)) => tracing::debug!(%error, "the backend is not there yet"),
                Err(_) => tracing::debug!("the backend does not answer yet"),
            }
            tokio::select! {
                () = lifecycle.drain_started() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The backend's answer to a request, or 502 or 504.
    pub async fn forward(&self, metrics: &Metrics, origin: &Origin, request: Request<Bytes>) -> Response {
        match tokio::time::timeout(self.timeout, self.exchange(origin, request)).await {
            Ok(Ok(response)) => response,
            Ok(Err((failure, cause))) => {
                metrics.upstream_failed(failure);
                tracing::warn!(cause, request_id = %origin.request_id, "the backend did not answer");
                Problem::bad_gateway(match failure {
                    UpstreamFailure::Connect => "nothing was done; try again shortly",
                    _ => "its answer was lost; look before ordering again",
                })
                .into_response()
            }
            Err(_) => {
                metrics.upstream_failed(UpstreamFailure::Timeout);
                tracing::warn!(request_id = %origin.request_id, "the backend took too long");
                Problem::gateway_timeout().into_response()
            }
        }
    }

    async fn exchange(
        &self,
        origin: &Origin,
        request: Request<Bytes>,
    ) -> Result<Response, (UpstreamFailure, String)> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        parts.uri = self.uri(path);
        prepare(&mut parts.headers, origin);
        let build = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            request
        };
        let harmless = matches!(parts.method, Method::GET | Method::OPTIONS);
        let mut answer = self.receive(build()).await;
        if answer.as_ref().is_err_and(|(failure, _)| harmless && *failure == UpstreamFailure::Broken) {
            answer = self.receive(build()).await;
        }
        answer
    }

    async fn receive(&self, request: Request<Full<Bytes>>) -> Result<Response, (UpstreamFailure, String)> {
        let answer = self.client.request(request).await.map_err(|error| {
            let failure = if error.is_connect() { UpstreamFailure::Connect } else { UpstreamFailure::Broken };
            (failure, causes(&error))
        })?;
        self.answered.store(true, Ordering::Relaxed);
        let (mut parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| (UpstreamFailure::Broken, error.to_string()))?.to_bytes();
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, body.into()))
    }

    fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.backend.clone());
        parts.path_and_query = Some(path);
        // Scheme, host and path are all there, which is all that can be missing.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Makes a client's headers those of the frontend's own request.
fn prepare(headers: &mut HeaderMap, origin: &Origin) {
    remove_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH);
    // 100-continue has been answered here.
    headers.remove(header::EXPECT);
    // Kept as the client wrote it, for whoever needs it; the request itself is addressed to the backend.
    if let Some(host) = headers.remove(header::HOST) {
        headers.entry("x-forwarded-host").or_insert(host);
    }
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static("http"));
    let before: Vec<String> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .chain([origin.peer.to_canonical().to_string()])
        .collect();
    if let Ok(value) = HeaderValue::from_str(&before.join(", ")) {
        headers.insert("x-forwarded-for", value);
    }
    if let Ok(value) = HeaderValue::from_str(&origin.request_id) {
        headers.insert(REQUEST_ID, value);
    }
    origin.trace.pass_on(headers);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// An error with what is behind it, for the log.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceContext;

    #[test]
    fn headers_become_those_of_the_frontend() {
        let mut headers: HeaderMap = [
            ("host", "shop.example"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("cookie", "dhakacart_session=x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("content-length", "3"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        let origin = Origin {
            client: "1.1.1.1".parse().unwrap(),
            peer: "10.0.0.9".parse().unwrap(),
            request_id: "the-request-id".into(),
            trace: TraceContext::of(&headers),
        };
        prepare(&mut headers, &origin);
        for gone in ["host", "connection", "x-private", "keep-alive", "content-length"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        for (name, value) in [
            ("cookie", "dhakacart_session=x"),
            ("x-forwarded-for", "1.1.1.1, 10.0.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-request-id", "the-request-id"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(headers["traceparent"].to_str().unwrap().contains(&origin.trace.trace_id()));
    }
}
