//! One request as handlers see it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use warp::Filter;
use warp::reject::Rejection;

use crate::admin::{self, Admin, AuditEntry};
use crate::app::App;
use crate::encode;
use crate::problem::Problem;
use crate::product::{Product, shorten};
use crate::request::Origin;
use crate::session::Session;
use crate::store::Store;

/// Everything that a handler may need.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) headers: HeaderMap,
    /// Query parameters in order, decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Bytes,
    origin: Origin,
}

/// Extracts the call.
pub(super) fn call(app: &Arc<App>) -> impl Filter<Extract = (Call,), Error = Rejection> + Clone + use<> {
    let app = Arc::clone(app);
    warp::header::headers_cloned()
        .and(warp::query::<Vec<(String, String)>>())
        .and(warp::body::bytes())
        .and(warp::ext::get::<Origin>())
        .map(move |headers, query, body, origin| {
            let app = Arc::clone(&app);
            Call { app, headers, query, body, origin }
        })
}

impl Call {
    /// The database.
    ///
    /// # Errors
    /// 503 while it is not open.
    pub(super) fn store(&self) -> Result<&Store, Problem> {
        self.app.store()
    }

    /// The visitor's session.
    pub(super) fn session(&self) -> Session {
        Session::of(&self.headers)
    }

    /// The body, which must be JSON.
    ///
    /// # Errors
    /// 415 or 400.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.require_json()?;
        // serde_json's messages speak of the client's own input only.
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::bad_request(shorten_to(&error.to_string(), 200)))
    }

    /// # Errors
    /// 415: browsers send other types across sites without asking, so this also stops forged forms.
    pub(super) fn require_json(&self) -> Result<(), Problem> {
        let media_type = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or("").split(';').next().unwrap_or("").trim();
        if media_type.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::not_json()) }
    }

    /// The key that makes a retry safe.
    ///
    /// # Errors
    /// 400 if it is not text.
    pub(super) fn idempotency_key(&self) -> Result<Option<&str>, Problem> {
        let Some(value) = self.headers.get("idempotency-key") else { return Ok(None) };
        let text = value.to_str();
        Ok(Some(text.map_err(|_| Problem::invalid("Idempotency-Key", "it must be ASCII text"))?))
    }

    /// Whoever holds the request's token.
    ///
    /// # Errors
    /// 401 without an acceptable one, 403 where there are no administrators.
    pub(super) fn admin(&self) -> Result<Admin, Problem> {
        let Some(keys) = &self.app.keys else {
            return Err(Problem::forbidden("this shop has no administrators; see ADMIN_KEYS_FILE"));
        };
        let token =
            self.bearer().ok_or_else(|| Problem::unauthorized("send Authorization: Bearer and a token"))?;
        admin::verify(&keys.current(), token, Timestamp::now()).map_err(|error| {
            tracing::warn!(%error, client = %self.origin.client, request_id = %self.origin.request_id, "a token was refused");
            Problem::unauthorized("the token is not valid or has expired")
        })
    }

    /// Whether the request claims to be an administrator's.
    pub(super) fn has_token(&self) -> bool {
        self.bearer().is_some()
    }

    fn bearer(&self) -> Option<&str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The record of what `admin` does with this request.
    pub(super) fn audit(
        &self,
        admin: Admin,
        action: &'static str,
        target: &str,
        detail: Value,
    ) -> AuditEntry {
        AuditEntry {
            at: Timestamp::now(),
            actor: admin.name,
            client: self.origin.client.to_string(),
            request_id: self.origin.request_id.to_string(),
            action,
            target: target.to_owned(),
            detail,
        }
    }

    /// Whether `If-Match`, if it was sent, names what the product is now.
    pub(super) fn expects(&self, product: &Product) -> bool {
        !self.headers.contains_key(header::IF_MATCH)
            || encode::names(&self.headers, &header::IF_MATCH, &product.tag())
    }
}

/// The identifier in a path.
pub(super) fn identifier(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && (1..=i64::from(i32::MAX)).contains(id))
}

fn shorten_to(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { shorten(text) + "..." }
}
