//! What the API server answers, and what it means.

use std::time::Duration;

use engine::message::shorten;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kube::core::Status;
use serde_json::Value;

use super::error::{Error, FieldOwner};
use super::request::Call;

/// How one attempt ended.
pub(crate) enum Attempt {
    Answer(Value),
    Failed(Error),
    Again { wait: Option<Duration>, message: String },
}

/// What an answer that is no success means.
pub(crate) fn judge(call: &Call<'_>, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Attempt {
    let status: Status = serde_json::from_slice(body).unwrap_or_else(|_| {
        // Not a Status: a proxy in between, or the server's own overload protection.
        let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
        Status::failure(text.trim(), code.canonical_reason().unwrap_or_default())
    });
    let message = match call.target.kind.gvk.kind.as_str() {
        // What is wrong with a Secret is told by quoting it.
        "Secret" => without_values(message(&status, code)),
        _ => message(&status, code),
    };
    let what = call.target.what();
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value: &HeaderValue| value.to_str().ok()?.parse().ok())
        .or_else(|| {
            status.details.as_ref().map(|details| u64::from(details.retry_after_seconds)).filter(|s| *s > 0)
        })
        .map(Duration::from_secs);
    let again = |message| Attempt::Again { wait: retry_after, message };
    match code.as_u16() {
        401 => Attempt::Failed(Error::Unauthorized(message)),
        // A namespace that is being deleted refuses new objects with 403; waiting for it is the cure.
        403 if has_cause(&status, "NamespaceTerminating") => again(message),
        // Quotas and admission plugins forbid too, but no role would help against them.
        403 if !is_for_want_of_rights(&status) => {
            Attempt::Failed(Error::Invalid { what, immutable: false, message })
        }
        403 => Attempt::Failed(Error::Forbidden {
            who: who(call.user),
            verb: call.verb.to_owned(),
            resource: call.target.resource(),
            namespace: call.target.namespace.map(str::to_owned),
            message,
        }),
        404 => Attempt::Failed(Error::NotFound { what, message }),
        409 if status.reason == "AlreadyExists" => Attempt::Failed(Error::AlreadyExists(what)),
        409 => {
            let fields = field_owners(&status);
            Attempt::Failed(if fields.is_empty() {
                Error::Conflict { what, message }
            } else {
                Error::FieldConflict { what, fields }
            })
        }
        // What does not fit the schema is answered so, without a reason; it will be so again.
        500 if status.message.starts_with("failed to create typed patch object") => {
            Attempt::Failed(Error::Invalid { what, immutable: false, message })
        }
        408 | 429 | 500..=599 => again(message),
        _ => Attempt::Failed(Error::Invalid { what, immutable: immutable(&status), message }),
    }
}

fn who(user: Option<&str>) -> String {
    match user.map(|user| user.strip_prefix("system:serviceaccount:").unwrap_or(user)) {
        Some(account) => format!("ServiceAccount {}", account.replacen(':', "/", 1)),
        None => "the agent".to_owned(),
    }
}

fn has_cause(status: &Status, reason: &str) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
}

/// Reads the causes of a server-side apply conflict: `conflict with "kubectl" using apps/v1`.
fn field_owners(status: &Status) -> Vec<FieldOwner> {
    status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| FieldOwner {
            field: cause.field.clone(),
            manager: cause.message.split('"').nth(1).unwrap_or("an unknown manager").to_owned(),
        })
        .collect()
}

/// Whether every cause of a refusal is that a field cannot be changed.
fn immutable(status: &Status) -> bool {
    // As the validation of the built-in kinds words it; there is no reason of its own for it.
    const WORDS: [&str; 3] =
        ["immutable", "cannot change roleRef", "updates to statefulset spec for fields other than"];
    let mut causes = status.details.iter().flat_map(|details| &details.causes).peekable();
    causes.peek().is_some() && causes.all(|cause| WORDS.iter().any(|word| cause.message.contains(word)))
}

/// RBAC says `User "x" cannot patch resource "y"`.
fn is_for_want_of_rights(status: &Status) -> bool {
    status.message.contains("User \"") && status.message.contains("cannot ")
}

