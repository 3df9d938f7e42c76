//! Failures as clients see them: `metav1.Status` bodies with the wording of a real API server.

use serde_json::{Map, Value, json};

/// One entry of `details.causes`: what is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Path of the field, as `spec.ports[0].name`.
    pub field: String,
    /// Machine-readable reason, as `FieldValueRequired`; empty where a real server sends none.
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
}

impl Cause {
    /// A value that is not acceptable; `value` is printed as Go prints it.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Cause {
        let message = format!("Invalid value: {}: {}", go_value(value), detail.as_ref());
        Cause { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// A value that must be set; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Cause { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A change or value that is not permitted here.
    pub fn forbidden(field: impl Into<String>, detail: impl AsRef<str>) -> Cause {
        let message = format!("Forbidden: {}", detail.as_ref());
        Cause { field: field.into(), reason: "FieldValueForbidden", message }
    }

    /// A second element with the same key.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        let message = format!("Duplicate value: {}", go_value(value));
        Cause { field: field.into(), reason: "FieldValueDuplicate", message }
    }

    /// A value outside an enumeration.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[String]) -> Cause {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", go_value(value), list.join(", "));
        Cause { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// A string or list that is longer than allowed.
    pub fn too_long(field: impl Into<String>, detail: impl AsRef<str>) -> Cause {
        let message = format!("Too long: {}", detail.as_ref());
        Cause { field: field.into(), reason: "FieldValueTooLong", message }
    }

    /// Marks a field whose fault has been told in other words. It is no complaint and is not shown.
    pub fn settled(field: impl Into<String>) -> Cause {
        Cause { field: field.into(), reason: "", message: String::new() }
    }

    /// Whether it only marks a field.
    pub fn is_settled(&self) -> bool {
        self.reason.is_empty() && self.message.is_empty()
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        if !self.reason.is_empty() {
            out.insert("reason".into(), self.reason.into());
        }
        out.insert("message".into(), self.message.clone().into());
        if !self.field.is_empty() {
            out.insert("field".into(), self.field.clone().into());
        }
        Value::Object(out)
    }
}

/// How `field.Invalid` prints a value: strings quoted, the rest as JSON.
fn go_value(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whom a Status is about (`details`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// API group; empty for the core group.
    pub group: String,
    /// Resource (`configmaps`) or kind (`ConfigMap`), as a real server has it in the same place.
    pub kind: String,
    /// Object name; empty for collections.
    pub name: String,
}

impl About {
    /// Names a resource (or kind) and an object in it.
    pub fn new(group: &str, kind: &str, name: &str) -> About {
        About { group: group.into(), kind: kind.into(), name: name.into() }
    }

    /// `deployments.apps`, or `configmaps` in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// `deployments.apps "d"`, as messages have it.
    pub fn quoted(&self) -> String {
        if self.name.is_empty() { self.qualified() } else { format!("{} {:?}", self.qualified(), self.name) }
    }
}

/// A refused request: the HTTP code and the body that goes with it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason; empty where a real server sends none.
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
    /// What the failure is about; `Some` of an empty value prints `details: {}`.
    pub about: Option<Box<About>>,
    /// What is wrong, field by field.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// Token with which a list can go on all the same.
    pub next: Option<Box<str>>,
    /// When set, the body is this plain text instead of a Status.
    pub plain: Option<&'static str>,
}

impl Refusal {
    fn plain_new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal {
            code,
            reason,
            message,
            about: None,
            causes: Vec::new(),
            retry_after: None,
            next: None,
            plain: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::plain_new(400, "BadRequest", message)
    }

    /// 401: the token is not known.
    pub fn unauthorized() -> Refusal {
        Refusal::plain_new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 with the wording of the authorizer or of admission.
    pub fn forbidden(about: About, why: &str) -> Refusal {
        let message = match about.quoted() {
            nothing if nothing.is_empty() => format!("forbidden: {why}"),
            what => format!("{what} is forbidden: {why}"),
        };
        Refusal { about: Some(Box::new(about)), ..Refusal::plain_new(403, "Forbidden", message) }
    }

    /// 404: no such object.
    pub fn not_found(about: About) -> Refusal {
        let message = format!("{} not found", about.quoted());
        Refusal { about: Some(Box::new(about)), ..Refusal::plain_new(404, "NotFound", message) }
    }

    /// 404: no such resource in a group-version that exists.
    pub fn no_resource() -> Refusal {
        let message = "the server could not find the requested resource";
        Refusal { about: Some(Box::default()), ..Refusal::plain_new(404, "NotFound", message) }
    }

    /// 404 in plain text: no such path.
    pub fn no_path() -> Refusal {
        Refusal {
            plain: Some("404 page not found\n"),
            ..Refusal::plain_new(404, "NotFound", "404 page not found")
        }
    }

    /// 405: the resource does not have this verb.
    pub fn method_not_allowed() -> Refusal {
        let message = "the server does not allow this method on the requested resource";
        Refusal { about: Some(Box::default()), ..Refusal::plain_new(405, "MethodNotAllowed", message) }
    }

    /// 406: no representation that the client accepts.
    pub fn not_acceptable(message: impl Into<String>) -> Refusal {
        Refusal::plain_new(406, "NotAcceptable", message)
    }

    /// 406: no representation of a collection that the client accepts.
    pub fn no_representation() -> Refusal {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf, application/json;stream=watch, \
                       application/vnd.kubernetes.protobuf;stream=watch";
        Refusal { about: Some(Box::default()), ..Refusal::plain_new(406, "NotAcceptable", message) }
    }

    /// 409: creation of an object that exists.
    pub fn already_exists(about: About) -> Refusal {
        let message = format!("{} already exists", about.quoted());
        Refusal { about: Some(Box::new(about)), ..Refusal::plain_new(409, "AlreadyExists", message) }
    }

    /// 409: a precondition or the resourceVersion does not hold.
    pub fn conflict(about: About, why: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {}: {why}", about.quoted());
        Refusal { about: Some(Box::new(about)), ..Refusal::plain_new(409, "Conflict", message) }
    }

    /// 409: the stored object is newer than the one that the client read.
    pub fn modified(about: About) -> Refusal {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Refusal::conflict(about, why)
    }

    /// 409: server-side apply met fields of other managers.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Refusal {
        Refusal { about: Some(Box::default()), causes, ..Refusal::plain_new(409, "Conflict", message) }
    }

