//! Errors as clients see them: `application/problem+json` after RFC 9457.
//!
//! A problem says what the client did or can do. Causes inside the shop go to the log only.

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use warp::reply::Response;

/// What went wrong with one request, in words meant for its sender.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Stable identifier of the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The same for each problem of this kind.
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    /// This occurrence.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// Which parameters or fields are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

#[derive(Debug, Clone, Serialize)]
struct FieldError {
    field: String,
    detail: String,
}

/// Collects everything that is wrong with a request, so that its sender learns of it at once.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldError>);

impl Checks {
    /// Notes what is wrong with `field` unless `good`.
    pub fn check(&mut self, good: bool, field: impl Into<String>, detail: impl Into<String>) {
        if !good {
            self.0.push(FieldError { field: field.into(), detail: detail.into() });
        }
    }

    /// # Errors
    /// 400 with everything that was noted.
    pub fn finish(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let mut problem = Problem::bad_request(match self.0.len() {
            1 => format!("{}: {}", first.field, first.detail),
            count => format!("{count} fields cannot be used; see errors"),
        });
        problem.errors = self.0;
        Err(problem)
    }
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:dhakacart:problem:{kind}"),
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 400: the request's parameters cannot be used.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be understood", detail)
    }

    /// 400 for one parameter or field.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let mut problem = Self::bad_request(format!("{field}: {detail}"));
        problem.errors.push(FieldError { field, detail });
        problem
    }

    /// 401: who is asking must be known.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "An administrator's token is needed", detail)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not allowed", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "see the Allow header for what can be done here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not offered", detail)
    }

    /// 408: the request's body did not arrive in time.
    pub fn slow_request() -> Self {
        let detail = "send the request again, faster";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-request", "The request took too long to arrive", detail)
    }

    /// 409: not enough in stock.
    pub fn out_of_stock(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "out-of-stock", "Not enough in stock", detail)
    }

    /// 409: the thing is in a state that does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "This is not possible now", detail)
    }

    /// 412: somebody else was faster.
    pub fn changed_meanwhile() -> Self {
        let detail = "it was changed meanwhile; read it again and decide anew";
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "The precondition does not hold", detail)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("at most {limit} bytes are accepted");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// 415.
    pub fn not_json() -> Self {
        let detail = "send application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The request must be JSON", detail)
    }

    /// 422: well-formed, but cannot be done.
    pub fn unprocessable(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unprocessable",
            "The request cannot be fulfilled",
            format!("{field}: {detail}"),
        );
        problem.errors.push(FieldError { field, detail });
        problem
    }

    /// 429.
    pub fn too_many() -> Self {
        let detail = "wait as long as the Retry-After header says";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many requests", detail)
    }

    /// 502: the frontend cannot reach the backend.
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad-gateway", "The shop's backend cannot be reached", detail)
    }

    /// 504: the backend does not answer.
    pub fn gateway_timeout() -> Self {
        let detail = "an order may have been placed nevertheless; look before ordering again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "gateway-timeout", "The shop's backend took too long", detail)
    }

    /// 500, without a cause: that is in the log under the request's id.
    pub fn internal() -> Self {
        let detail = "the failure was logged; quote the x-request-id header when reporting it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The shop failed", detail)
    }

    /// 503: try again shortly.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The shop cannot answer right now", detail)
    }

    /// The HTTP answer.
    pub fn into_response(self) -> Response {
        // A struct of strings and a number always serialises; the fallback keeps this free of panics.
        let body = serde_json::to_string(&self).unwrap_or_else(|_| "{}".to_owned());
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"dhakacart\"");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}
