//! The backend: the API, and the pages for whoever runs it alone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::service::Service;
use warp::reply::Response;

use crate::app::App;
use crate::cors::is_preflight;
use crate::edge::Edge;
use crate::endpoint::Kind;
use crate::problem::Problem;
use crate::request::{Origin, Role};

/// The backend's routes with what stands before them: limits, faults, permission for other sites.
#[derive(Debug)]
pub struct Api<S> {
    app: Arc<App>,
    routes: S,
}

impl<S> Api<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response, Error = Infallible> + Send + Sync,
    S::Future: Send,
{
    /// A backend that answers by `routes`.
    pub fn new(app: Arc<App>, routes: S) -> Self {
        Self { app, routes }
    }

    async fn answer(&self, kind: Kind, request: Request<Bytes>) -> Response {
        if kind == Kind::Api {
            if let Some(latency) = self.app.faults.latency() {
                tokio::time::sleep(latency).await;
            }
            if self.app.faults.crashes() {
                tracing::error!("the fault switch ends this process");
                std::process::abort();
            }
            if self.app.faults.fails() {
                self.app.edge.metrics.fault();
                return Problem::internal().into_response();
            }
        }
        match self.routes.call(request.map(Full::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl<S> Role for Api<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send,
{
    fn edge(&self) -> &Edge {
        &self.app.edge
    }

    async fn respond(&self, kind: Kind, origin: &Origin, request: Request<Bytes>) -> Response {
        if kind != Kind::Api {
            return self.answer(kind, request).await;
        }
        let origins = &self.app.config.cors_origins;
        let site = origins.allowed(request.headers()).cloned();
        let preflight = site.is_some() && is_preflight(request.method(), request.headers());
        let allowance = self.app.limiter.as_ref().map(|limiter| limiter.take(origin.client, Instant::now()));
        let mut response = if allowance.is_some_and(|allowance| !allowance.granted) {
            self.app.edge.metrics.rate_limited();
            Problem::too_many().into_response()
        } else if preflight {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            self.answer(kind, request).await
        };
        origins.permit(site.as_ref(), preflight, response.headers_mut());
        if let Some(allowance) = allowance {
            allowance.describe(response.headers_mut());
        }
        response
    }

    fn too_late(&self) -> Problem {
        Problem::unavailable("the request took too long")
    }
}
