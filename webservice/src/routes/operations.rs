//! For machines: liveness, readiness, metrics.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{json, with};
use crate::app::App;

/// Longest wait for the database's sign of life; probes give up after one second by default.
const PING_TIMEOUT: Duration = Duration::from_millis(800);

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let health = warp::path!("health").and(warp::get()).and(with(app)).map(health);
    let ready = warp::path!("ready").and(warp::get()).and(with(app)).then(ready);
    let metrics = warp::path!("metrics").and(warp::get()).and(with(app)).map(metrics);
    health.or(ready).unify().or(metrics).unify().boxed()
}

/// The process is alive. The database is none of liveness' business: a restart would not mend it.
fn health(app: Arc<App>) -> Response {
    json(&json!({ "status": "ok", "version": app.config.version }))
}

/// Traffic is welcome: not draining, and the database answers.
async fn ready(app: Arc<App>) -> Response {
    let reason = if app.lifecycle.is_draining() {
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
    match reason {
        None => json(&json!({ "status": "ready", "version": app.config.version })),
        Some(reason) => {
            let body = json!({ "status": "not ready", "reason": reason, "version": app.config.version });
            let mut response = json(&body);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

fn metrics(app: Arc<App>) -> Response {
    const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    warp::reply::with_header(app.render_metrics(), "content-type", TEXT_FORMAT).into_response()
}
