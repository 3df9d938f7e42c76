//! Subresources with bodies of their own: scale, binding, eviction, tokens.

use crate::app::App;
use crate::auth::User;
use crate::crd;
use crate::delete::{self, Options};
use crate::fieldset::Set;
use crate::managed::{self, Reset, Write};
use crate::schema::Type;
use crate::status::{self, About, Cause, Refusal};
use crate::store::Object;
use crate::write::{Call, apply_patch};
use crate::{body, decode, time};
use serde_json::{Value, json};
use std::sync::Arc;

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
        let mut values: Vec<&str> = values.collect();
        values.sort_unstable();
        let values = values.join(",");
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
    let shown = call.app.shown(&call.target.resource, &live.value);
    has_replicas(call, &shown)?;
    Ok(scale_of(call, &shown))
}

/// A custom resource that does not say how many there are to be cannot be shown as a Scale.
fn has_replicas(call: &Call<'_>, object: &Value) -> Result<(), Refusal> {
    let path = paths(call).wanted;
    if call.target.resource.custom.is_some() && crd::at_path(object, &path).is_null() {
        return Err(Refusal::internal_error(&format!("the spec replicas field {path:?} does not exist")));
    }
    Ok(())
}

/// What a request on `scale` sends.
enum Sent {
    Whole(Value),
    Patch(Value),
    Apply(Value),
}

/// PUT and PATCH of `scale`.
pub fn set_scale(call: &mut Call<'_>, patch: bool) -> Result<Value, Refusal> {
    let ty = App::named_type("autoscaling.v1.Scale");
    let kind = call.request.content_type().to_owned();
    let sent = if !patch {
        Sent::Whole(call.read(&ty, "autoscaling/v1", "Scale")?)
    } else if kind == "application/apply-patch+yaml" {
        if call.request.query.get("fieldManager").is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Refusal::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        Sent::Apply(body::yaml(&call.request.body)?.value)
    } else {
        let parsed = body::json(&call.request.body)
            .map_err(|e| Refusal::bad_request(format!("error decoding patch: {e}")))?;
        Sent::Patch(parsed.value)
    };
    let wanted_path = paths(call).wanted;
    let path: Vec<&str> = wanted_path.trim_start_matches('.').split('.').collect();
    let written = call.retry(|call, live, shown| {
        let resource = call.target.resource.clone();
        let mut before = scale_of(call, shown);
        let owners = managed::scale_entries(shown, &path);
        if !owners.is_empty() {
            before["metadata"]["managedFields"] = owners.into();
        }
        let bad = |e: decode::Error| Refusal::bad_request(e.to_string());
        let mut scale = match &sent {
            Sent::Whole(scale) => scale.clone(),
            Sent::Patch(patch) => {
                decode::canonical(apply_patch(&kind, &before, patch, &ty)?, &ty).map_err(bad)?
            }
            Sent::Apply(config) => apply_scale(call, &before, config, &ty)?,
        };
        check_scale(call, live, &scale)?;
        if !matches!(sent, Sent::Apply(_)) {
            with_scale_write(call, &ty, |write| managed::track_update(&before, &mut scale, write));
        }
        let mut new = shown.clone();
        let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        crd::set_path(&mut new, &wanted_path, wanted.into());
        managed::take_scale(&mut new, &scale, &path, &resource.group_version());
        Ok(new)
    })?;
    Ok(scale_of(call, &written.object))
}

fn with_scale_write<T>(call: &Call<'_>, ty: &Arc<Type>, run: impl FnOnce(&Write<'_>) -> T) -> T {
    run(&Write {
        ty,
        version: "autoscaling/v1",
        manager: &call.manager(),
        subresource: "scale",
        reset: &Reset::Fields(Set::of_fields(&[&["status"]])),
        now: &call.app.now(),
        convert: &|_, _| None,
    })
}

fn apply_scale(call: &Call<'_>, live: &Value, config: &Value, ty: &Arc<Type>) -> Result<Value, Refusal> {
    let force = call.request.query.is_true("force");
    let mut config = config.clone();
    if !config["metadata"].is_object() {
        config["metadata"] = json!({});
    }
    let applied = with_scale_write(call, ty, |write| managed::apply(live, &config, force, write));
    let applied = applied?;
    decode::canonical(applied, ty).map_err(|e| Refusal::bad_request(e.to_string()))
}

fn check_scale(call: &Call<'_>, live: &Object, scale: &Value) -> Result<(), Refusal> {
    let meta = &scale["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    let wanted = &call.target.name;
    if !text("name").is_empty() && text("name") != wanted {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({wanted})",
            text("name")
        )));
    }
    if !text("namespace").is_empty() && text("namespace") != call.target.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let uid = live.value["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        return Err(call.other_uid(text("uid"), uid));
    }
    if !text("resourceVersion").is_empty() && text("resourceVersion") != live.revision.to_string() {
        return Err(Refusal::modified(call.about()));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    // Custom resources have rules of their own.
    if replicas < 0 && call.target.resource.custom.is_none() {
        let cause = Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Refusal::invalid("autoscaling", "Scale", wanted, vec![cause]));
    }
    Ok(())
}

