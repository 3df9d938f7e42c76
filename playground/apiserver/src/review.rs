//! Reviews: who am I, what may I do, whose token is this. They are answered and not stored.

use crate::auth::User;
use crate::managed::{self, Reset, Write};
use crate::rbac::{self, Action};
use crate::status::Refusal;
use crate::write::Call;
use serde_json::{Value, json};

/// Resources that are answered here.
pub fn is_review(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews"
                | "subjectaccessreviews"
                | "localsubjectaccessreviews"
                | "selfsubjectrulesreviews"
        ) | ("authentication.k8s.io", "tokenreviews" | "selfsubjectreviews")
    )
}

/// POST of a review.
pub fn answer(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let resource = call.target.resource.clone();
    let mut review = call.read(&resource.ty, &resource.group_version(), &resource.kind)?;
    let reset = Reset::Fields(crate::fieldset::Set::of_fields(&[&["status"]]));
    let version = resource.group_version();
    let now = call.app.now();
    let write = Write {
        ty: &resource.ty,
        version: &version,
        manager: &call.manager(),
        subresource: "",
        reset: &reset,
        now: &now,
        convert: &|_, _| None,
    };
    managed::track_update(&resource.ty.zero(), &mut review, &write);
    let spec = review["spec"].clone();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    review["status"] = match resource.plural.as_str() {
        "selfsubjectaccessreviews" => access(call, call.user, &spec),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
            access(call, &User { name: text(&spec["user"]), groups }, &spec)
        }
        "selfsubjectrulesreviews" => rules(call, &text(&spec["namespace"])),
        "tokenreviews" => {
            let token = text(&spec["token"]);
            match call.app.user_of(&token) {
                Some(user) => json!({"authenticated": true, "user": user.to_value()}),
                None => json!({"user": {}, "error": "the token is not known"}),
            }
        }
        _ => json!({"userInfo": call.user.to_value()}),
    };
    Ok(review)
}

fn access(call: &Call<'_>, user: &User, spec: &Value) -> Value {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let attributes = &spec["resourceAttributes"];
    let action = if attributes.is_object() {
        Action {
            verb: text(&attributes["verb"]),
            group: text(&attributes["group"]),
            resource: text(&attributes["resource"]),
            subresource: text(&attributes["subresource"]),
            namespace: text(&attributes["namespace"]),
            name: text(&attributes["name"]),
            path: String::new(),
        }
    } else {
        let attributes = &spec["nonResourceAttributes"];
        Action { verb: text(&attributes["verb"]), path: text(&attributes["path"]), ..Action::default() }
    };
    json!({"allowed": rbac::allowed(call.app, user, &action)})
}

/// Everything that the user may do in a namespace.
fn rules(call: &Call<'_>, namespace: &str) -> Value {
    let mut on_resources = Vec::new();
    let mut on_paths = Vec::new();
    let list = |rule: &Value, key: &str| -> Vec<Value> { rule[key].as_array().cloned().unwrap_or_default() };
    for rule in rbac::rules(call.app, call.user, namespace) {
        let verbs = list(&rule, "verbs");
        if !list(&rule, "resources").is_empty() {
            let mut out = json!({"verbs": verbs, "apiGroups": list(&rule, "apiGroups"),
                "resources": list(&rule, "resources")});
            let names = list(&rule, "resourceNames");
            if !names.is_empty() {
                out["resourceNames"] = names.into();
            }
            on_resources.push(out);
        }
        let paths = list(&rule, "nonResourceURLs");
        if !paths.is_empty() {
            on_paths.push(json!({"verbs": verbs, "nonResourceURLs": paths}));
        }
    }
    json!({"resourceRules": on_resources, "nonResourceRules": on_paths, "incomplete": false})
}
