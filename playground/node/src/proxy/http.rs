//! The Ingress: an HTTP/1.1 reverse proxy that goes to the pods directly.
//!
//! A request that has not been sent yet is sent to another pod when its connection turns out to be closed, whatever
//! its method. One that may have been received is repeated only if that changes nothing (GET, HEAD, OPTIONS without
//! a body).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::rules::Rules;
use super::table::{Lease, Table};

pub(crate) type RequestBody = BoxBody<Bytes, hyper::Error>;
type ResponseBody = BoxBody<Bytes, hyper::Error>;

/// The proxy's state.
pub(crate) struct Ingress {
    table: Arc<Table>,
    rules: RwLock<Arc<Rules>>,
}

impl Ingress {
    pub fn new(table: Arc<Table>) -> Ingress {
        Ingress { table, rules: RwLock::default() }
    }

    /// Takes over new rules for all requests from now on.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> Response<ResponseBody> {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .or_else(|| request.uri().host())
            .unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        let rules = self.rules();
        let Some(backend) = rules.find(name, request.uri().path()) else {
            let text = format!("no Ingress rule matches host {name:?} and path {:?}\n", request.uri().path());
            return plain(StatusCode::NOT_FOUND, text);
        };
        let unavailable = || {
            let text = format!("no endpoint of service {}/{} is ready\n", backend.namespace, backend.service);
            plain(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let mut outgoing = Outgoing::new(request, client);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut failure = None;
        loop {
            // Looked up anew for every attempt: what is ready may have changed since the first.
            let ready = self.table.ready(&backend.namespace, &backend.service, &backend.port);
            let Some(lease) = self.table.choose(&ready, &tried) else {
                return match failure {
                    Some(text) => plain(StatusCode::BAD_GATEWAY, text),
                    None => unavailable(),
                };
            };
            let address = lease.address;
            match self.attempt(&mut outgoing, lease).await {
                Attempt::Answered(response) => return response,
                Attempt::Stale => {}
                Attempt::Failed(error) => {
                    tracing::debug!(%address, %error, "another endpoint is tried");
                    tried.push(address);
                    failure = Some(format!("no endpoint answered; the last was {address}: {error}\n"));
                }
                Attempt::Lost(error) => {
                    return plain(StatusCode::BAD_GATEWAY, format!("endpoint {address}: {error}\n"));
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, outgoing: &mut Outgoing, lease: Lease) -> Attempt {
        let address = lease.address;
        let (mut connection, reused) = match self.table.idle.take(address) {
            Some(connection) => (connection, true),
            None => match connect(address).await {
                Ok(connection) => (connection, false),
                Err(error) => return Attempt::Failed(error.to_string()),
            },
        };
        let Some(request) = outgoing.next() else {
            return Attempt::Lost("the connection broke after the request was sent".to_owned());
        };
        match connection.try_send_request(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                remove_hop_headers(&mut parts.headers);
                let body = Answer {
                    body,
                    connection: Some(connection),
                    lease: Some(lease),
                    table: Arc::clone(&self.table),
                };
                Attempt::Answered(Response::from_parts(parts, BodyExt::boxed(body)))
            }
            Err(mut error) => {
                let unsent = error.take_message();
                let message = error.into_error().to_string();
                if let Some(request) = unsent {
                    outgoing.put_back(request);
                    // A connection that was closed while idle says nothing about its pod.
                    return if reused { Attempt::Stale } else { Attempt::Failed(message) };
                }
                if !outgoing.is_repeatable() {
                    return Attempt::Lost(message);
                }
                if reused { Attempt::Stale } else { Attempt::Failed(message) }
            }
        }
    }
}

enum Attempt {
    Answered(Response<ResponseBody>),
    /// The connection was closed; the same endpoint may be asked on another one.
    Stale,
    /// The endpoint cannot be asked; another one may be.
    Failed(String),
    /// The request may have had an effect and cannot be repeated.
    Lost(String),
}

async fn connect(
    address: SocketAddr,
) -> Result<SendRequest<RequestBody>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to a pod ended");
        }
    });
    Ok(sender)
}

/// The request to a pod, as long as it can be sent again.
struct Outgoing {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Option<RequestBody>,
    empty: bool,
}

impl Outgoing {
    fn new(request: Request<Incoming>, client: SocketAddr) -> Outgoing {
        let (mut parts, body) = request.into_parts();
        let empty = body.is_end_stream();
        remove_hop_headers(&mut parts.headers);
        forward(&mut parts.headers, client);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let uri = target.parse().unwrap_or_else(|_| Uri::from_static("/"));
        Outgoing { method: parts.method, uri, headers: parts.headers, body: Some(body.boxed()), empty }
    }

    fn is_repeatable(&self) -> bool {
        self.empty && matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// The request for the next attempt; none if its body is spent.
    fn next(&mut self) -> Option<Request<RequestBody>> {
        let body = match self.body.take() {
            Some(body) => body,
            None if self.empty => Empty::new().map_err(|never: Infallible| match never {}).boxed(),
            None => return None,
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    fn put_back(&mut self, request: Request<RequestBody>) {
        self.body = Some(request.into_body());
    }
}

/// Headers that concern one connection only (RFC 9110, section 7.6.1).
fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
}

/// Tells the pod who asked. A client's own claims are replaced: this proxy is the first in the line.
fn forward(headers: &mut HeaderMap, client: SocketAddr) {
    let address = client.ip().to_string();
    if let Ok(value) = HeaderValue::from_str(&address) {
        headers.insert("x-forwarded-for", value.clone());
        headers.insert("x-real-ip", value);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}

fn plain(status: StatusCode, text: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A pod's answer on its way to the client. At its end the connection is free for the next request.
struct Answer {
    body: Incoming,
    connection: Option<SendRequest<RequestBody>>,
    lease: Option<Lease>,
    table: Arc<Table>,
}

impl Answer {
    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let Some(mut connection) = self.connection.take() else { return };
        let (table, address) = (Arc::clone(&self.table), lease.address);
        drop(lease);
        tokio::spawn(async move {
            if connection.ready().await.is_ok() {
                table.idle.keep(address, connection);
            }
        });
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(_))) => {
                self.lease = None;
                self.connection = None;
            }
            _ if self.body.is_end_stream() => self.finish(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // An answer without a body is dropped without being read.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}

/// Serves the Ingress until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, ingress: Arc<Ingress>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: closing connections give some back.
                tracing::warn!(%error, "the Ingress could not accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let ingress = Arc::clone(&ingress);
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let ingress = Arc::clone(&ingress);
                async move { Ok::<_, Infallible>(ingress.answer(request, client).await) }
            });
            let server = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = server.await {
                tracing::trace!(%error, "a client's connection ended");
            }
        });
    }
}