/// POST of `binding`: the scheduler puts a pod on a node.
pub fn bind(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("core.v1.Binding");
    let binding = call.read(&ty, "v1", "Binding")?;
    let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    // In the path there is the pod, or (for the resource `bindings`) nothing.
    let name =
        if call.target.name.is_empty() { text("/metadata/name") } else { &call.target.name }.to_owned();
    if text("/metadata/name") != name {
        return Err(Refusal::bad_request("name in URL does not match name in Binding object"));
    }
    let node = text("/target/name").to_owned();
    let mut causes = Vec::new();
    let kind = &binding["target"]["kind"];
    if !matches!(kind.as_str(), None | Some("" | "Node")) {
        causes.push(Cause::unsupported("target.kind", kind, &["Node", "<empty>"].map(String::from)));
    }
    if node.is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    if !causes.is_empty() {
        let texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        return Err(Refusal::internal(text));
    }
    let key = call.key_of(&name);
    loop {
        let live = call.app.store().get("pods", &key);
        let live = live.ok_or_else(|| Refusal::not_found(About::new("", "pods", &name)))?;
        let taken = live.value["spec"]["nodeName"].as_str().unwrap_or_default();
        let about = || About::new("", "pods/binding", &name);
        if !taken.is_empty() {
            let why = format!("pod {name} is already assigned to node {taken:?}");
            return Err(Refusal::conflict(about(), &why));
        }
        if live.value["metadata"]["deletionTimestamp"].is_string() {
            let why = format!("pod {name} is being deleted, cannot be assigned to a host");
            return Err(Refusal::conflict(about(), &why));
        }
        let mut new = live.value.clone();
        new["spec"]["nodeName"] = node.clone().into();
        set_condition(
            &mut new,
            json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": call.app.now()}),
        );
        if call.dry_run() || call.app.store_mut().update("pods", &key, live.revision, new).is_ok() {
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
///
/// Rules: Kubernetes `pkg/registry/core/pod/storage/eviction.go`.
pub fn evict(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("policy.v1.Eviction");
    let eviction = call.read(&ty, "policy/v1", "Eviction")?;
    if eviction["metadata"]["name"].as_str() != Some(&call.target.name) {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    let live = call.live()?;
    let phase = live.value["status"]["phase"].as_str().unwrap_or_default();
    let gone = matches!(phase, "Succeeded" | "Failed" | "Pending")
        || live.value["metadata"]["deletionTimestamp"].is_string();
    if !gone {
        spend_budget(call, &live)?;
    }
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

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// Takes one disruption from the budget of a pod, when it has one.
fn spend_budget(call: &Call<'_>, pod: &Object) -> Result<(), Refusal> {
    loop {
        let prefix = format!("{}/", call.target.namespace);
        let selects = |budget: &&Arc<Object>| {
            let selector = &budget.value["spec"]["selector"];
            !selector.is_null() && crate::selector::Labels::from_object(selector).matches(&pod.value)
        };
        let budgets: Vec<Arc<Object>> =
            call.app.store().range(BUDGETS, &prefix, "").filter(selects).cloned().collect();
        let budget = match &budgets[..] {
            [] => return Ok(()),
            [budget] => budget,
            _ => {
                return Err(Refusal::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let next = spent(call, &budget.value, &pod.value)?;
        let Some(next) = next else { return Ok(()) };
        if call.dry_run() || call.app.store_mut().update(BUDGETS, &budget.key, budget.revision, next).is_ok()
        {
            return Ok(());
        }
    }
}

/// A budget after one more disruption; `None` when the pod is not ready and counts for nothing.
fn spent(call: &Call<'_>, budget: &Value, pod: &Value) -> Result<Option<Value>, Refusal> {
    let status = &budget["status"];
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.clone().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let healthy_enough = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    if !ready && (healthy_enough || always) {
        return Ok(None);
    }
    let refuse = |message: String, seconds: Option<u32>| {
        let mut refusal =
            Refusal::bad_request("Cannot evict pod as it would violate the pod's disruption budget.");
        refusal.code = 429;
        refusal.reason = "TooManyRequests";
        refusal.about = Some(Box::default());
        refusal.retry_after = seconds;
        refusal.causes = vec![Cause { field: String::new(), reason: "DisruptionBudget", message }];
        refusal
    };
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let message = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refuse(message, Some(10)));
    }
    let left = number("disruptionsAllowed");
    if left < 1 {
        let message = if number("desiredHealthy") > number("currentHealthy") || left < 0 {
            format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            )
        } else {
            format!("The disruption budget {name} does not allow evicting pods currently")
        };
        return Err(refuse(message, None));
    }
    let now = call.app.now();
    let mut next = budget.clone();
    next["status"]["disruptionsAllowed"] = (left - 1).into();
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    next["status"]["disruptedPods"][pod_name] = now.clone().into();
    if left == 1 {
        set_condition(
            &mut next,
            json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "observedGeneration": status["observedGeneration"], "lastTransitionTime": now}),
        );
    }
    let Some(resource) = call.app.catalogue().get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(None);
    };
    let mut next = decode::canonical(next, &resource.ty).map_err(|e| Refusal::bad_request(e.to_string()))?;
    managed::track_update(
        budget,
        &mut next,
        &Write {
            ty: &resource.ty,
            version: "policy/v1",
            manager: "kube-apiserver",
            subresource: "status",
            reset: &Reset::Fields(Set::of_fields(&[&["spec"]])),
            now: &now,
            convert: &|_, _| None,
        },
    );
    Ok(Some(next))
}

/// Shortest life of a token, in seconds.
const SHORTEST: i64 = 600;

/// Longest life of a token that can be asked for, in seconds.
const LONGEST: i64 = 1 << 32;

/// Whom a token is good for unless its request says otherwise.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// POST of `token`: an opaque token for a service account.
pub fn token(call: &mut Call<'_>) -> Result<Value, Refusal> {
    let ty = App::named_type("authentication.v1.TokenRequest");
    let mut request = call.read(&ty, "authentication.k8s.io/v1", "TokenRequest")?;
    let live = call.live()?;
    let invalid = |cause: Cause| {
        Refusal::invalid("authentication.k8s.io", "TokenRequest", &call.target.name, vec![cause])
    };
    for (key, wanted, what) in
        [("name", &call.target.name, "name"), ("namespace", &call.target.namespace, "namespace")]
    {
        let given = &request["metadata"][key];
        if given.as_str().is_some_and(|g| !g.is_empty() && g != wanted) {
            let detail = format!("must match the service account {what} if specified");
            return Err(invalid(Cause::invalid(format!("metadata.{key}"), given, detail)));
        }
    }
    let wanted = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    request["spec"]["expirationSeconds"] = wanted.into();
    let detail = match wanted {
        i64::MIN..SHORTEST => Some("may not specify a duration less than 10 minutes"),
        SHORTEST..=LONGEST => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(detail) = detail {
        let cause = Cause::invalid("spec.expirationSeconds", &json!(wanted), detail);
        return Err(Refusal::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]));
    }
    check_bound(call, &request["spec"]["boundObjectRef"])?;
    let end = time::now()
        .checked_add(jiff::SignedDuration::from_secs(wanted.min(86_400)))
        .unwrap_or_else(|_| time::now());
    let user = User::service_account(&call.target.namespace, &call.target.name);
    let token = if call.dry_run() { String::new() } else { call.app.issue(user, end) };
    managed::track_update(
        &ty.zero(),
        &mut request,
        &Write {
            ty: &ty,
            version: "authentication.k8s.io/v1",
            manager: &call.manager(),
            subresource: "token",
            reset: &Reset::Fields(Set::of_fields(&[&["status"]])),
            now: &call.app.now(),
            convert: &|_, _| None,
        },
    );
    if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = json!([ISSUER]);
    }
    let managed = request["metadata"]["managedFields"].clone();
    request["metadata"] = json!({"name": call.target.name, "namespace": call.target.namespace,
        "uid": live.value["metadata"]["uid"], "creationTimestamp": call.app.now(), "managedFields": managed});
    request["status"] = json!({"token": token, "expirationTimestamp": time::seconds(end)});
    Ok(request)
}

/// The object that a token lives and dies with has to be there.
fn check_bound(call: &Call<'_>, reference: &Value) -> Result<(), Refusal> {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (plural, namespaced) = match (text("apiVersion"), text("kind")) {
        ("", "") => return Ok(()),
        ("v1", "Pod") => ("pods", true),
        ("v1", "Secret") => ("secrets", true),
        ("v1", "Node") => ("nodes", false),
        (version, kind) => {
            return Err(Refusal::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let name = text("name");
    if name.is_empty() {
        return Err(Refusal::bad_request("Name parameter required."));
    }
    let key = if namespaced { format!("{}/{name}", call.target.namespace) } else { name.to_owned() };
    let found = call.app.store().get(plural, &key);
    let found = found.ok_or_else(|| Refusal::not_found(About::new("", plural, name)))?;
    let uid = found.value["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Refusal::conflict(About::new("", plural, name), &why));
    }
    Ok(())
}