    /// 410: the resourceVersion is no longer in the history.
    pub fn gone(message: impl Into<String>) -> Refusal {
        Refusal::plain_new(410, "Expired", message)
    }

    /// 415: the body has a type that is not understood.
    pub fn unsupported_media(message: impl Into<String>, about: Option<About>) -> Refusal {
        Refusal { about: about.map(Box::new), ..Refusal::plain_new(415, "UnsupportedMediaType", message) }
    }

    /// 413: the body is larger than the server reads.
    pub fn too_large() -> Refusal {
        Refusal::plain_new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")
    }

    /// 422: the object breaks its kind's rules. `kind` is the kind, not the resource.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Refusal {
        let about = About::new(group, kind, name);
        let mut lines: Vec<String> = Vec::new();
        for cause in &causes {
            let line = format!("{}: {}", cause.field, cause.message);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let text = if lines.len() == 1 { lines.concat() } else { format!("[{}]", lines.join(", ")) };
        let message = format!("{} {:?} is invalid: {text}", about.qualified(), name);
        Refusal { about: Some(Box::new(about)), causes, ..Refusal::plain_new(422, "Invalid", message) }
    }

    /// 422 without saying what is wrong, as for a JSON patch that does not fit.
    pub fn unprocessable() -> Refusal {
        let message = "the server rejected our request due to an error in our request";
        Refusal { about: Some(Box::default()), ..Refusal::plain_new(422, "Invalid", message) }
    }

    /// 500 without a reason, as server-side apply reports a body outside the schema.
    pub fn internal(message: impl Into<String>) -> Refusal {
        Refusal::plain_new(500, "", message)
    }

    /// 429: the server has too much to do.
    pub fn too_many_requests(seconds: u32) -> Refusal {
        let message = "Too many requests, please try again later.";
        Refusal {
            about: Some(Box::default()),
            retry_after: Some(seconds),
            ..Refusal::plain_new(429, "TooManyRequests", message)
        }
    }

    /// 500: the server has a problem of its own.
    pub fn internal_error(why: &str) -> Refusal {
        let message = format!("Internal error occurred: {why}");
        let cause = Cause { field: String::new(), reason: "", message: why.to_owned() };
        Refusal {
            about: Some(Box::default()),
            causes: vec![cause],
            ..Refusal::plain_new(500, "InternalError", message)
        }
    }

    /// 503: the server is not there for now.
    pub fn unavailable(seconds: Option<u32>) -> Refusal {
        let message = "the server is currently unable to handle the request";
        Refusal {
            about: Some(Box::default()),
            retry_after: seconds,
            ..Refusal::plain_new(503, "ServiceUnavailable", message)
        }
    }

    /// 504: the resourceVersion lies in the future.
    pub fn future_version(wanted: u64, current: u64) -> Refusal {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let cause = Cause {
            field: String::new(),
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".into(),
        };
        Refusal {
            about: Some(Box::default()),
            causes: vec![cause],
            retry_after: Some(1),
            ..Refusal::plain_new(504, "Timeout", message)
        }
    }

    /// The Status body.
    pub fn body(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), "Status".into());
        out.insert("apiVersion".into(), "v1".into());
        let metadata = self.next.as_ref().map_or(json!({}), |token| json!({"continue": token}));
        out.insert("metadata".into(), metadata);
        out.insert("status".into(), "Failure".into());
        out.insert("message".into(), self.message.clone().into());
        if !self.reason.is_empty() {
            out.insert("reason".into(), self.reason.into());
        }
        if let Some(about) = &self.about {
            let mut details = details(about, "");
            if !self.causes.is_empty() {
                details.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
            }
            if let Some(seconds) = self.retry_after {
                details.insert("retryAfterSeconds".into(), seconds.into());
            }
            out.insert("details".into(), Value::Object(details));
        }
        out.insert("code".into(), self.code.into());
        Value::Object(out)
    }
}

fn details(about: &About, uid: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in
        [("name", &about.name[..]), ("group", &about.group[..]), ("kind", &about.kind[..]), ("uid", uid)]
    {
        if !value.is_empty() {
            out.insert(key.into(), value.into());
        }
    }
    out
}

/// The Status of a finished deletion.
pub fn deleted(about: &About, uid: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details(about, uid)})
}

/// The Status of a created binding or eviction.
pub fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
