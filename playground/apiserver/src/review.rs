//! Reviews: who am I, what may I do, whose token is this. They are answered and not stored.

use crate::auth::User;
use crate::managed::{self, Reset, Write};
use crate::rbac::{self, Action};
use crate::status::{Cause, Refusal};
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
    if resource.plural.ends_with("accessreviews") {
        let causes = access_causes(&resource.plural, &review);
        if !causes.is_empty() {
            return Err(Refusal::invalid(&resource.group, "", "", causes));
        }
    }
    review["status"] = match resource.plural.as_str() {
        "selfsubjectaccessreviews" => access(call, call.user, &spec),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
            access(call, &User { name: text(&spec["user"]), groups, ..User::default() }, &spec)
        }
        "selfsubjectrulesreviews" => {
            let namespace = text(&spec["namespace"]);
            if namespace.is_empty() {
                return Err(Refusal::bad_request("no namespace on request"));
            }
            review["metadata"] = json!({});
            review["spec"] = json!({});
            rules(call, &namespace)
        }
        "tokenreviews" => {
            let token = text(&spec["token"]);
            if token.is_empty() {
                return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
            }
            match call.app.user_of(&token) {
                Some(user) => json!({"authenticated": true, "user": user.to_value()}),
                None => json!({"user": {}, "error": "invalid bearer token"}),
            }
        }
        _ => {
            review["metadata"]["creationTimestamp"] = now.into();
            json!({"userInfo": call.user.to_value()})
        }
    };
    if !resource.namespaced
        && let Value::Object(metadata) = &mut review["metadata"]
    {
        metadata.shift_remove("namespace");
    }
    Ok(review)
}

/// Rules for reviews of access.
fn access_causes(plural: &str, review: &Value) -> Vec<Cause> {
    let spec = &review["spec"];
    let mut causes = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_null() && path.is_null() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(Cause::invalid("spec.resourceAttributes", &Value::Null, detail));
    }
    if !resource.is_null() && !path.is_null() {
        let shown = json!({"Path": path["path"], "Verb": path["verb"]});
        let detail = "cannot be specified in combination with resourceAttributes";
        causes.push(Cause::invalid("spec.nonResourceAttributes", &shown, detail));
    }
    let nobody = spec["user"].as_str().is_none_or(str::is_empty)
        && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if plural != "selfsubjectaccessreviews" && nobody {
        let detail = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &json!(""), detail));
    }
    if plural == "localsubjectaccessreviews" && resource["namespace"] != review["metadata"]["namespace"] {
        let detail = "must match metadata.namespace";
        let shown = json!(resource["namespace"].as_str().unwrap_or_default());
        causes.push(Cause::invalid("spec.resourceAttributes.namespace", &shown, detail));
    }
    causes
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
    match rbac::why_allowed(call.app, user, &action) {
        None => json!({"allowed": false}),
        Some(why) if why.is_empty() => json!({"allowed": true}),
        Some(why) => json!({"allowed": true, "reason": why}),
    }
}

fn rules(call: &Call<'_>, namespace: &str) -> Value {
    let mut found = rbac::rules(call.app, call.user, namespace);
    if call.user.groups.iter().any(|g| g == "system:masters") {
        found.push(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        found.push(json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
    }
    let pick = |rule: &Value, keys: &[&str]| -> Value {
        let fields = rule.as_object().into_iter().flatten();
        let kept = fields
            .filter(|(k, v)| keys.contains(&k.as_str()) && v.as_array().is_some_and(|list| !list.is_empty()));
        kept.map(|(k, v)| (k.clone(), v.clone())).collect::<serde_json::Map<_, _>>().into()
    };
    let of_kind = |key: &str, keys: &[&str]| -> Vec<Value> {
        let has = |rule: &&Value| rule[key].as_array().is_some_and(|list| !list.is_empty());
        let mut out: Vec<Value> = Vec::new();
        for rule in found.iter().filter(has).map(|rule| pick(rule, keys)) {
            if !out.contains(&rule) {
                out.push(rule);
            }
        }
        out
    };
    let resources = of_kind("resources", &["verbs", "apiGroups", "resources", "resourceNames"]);
    let paths = of_kind("nonResourceURLs", &["verbs", "nonResourceURLs"]);
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
