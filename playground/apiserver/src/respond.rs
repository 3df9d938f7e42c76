//! Answers: which representation the client wants, and the bytes.

use crate::schema::catalogue::Resource;
use crate::status::Refusal;
use crate::table;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// The connection is to end here.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the connection is broken off, as a fault on demand asks")]
pub struct Broken;

/// A response body.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What the client wants to see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Objects.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`.
    Table,
    /// Aggregated discovery.
    Discovery,
}

/// Negotiated from `Accept`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    /// What to show.
    pub shape: Shape,
    /// Whether as YAML.
    pub yaml: bool,
    /// What the rows of a table say of their objects.
    pub include: table::Include,
}

impl Format {
    /// A shape, as JSON or YAML.
    pub fn new(shape: Shape, yaml: bool) -> Format {
        Format { shape, yaml, include: table::Include::Metadata }
    }
}

/// Reads `Accept`; the first alternative that is served counts.
pub fn negotiate(accept: &str) -> Result<Format, Refusal> {
    if accept.trim().is_empty() {
        return Ok(Format::new(Shape::Whole, false));
    }
    for alternative in accept.split(',') {
        let mut parts = alternative.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameter = |key: &str| {
            alternative
                .split(';')
                .filter_map(|p| p.trim().split_once('='))
                .find(|(k, _)| *k == key)
                .map(|(_, v)| v)
        };
        let yaml = match media {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        let shape = match (parameter("as"), parameter("v")) {
            (None, _) => Shape::Whole,
            (Some("Table"), Some("v1") | None) => Shape::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1") | None) => {
                Shape::Metadata
            }
            (Some("APIGroupDiscoveryList"), Some("v2")) => Shape::Discovery,
            _ => continue,
        };
        return Ok(Format::new(shape, yaml));
    }
    Err(Refusal::not_acceptable(
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
}

/// A JSON (or YAML) answer.
pub fn value(code: u16, body: &Value, yaml: bool) -> Response<Body> {
    let (bytes, media) = if yaml {
        (serde_yaml::to_string(body).unwrap_or_default().into_bytes(), "application/yaml")
    } else {
        (serde_json::to_vec(body).unwrap_or_default(), "application/json")
    };
    raw(code, Bytes::from(bytes), media)
}

/// An answer from bytes.
pub fn raw(code: u16, bytes: Bytes, media: &'static str) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// A refusal.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    if let Some(text) = refusal.plain {
        return raw(refusal.code, Bytes::from_static(text.as_bytes()), "text/plain; charset=utf-8");
    }
    let mut response = value(refusal.code, &refusal.body(), false);
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    }
    response
}

/// Adds warnings as headers.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append("warning", header);
        }
    }
}

/// One object in the shape that is asked for. A Status stays what it is.
pub fn shaped(object: &Value, resource: &Resource, format: Format, now: jiff::Timestamp) -> Value {
    if object["kind"] == "Status" {
        return object.clone();
    }
    match format.shape {
        Shape::Whole | Shape::Discovery => object.clone(),
        Shape::Metadata => partial(object),
        Shape::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table::render(resource, std::iter::once(object), metadata, now, format.include)
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl).unwrap().shape, Shape::Table);
        let protobuf = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(negotiate(protobuf).unwrap(), Format::new(Shape::Whole, false));
        assert!(negotiate("application/yaml").unwrap().yaml);
        assert!(negotiate("text/html").is_err());
    }
}