/// What the server says, at a length that people read: some messages quote the whole object, once for
/// each cause.
fn message(status: &Status, code: StatusCode) -> String {
    const CAUSE: usize = 300;
    const WHOLE: usize = 1500;
    let mut causes: Vec<String> = Vec::new();
    for cause in status.details.iter().flat_map(|details| &details.causes) {
        let field = if cause.field.is_empty() { String::new() } else { format!("{}: ", cause.field) };
        let text = format!("{field}{}", shorten(cause.message.trim(), CAUSE));
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    let whole = if !causes.is_empty() {
        causes.join("; ")
    } else if status.message.is_empty() {
        code.to_string()
    } else {
        status.message.clone()
    };
    shorten(&whole, WHOLE)
}

/// A message without the values that API servers quote when they refuse an object.
fn without_values(message: String) -> String {
    let cuts = [", got ", "Invalid value: ", "Unsupported value: ", "Duplicate value: ", "cannot unmarshal "];
    match cuts.iter().filter_map(|cut| message.find(cut).map(|at| at + cut.len())).min() {
        Some(at) => format!("{}[hidden]", &message[..at]),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_secret_holds_is_not_quoted() {
        let server = "failed to create typed patch object (shop/pin; /v1, Kind=Secret): .stringData.pin: expected \
                      string, got &value.valueUnstructured{Value:4711}";
        let told = super::without_values(server.to_owned());
        assert!(
            told.contains(".stringData.pin: expected string, got [hidden]") && !told.contains("4711"),
            "{told}"
        );
        assert_eq!(super::without_values("not found".to_owned()), "not found");
    }

    use super::super::Kind;
    use super::super::request::Target;
    use super::*;
    use serde_json::json;

    fn judged(code: u16, body: &Value) -> Attempt {
        let kind = Kind::known("apps/v1", "Deployment", "deployments");
        let target = Target::object(&kind, Some("shop"), "backend");
        let call = Call::apply(target, &json!({}), "m", false)
            .on_behalf_of(Some("system:serviceaccount:ops:deployer"));
        judge(&call, StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body.to_string().as_bytes())
    }

    #[test]
    fn a_refusal_for_want_of_rights_names_who_what_and_where() {
        let message =
            "deployments.apps \"x\" is forbidden: User \"system:serviceaccount:ops:deployer\" cannot patch";
        let Attempt::Failed(error) = judged(403, &json!({"kind": "Status", "message": message})) else {
            panic!("must fail");
        };
        let expected = "ServiceAccount ops/deployer may not patch deployments.apps in namespace shop: ";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.metric_label(), "forbidden");
        let quota = json!({"kind": "Status", "message": "pods \"x\" is forbidden: exceeded quota: q"});
        assert!(matches!(judged(403, &quota), Attempt::Failed(Error::Invalid { .. })));
    }

    #[test]
    fn a_conflict_names_the_fields_and_their_managers() {
        let body = json!({"kind": "Status", "reason": "Conflict", "message": "Apply failed", "details": {"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using apps/v1", "field": ".spec.replicas"}
        ]}});
        let Attempt::Failed(Error::FieldConflict { fields, .. }) = judged(409, &body) else {
            panic!("must conflict")
        };
        assert_eq!(fields, [FieldOwner { field: ".spec.replicas".into(), manager: "kubectl".into() }]);
    }

    #[test]
    fn only_what_can_pass_is_tried_again() {
        for code in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(judged(code, &json!("busy")), Attempt::Again { .. }), "{code}");
        }
        for code in [400, 401, 403, 404, 409, 410, 413, 415, 422] {
            assert!(matches!(judged(code, &json!({"message": "no"})), Attempt::Failed(_)), "{code}");
        }
        let wait = json!({"message": "x", "details": {"retryAfterSeconds": 7}});
        assert!(matches!(judged(429, &wait), Attempt::Again { wait: Some(wait), .. } if wait.as_secs() == 7));
    }

    #[test]
    fn what_does_not_fit_the_schema_is_not_tried_again() {
        let message = "failed to create typed patch object (/x; /v1, Kind=ConfigMap): .bogus: field not declared in schema";
        let answer = json!({"kind": "Status", "code": 500, "message": message});
        assert!(
            matches!(judged(500, &answer), Attempt::Failed(Error::Invalid { message: m, .. }) if m == message)
        );
    }

    #[test]
    fn immutability_is_told_from_other_refusals_and_long_messages_are_cut() {
        let refused = |messages: &[String]| {
            let causes: Vec<Value> = messages
                .iter()
                .map(|message| json!({"field": "spec.template", "message": message}))
                .collect();
            let status = json!({"kind": "Status", "reason": "Invalid", "message": "long", "details": {"causes": causes}});
            match judged(422, &status) {
                Attempt::Failed(Error::Invalid { immutable, message, .. }) => (immutable, message),
                _ => panic!("must be refused"),
            }
        };
        let fixed = format!("Invalid value: {}: field is immutable", "x".repeat(100));
        let (immutable, message) = refused(&[fixed.clone(), fixed.clone()]);
        assert!(immutable);
        assert_eq!(message, format!("spec.template: {fixed}"));
        assert!(!refused(&[fixed, "Required value".to_owned()]).0);
        assert!(refused(&["x".repeat(100_000)]).1.len() < 400);
    }
}
