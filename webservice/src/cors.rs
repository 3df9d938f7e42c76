//! Cross-origin requests: which other sites' scripts may call the API.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Origins such as `https://shop.example`. There is no wildcard: sessions are cookies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Arc<[HeaderValue]>);

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, if-match, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, idempotency-replayed, location, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, \
     x-dhakacart-version, x-request-id",
);

impl Origins {
    /// Reads origins separated by commas.
    ///
    /// # Errors
    /// A sentence about what is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it must be origins such as https://shop.example, separated by commas";
        let mut origins = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let uri: http::Uri = part.parse().map_err(|_| FORM)?;
            let plain = matches!(uri.scheme_str(), Some("https" | "http"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && part.matches('/').count() == 2;
            if !plain {
                return Err(FORM);
            }
            origins.push(HeaderValue::from_str(&part.to_ascii_lowercase()).map_err(|_| FORM)?);
        }
        Ok(Self(origins.into()))
    }

    /// The origin of a request if it is an allowed one.
    pub fn allowed(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        self.0.iter().find(|allowed| *allowed == origin)
    }

    /// Tells the browser that `origin` may read an answer; and what else it may send, if it only asked.
    pub fn permit(&self, origin: Option<&HeaderValue>, preflight: bool, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // Caches must keep the answers to different sites apart.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let yes = HeaderValue::from_static("true");
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        if preflight {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        } else {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Whether a request only asks what would be allowed.
pub fn is_preflight(method: &http::Method, headers: &HeaderMap) -> bool {
    const ASKED: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;
    *method == http::Method::OPTIONS && headers.contains_key(ASKED) && headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        let origins = Origins::parse("https://a.example, http://localhost:3000").unwrap();
        let allowed = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            origins.allowed(&headers).is_some()
        };
        assert!(allowed("https://a.example") && allowed("http://localhost:3000"));
        assert!(!allowed("https://a.example.evil") && !allowed("null") && !allowed("http://a.example"));
        for bad in ["*", "a.example", "https://a.example/", "https://u@a.example", "file:///x"] {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }
}
