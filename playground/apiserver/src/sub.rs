//! Subresources with bodies of their own: scale, binding, eviction, tokens.

use crate::app::App;
use crate::auth::User;
use crate::crd;
use crate::delete::{self, Options};
use crate::status::{self, About, Cause, Refusal};
use crate::store::Object;
use crate::write::{Call, apply_patch};
use crate::{body, decode, time};
use serde_json::{Value, json};

/// Where a resource keeps its replica counts.
struct Paths {
    wanted: String,
    current: String,
    selector: Option<String>,
}

fn paths(call: &Call<'_>) -> Paths {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match call.target.resource.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(scale) => Paths {
            wanted: text(&scale["specReplicasPath"]),
            current: text(&scale["statusReplicasPath"]),
            selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
        },
        None => Paths { wanted: ".spec.replicas".into(), current: ".status.replicas".into(), selector: None },
    }
}

/// A label selector as text.
pub fn selector_text(selector: &Value) -> String {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> =
        pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    parts.join(",")
}

fn scale_of(call: &Call<'_>, object: &Value) -> Value {
    let paths = paths(call);
    let meta = &object["metadata"];
    let mut status = json!({"replicas": crd::at_path(object, &paths.current).as_i64().unwrap_or(0)});
    let selector = match (&paths.selector, &call.target.resource.custom) {
        (Some(path), _) => crd::at_path(object, path).as_str().unwrap_or_default().to_owned(),
        (None, None) => selector_text(&object["spec"]["selector"]),
        (None, Some(_)) => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(key) {
            metadata[key] = value.clone();
        }
    }
    let mut spec = json!({});
    match crd::at_path(object, &paths.wanted).as_i64() {
        Some(0) | None => {}
        Some(wanted) => spec["replicas"] = wanted.into(),
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// GET of `scale`.
pub fn get_scale(call: &Call<'_>) -> Result<Value, Refusal> {
    let live = call.live()?;
    Ok(scale_of(call, &call.app.shown(&call.target.resource, &live.value)))
}

/// PUT and PATCH of `scale`.
pub fn set_scale(call: &mut Call<'_>, patch: bool) -> Result<Value, Refusal> {
    let ty = App::named_type("autoscaling.v1.Scale");
    let sent = if patch {
        body::json(&call.request.body)
            .map_err(|e| Refusal::bad_request(format!("error decoding patch: {e}")))?
            .value
    } else {
        call.read(&ty, "autoscaling/v1", "Scale")?
    };
    let kind = call.request.content_type().to_owned();
    let wanted_path = paths(call).wanted;
    let written = call.retry(|call, live, shown| {
        let scale = if patch {
            decode::canonical(apply_patch(&kind, &scale_of(call, shown), &sent, &ty)?, &ty)
                .map_err(|e| Refusal::bad_request(e.to_string()))?
        } else {
            sent.clone()
        };
        let name = scale["metadata"]["name"].as_str().unwrap_or_default();
        if !name.is_empty() && name != call.target.name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.target.name
            )));
        }
        let version = scale["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !version.is_empty() && version != live.revision.to_string() {
            return Err(Refusal::modified(call.about()));
        }
        let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if wanted < 0 {
            let cause = Cause::invalid("spec.replicas", &json!(wanted), "must be greater than or equal to 0");
            return Err(Refusal::invalid("autoscaling", "Scale", &call.target.name, vec![cause]));
        }
        let mut new = shown.clone();
        crd::set_path(&mut new, &wanted_path, wanted.into());
        call.track(shown, &mut new);
        forget_time(&mut new);
        Ok(new)
    })?;
    Ok(scale_of(call, &written.object))
}

/// A real server's entries for the scale subresource carry no time.
fn forget_time(object: &mut Value) {
    if let Some(Value::Array(entries)) = object.pointer_mut("/metadata/managedFields") {
        for entry in
            entries.iter_mut().filter(|e| e["subresource"] == "scale").filter_map(Value::as_object_mut)
        {
            entry.shift_remove("time");
        }
    }
}

