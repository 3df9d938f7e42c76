//! The agent's HTTP side: probes, metrics, webhooks, and a page to look at.
//!
//! Everything but the webhooks is read-only and needs no credentials; actions go through the Kubernetes
//! API, so that its access control and audit cover them.

mod board;
mod hooks;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};

pub use board::{EnvironmentView, GateView, TransitionView};
pub use hooks::{HookEvent, Provider};

use crate::secret::Secret;
use crate::telemetry::Telemetry;

/// The largest webhook that is read, in bytes.
const MAX_HOOK: usize = 1 << 20;
/// How long the body of a webhook may take.
const HOOK_TIME: Duration = Duration::from_secs(10);

/// What the server shows and whom it tells.
pub struct Deps {
    /// Whether the agent knows its cluster: what `/readyz` says.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// The metrics, and where webhooks are counted.
    pub telemetry: Telemetry,
    /// What webhooks are signed with; without it they are refused.
    pub hook_secret: Option<Secret<String>>,
    /// Told of each genuine webhook; says how many sources it concerns.
    pub on_hook: Box<dyn Fn(HookEvent) -> usize + Send + Sync>,
    /// The environments as they are now.
    pub board: Box<dyn Fn() -> Vec<EnvironmentView> + Send + Sync>,
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the web server cannot listen on {address}: {source}; choose another address with --http")]
pub struct HttpError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: std::io::Error,
}

/// A running server.
#[derive(Debug)]
pub struct Serving {
    /// Where it listens; the port is the real one if 0 was asked for.
    pub address: SocketAddr,
    /// Ends when the server has stopped.
    pub task: JoinHandle<()>,
}

/// Serves until `stop` becomes true (or its sender is gone), then finishes the requests under way.
///
/// # Errors
/// [`HttpError`] if the address cannot be used.
pub async fn serve(
    address: SocketAddr,
    deps: Deps,
    mut stop: watch::Receiver<bool>,
) -> Result<Serving, HttpError> {
    let failed = |source| HttpError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let stopped = async move {
        // A sender that is gone means the end too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let server = warp::serve(routes(Arc::new(deps))).incoming(listener).graceful(stopped);
    Ok(Serving { address, task: tokio::spawn(server.run()) })
}

type Answer = Response<String>;

fn routes(
    deps: Arc<Deps>,
) -> impl Filter<Extract = (impl warp::Reply,), Error = std::convert::Infallible> + Clone {
    let with = {
        let deps = Arc::clone(&deps);
        warp::any().map(move || Arc::clone(&deps))
    };
    // The path comes before the method: only then is an unknown path "not found".
    let reading = || warp::get().or(warp::head()).unify();
    let livez = warp::path!("livez").and(reading()).map(|| text(StatusCode::OK, "ok\n"));
    let readyz =
        warp::path!("readyz").and(reading()).and(with.clone()).map(|deps: Arc<Deps>| match (deps.ready)() {
            true => text(StatusCode::OK, "ok\n"),
            false => {
                text(StatusCode::SERVICE_UNAVAILABLE, "the environments of the cluster are not known yet\n")
            }
        });
    let metrics = warp::path!("metrics")
        .and(reading())
        .and(with.clone())
        .map(|deps: Arc<Deps>| answer(StatusCode::OK, Telemetry::CONTENT_TYPE, deps.telemetry.encode()));
    let environments =
        warp::path!("api" / "environments").and(reading()).and(with.clone()).map(|deps: Arc<Deps>| {
            match serde_json::to_string(&(deps.board)()) {
                Ok(body) => answer(StatusCode::OK, "application/json", body),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            }
        });
    let page = warp::path::end().and(reading()).and(with.clone()).map(|deps: Arc<Deps>| {
        answer(StatusCode::OK, "text/html; charset=utf-8", board::page(&(deps.board)()))
    });
    let read = livez.or(readyz).unify().or(metrics).unify().or(environments).unify().or(page).unify();
    let hook = warp::path!("hooks" / Provider)
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(with)
        .then(|provider: Provider, headers: HeaderMap, body, deps: Arc<Deps>| async move {
            match tokio::time::timeout(HOOK_TIME, receive(body)).await {
                Ok(Ok(body)) => hook(&deps, provider, &headers, &body),
                Ok(Err(refusal)) => refusal,
                Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
            }
        });
    read.or(hook).unify().recover(refuse).unify()
}

/// The body of a webhook, if it is not too large.
async fn receive<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>>) -> Result<Vec<u8>, Answer> {
    let mut body = std::pin::pin!(body);
    let mut received = Vec::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| text(StatusCode::BAD_REQUEST, "the body broke off\n"))?;
        if received.len() + chunk.remaining() > MAX_HOOK {
            return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB is read\n"));
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            received.extend_from_slice(part);
            let length = part.len();
            chunk.advance(length);
        }
    }
    Ok(received)
}

/// A webhook: genuine first, then readable, then acted upon.
fn hook(deps: &Deps, provider: Provider, headers: &HeaderMap, body: &[u8]) -> Answer {
    let count = |result: &str| deps.telemetry.hook(provider.name(), result);
    let Some(secret) = &deps.hook_secret else {
        count("closed");
        return text(StatusCode::NOT_FOUND, "webhooks are closed: start the agent with --webhook-secret\n");
    };
    if !hooks::genuine(provider, secret, headers, body) {
        count("refused");
        tracing::warn!(provider = provider.name(), "a webhook with a wrong or missing signature was refused");
        return text(StatusCode::UNAUTHORIZED, "the signature is missing or wrong\n");
    }
    match hooks::parse(provider, headers, body) {
        Ok(Some(event)) => {
            let sources = (deps.on_hook)(event);
            count("accepted");
            answer(StatusCode::ACCEPTED, "application/json", format!("{{\"sources\":{sources}}}\n"))
        }
        Ok(None) => {
            count("ignored");
            text(StatusCode::OK, "nothing to do for this kind of event\n")
        }
        Err(problem) => {
            count("malformed");
            text(StatusCode::BAD_REQUEST, &format!("{problem}\n"))
        }
    }
}

async fn refuse(rejection: warp::Rejection) -> Result<Answer, std::convert::Infallible> {
    let (status, sentence) = if rejection.is_not_found() {
        (StatusCode::NOT_FOUND, "there is /, /api/environments, /metrics, /livez, /readyz and /hooks/...\n")
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        (StatusCode::METHOD_NOT_ALLOWED, "this page is read with GET; webhooks are sent with POST\n")
    } else {
        (StatusCode::BAD_REQUEST, "the request makes no sense\n")
    };
    Ok(text(status, sentence))
}

fn text(status: StatusCode, sentence: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", sentence.to_owned())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        ("content-type", content_type),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        // Nothing is loaded from anywhere; the page's style and its refresh are its own.
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, warp::http::HeaderValue::from_static(value));
    }
    answer
}
