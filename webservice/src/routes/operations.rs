//! For machines: liveness, readiness, metrics.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::json;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::json;
use crate::app::App;
use crate::encode::Encoded;
use crate::metrics::{Gauges, Metrics};

/// What the API promises.
static OPENAPI: LazyLock<Encoded> =
    LazyLock::new(|| Encoded::new(include_str!("../../api/openapi.json").into()));

/// Longest wait for the database's sign of life; probes give up after one second by default.
const PING_TIMEOUT: Duration = Duration::from_millis(800);

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let health = warp::path!("health").and(warp::get()).and(with(app)).map(health);
    let ready = warp::path!("ready").and(warp::get()).and(with(app)).then(ready);
    let metrics = warp::path!("metrics")
        .and(warp::get())
        .and(with(app))
        .map(|app: Arc<App>| metrics(&app.edge.metrics, app.gauges()));
    let document = warp::path!("api" / "openapi.json")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .map(|headers: HeaderMap| OPENAPI.answer(&headers, "application/json"));
    health.or(ready).unify().or(metrics).unify().or(document).unify().boxed()
}

/// Gives a filter access to the shop.
fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app))
}

/// The process is alive. The database is none of liveness' business: a restart would not mend it.
fn health(app: Arc<App>) -> Response {
    healthy(&app.config.version)
}

/// The answer of whatever lives.
pub(crate) fn healthy(version: &str) -> Response {
    json(&json!({ "status": "ok", "version": version }))
}

/// Traffic is welcome: not draining, and the database answers.
async fn ready(app: Arc<App>) -> Response {
    let reason = if app.edge.lifecycle.is_draining() {
        Some("shutting down")
    } else {
        match app.open_store() {
            None => Some("the database is not reachable yet"),
            Some(store) => match tokio::time::timeout(PING_TIMEOUT, store.ping()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "not ready");
                    Some("the database fails")
                }
                Err(_) => Some("the database does not answer in time"),
            },
        }
    };
    readiness(reason, &app.config.version)
}

/// The answer of whatever is ready, or why it is not.
pub(crate) fn readiness(reason: Option<&str>, version: &str) -> Response {
    match reason {
        None => json(&json!({ "status": "ready", "version": version })),
        Some(reason) => {
            let body = json!({ "status": "not ready", "reason": reason, "version": version });
            let mut response = json(&body);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

/// Metrics as Prometheus reads them.
pub(crate) fn metrics(metrics: &Metrics, gauges: Gauges) -> Response {
    const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    warp::reply::with_header(metrics.render(gauges), "content-type", TEXT_FORMAT).into_response()
}