/// POST of `binding`: the scheduler puts a pod on a node.
pub fn bind(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("core.v1.Binding");
    let binding = call.read(&ty, "v1", "Binding")?;
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        let cause = Cause::required("target.name", "");
        return Err(Refusal::invalid("", "Binding", &call.target.name, vec![cause]));
    }
    let resource = call.target.resource.clone();
    let table = resource.table();
    loop {
        let live = call.live()?;
        let taken = live.value["spec"]["nodeName"].as_str().unwrap_or_default();
        let about = || About::new("", "pods/binding", &call.target.name);
        if !taken.is_empty() {
            let why = format!("pod {} is already assigned to node {taken:?}", call.target.name);
            return Err(Refusal::conflict(about(), &why));
        }
        if live.value["metadata"]["deletionTimestamp"].is_string() {
            let why = format!("pod {} is being deleted, cannot be assigned to a host", call.target.name);
            return Err(Refusal::conflict(about(), &why));
        }
        let mut new = live.value.clone();
        new["spec"]["nodeName"] = node.clone().into();
        set_condition(
            &mut new,
            json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": call.app.now()}),
        );
        if call.dry_run() {
            return Ok(status::done());
        }
        let key = call.target.key();
        if call.app.store_mut().update(&table, &key, live.revision, new).is_ok() {
            return Ok(status::done());
        }
    }
}

fn set_condition(pod: &mut Value, condition: Value) {
    let slot = &mut pod["status"]["conditions"];
    if !slot.is_array() {
        *slot = json!([]);
    }
    if let Value::Array(list) = slot {
        list.retain(|c| c["type"] != condition["type"]);
        list.push(condition);
    }
}

/// POST of `eviction`: a deletion that respects disruption budgets.
pub fn evict(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("policy.v1.Eviction");
    let eviction = call.read(&ty, "policy/v1", "Eviction")?;
    let live = call.live()?;
    check_budgets(call, &live)?;
    let resource = call.target.resource.clone();
    let options = Options::from_value(&eviction["deleteOptions"]);
    if !call.dry_run() && !options.dry_run() && live.value["metadata"]["deletionTimestamp"].is_null() {
        let mut new = live.value.clone();
        set_condition(
            &mut new,
            json!({"type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            "lastTransitionTime": call.app.now()}),
        );
        // When somebody else wrote in between, the deletion still goes ahead.
        let _ = call.app.store_mut().update(&resource.table(), &call.target.key(), live.revision, new);
    }
    delete::delete(call, &options)?;
    Ok(status::done())
}

fn check_budgets(call: &Call<'_>, pod: &Object) -> Result<(), Refusal> {
    let store = call.app.store();
    let prefix = format!("{}/", call.target.namespace);
    let budgets = store.range("poddisruptionbudgets.policy", &prefix, "");
    for budget in budgets {
        let selector = crate::selector::Labels::from_object(&budget.value["spec"]["selector"]);
        if !selector.matches(&pod.value) || budget.value["spec"]["selector"].is_null() {
            continue;
        }
        if budget.value["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) < 1 {
            let name = budget.value["metadata"]["name"].as_str().unwrap_or_default();
            let mut refusal =
                Refusal::bad_request("Cannot evict pod as it would violate the pod's disruption budget.");
            refusal.code = 429;
            refusal.reason = "TooManyRequests";
            refusal.about = Some(Box::default());
            refusal.causes = vec![Cause {
                field: String::new(),
                reason: "DisruptionBudget",
                message: format!("The disruption budget {name} does not allow another eviction now"),
            }];
            return Err(refusal);
        }
    }
    Ok(())
}

/// Shortest life of a token, in seconds.
const SHORTEST: i64 = 600;

/// POST of `token`: an opaque token for a service account.
pub fn token(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("authentication.v1.TokenRequest");
    let mut request = call.read(&ty, "authentication.k8s.io/v1", "TokenRequest")?;
    call.live()?;
    let wanted = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    if wanted < SHORTEST {
        let detail = "may not specify a duration less than 10 minutes";
        let cause = Cause::invalid("spec.expirationSeconds", &json!(wanted), detail);
        return Err(Refusal::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]));
    }
    let end = time::now()
        .checked_add(jiff::SignedDuration::from_secs(wanted.min(86_400)))
        .unwrap_or_else(|_| time::now());
    let user = User::service_account(&call.target.namespace, &call.target.name);
    let token = if call.dry_run() { String::new() } else { call.app.issue(user, end) };
    request["metadata"] = json!({"name": call.target.name, "namespace": call.target.namespace,
        "creationTimestamp": call.app.now()});
    request["spec"]["expirationSeconds"] = wanted.into();
    request["status"] = json!({"token": token, "expirationTimestamp": time::seconds(end)});
    Ok(request)
}
