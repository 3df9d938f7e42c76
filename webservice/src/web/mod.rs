//! The frontend: serves the pages and hands everything under `/api` to the backend.

mod proxy;

use bytes::Bytes;
use http::{Method, Request};
use warp::reply::Response;

use crate::config::WebConfig;
use crate::edge::Edge;
use crate::endpoint::Kind;
use crate::problem::Problem;
use crate::request::{Origin, Role};
use crate::routes::{operations, page};
use proxy::Proxy;

/// The running frontend's state.
#[derive(Debug)]
pub struct Web {
    edge: Edge,
    proxy: Proxy,
}

impl Web {
    /// A frontend that serves nobody yet.
    pub fn new(config: &WebConfig) -> Self {
        Self { edge: Edge::new(config.edge()), proxy: Proxy::new(config) }
    }

    /// Looks for the backend until it has answered once. Until then the frontend is not ready, so that one with a
    /// wrong address never replaces one that works. Later it stays ready whatever the backend does: taking all
    /// frontends away would turn a failing part into a failing whole.
    pub async fn find_backend(&self) {
        self.proxy.find_backend(&self.edge.lifecycle).await;
    }

    async fn probe(&self, path: &str) -> Response {
        let version = &self.edge.settings.version;
        match path {
            "/health" => operations::healthy(version),
            "/metrics" => operations::metrics(&self.edge.metrics, self.edge.gauges()),
            _ if self.edge.lifecycle.is_draining() => operations::readiness(Some("shutting down"), version),
            _ if !self.proxy.has_answered() => {
                operations::readiness(Some("the backend has not answered yet"), version)
            }
            _ => operations::readiness(None, version),
        }
    }
}

impl Role for Web {
    fn edge(&self) -> &Edge {
        &self.edge
    }

    async fn respond(&self, kind: Kind, origin: &Origin, request: Request<Bytes>) -> Response {
        let path = request.uri().path();
        if path == "/api" || path.starts_with("/api/") {
            return self.proxy.forward(&self.edge.metrics, origin, request).await;
        }
        let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
        let found = match kind {
            Kind::Probe => Some(self.probe(path).await),
            _ => page(path, request.headers()),
        };
        match found {
            None => Problem::not_found("check the path").into_response(),
            Some(_) if *request.method() != Method::GET => Problem::method_not_allowed().into_response(),
            Some(response) => response,
        }
    }

    fn too_late(&self) -> Problem {
        Problem::gateway_timeout()
    }
}
