//! Smaller answers, and none where the client has it already: gzip, entity tags, 304.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use warp::reply::Response;

/// Bodies below this gain nothing from gzip that a packet would notice.
const WORTH_COMPRESSING: usize = 1024;

/// A body that is kept to be sent often, in every form.
#[derive(Debug, Clone)]
pub struct Encoded {
    plain: Bytes,
    // Made when somebody first asks for it.
    gzip: OnceLock<Bytes>,
    tag: String,
}

impl Encoded {
    /// Names `plain`.
    pub fn new(plain: Bytes) -> Self {
        Self { tag: tag(&plain), gzip: OnceLock::new(), plain }
    }

    /// The compressed form, if that is worth it.
    fn compressed(&self) -> Option<&Bytes> {
        let worth_it = self.plain.len() >= WORTH_COMPRESSING;
        worth_it.then(|| self.gzip.get_or_init(|| gzip(&self.plain, Compression::new(6))))
    }

    /// The answer 200 with this body, in the form that suits `request`, or 304 if the client has it.
    pub fn answer(&self, request: &HeaderMap, content_type: &'static str) -> Response {
        let mut response = Response::default();
        let gzip = if accepts_gzip(request) { self.compressed() } else { None };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        set_tag(headers, &self.tag, gzip.is_some());
        if matches(request, &self.tag) {
            headers.remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        let body = match gzip {
            Some(gzip) => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                gzip.clone()
            }
            None => self.plain.clone(),
        };
        *response.body_mut() = body.into();
        response
    }
}

/// Compresses an answer that has not been, if it is worth it and the client understands it.
pub async fn compress(method: &Method, request: &HeaderMap, response: Response) -> Response {
    let headers = response.headers();
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
        kind.starts_with("text/") || kind.starts_with("application/json") || kind.contains("+json")
    });
    let large = hyper::body::Body::size_hint(response.body())
        .exact()
        .is_some_and(|size| size >= WORTH_COMPRESSING as u64);
    let finished =
        headers.contains_key(header::CONTENT_ENCODING) || headers.contains_key(header::CONTENT_LENGTH);
    if !text || !large || finished || *method == Method::HEAD || !accepts_gzip(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already, so this neither waits nor fails.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let small = gzip(&body, Compression::fast());
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, small.into())
}

/// Name of a body by its content, without quotes: equal on every replica.
pub fn tag(body: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `If-None-Match` names this body (weak comparison, RFC 9110 13.1.2).
fn matches(request: &HeaderMap, tag: &str) -> bool {
    names(request, &header::IF_NONE_MATCH, tag)
}

/// Whether the list of entity tags in header `name` names `tag`; `*` names everything.
pub fn names(request: &HeaderMap, name: &header::HeaderName, tag: &str) -> bool {
    let values = request.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|candidate| {
        let candidate = candidate.strip_prefix("W/").unwrap_or(candidate);
        candidate == "*" || candidate.strip_prefix('"').and_then(|c| c.strip_suffix('"')) == Some(tag)
    })
}

/// A strong tag says "these very bytes", so the compressed form gets a weak one.
pub fn set_tag(headers: &mut HeaderMap, tag: &str, weak: bool) {
    let value = if weak { format!("W/\"{tag}\"") } else { format!("\"{tag}\"") };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(header::ETAG, value);
    }
}

/// Whether a client takes gzip: named, or by `*`, and not with a weight of zero.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let mut any = false;
    let values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for part in values.flat_map(|value| value.split(',')) {
        let mut pieces = part.split(';').map(str::trim);
        let coding = pieces.next().unwrap_or("");
        let refused = pieces.any(|piece| {
            piece.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|w| w <= 0.0)
        });
        if coding.eq_ignore_ascii_case("gzip") {
            return !refused;
        }
        any |= coding == "*" && !refused;
    }
    any
}

fn gzip(body: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), level);
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn gzip_is_negotiated() {
        for (accepted, gzip) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br", false),
            ("gzip;q=0", false),
            ("*", true),
            ("gzip;q=0, *", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&headers(&[("accept-encoding", accepted)])), gzip, "{accepted}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let body = Encoded::new(Bytes::from("x".repeat(5000)));
        let first = body.answer(&headers(&[("accept-encoding", "gzip")]), "text/plain");
        assert_eq!(first.headers()["content-encoding"], "gzip");
        let tag = first.headers()["etag"].to_str().unwrap();
        assert!(tag.starts_with("W/"));
        for known in [tag, &tag[2..], "\"other\", *", &format!("\"a\", {tag}")] {
            let again = body.answer(&headers(&[("if-none-match", known)]), "text/plain");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
        }
        let other = body.answer(&headers(&[("if-none-match", "\"other\"")]), "text/plain");
        assert_eq!(other.status(), StatusCode::OK);
        assert!(!other.headers()["etag"].to_str().unwrap().starts_with("W/"));
    }
}
