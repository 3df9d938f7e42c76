//! ResourceQuotas: what a namespace may hold.
//!
//! A quota counts from its status on, which the controller of quotas keeps; what is created is added here. Rules:
//! https://kubernetes.io/docs/concepts/policy/resource-quotas/ and k8s.io/apiserver `pkg/admission/plugin/resourcequota`.

use crate::managed::{self, Reset, Write};
use crate::status::{About, Refusal};
use crate::store::Object;
use crate::write::Call;
use crate::{decode, fieldset};
use engine::object::Quantity;
use engine::object::quota::{Amounts, selects, usage};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Attempts to count in a quota that others count in too, before giving up.
const ATTEMPTS: usize = 20;

/// Compute resources that a quota limits and a container does not say.
fn unsaid(hard: &Value, spec: &Value) -> Option<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in hard.as_object().into_iter().flatten().map(|(k, _)| k.as_str()) {
        let (key, resource) = match name.split_once('.') {
            Some((key @ ("requests" | "limits"), resource)) => (key, resource),
            _ => ("requests", name),
        };
        if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") {
            continue;
        }
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                if container["resources"][key].get(resource).is_none() {
                    missing.entry(name).or_default().push(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    let texts: Vec<String> =
        missing.into_iter().map(|(name, who)| format!("{name} for: {}", who.join(","))).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Refuses a new object that a quota has no room for, and counts it in otherwise.
pub fn count(call: &Call<'_>, object: &Value) -> Result<(), Refusal> {
    let resource = &call.target.resource;
    if call.target.namespace.is_empty() || !call.target.subresource.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if call.app.store().get(&resource.table(), &call.key_of(name)).is_some() {
        // It will be refused for that.
        return Ok(());
    }
    let prefix = format!("{}/", call.target.namespace);
    let quotas: Vec<Arc<Object>> = call.app.store().range("resourcequotas", &prefix, "").cloned().collect();
    if quotas.is_empty() {
        return Ok(());
    }
    let wanted = usage(&resource.group, &resource.plural, object);
    let refuse = |why: &str| Refusal::forbidden(About::new(&resource.group, &resource.plural, name), why);
    let mut counted = Vec::new();
    for quota in quotas.iter().filter(|q| selects(&q.value, &resource.plural, object)) {
        let title = quota.value["metadata"]["name"].as_str().unwrap_or_default();
        let hard = &quota.value["status"]["hard"];
        if resource.is("", "pods")
            && let Some(missing) = unsaid(hard, &object["spec"])
        {
            return Err(refuse(&format!("failed quota: {title}: must specify {missing}")));
        }
        if let Some(why) = exceeded(&quota.value, &wanted) {
            return Err(refuse(&format!("exceeded quota: {title}, {why}")));
        }
        if wanted.keys().any(|key| hard.get(key).is_some()) {
            counted.push(quota.key.clone());
        }
    }
    if call.dry_run() {
        return Ok(());
    }
    for key in counted {
        add(call, &key, &wanted).map_err(|why| refuse(&why))?;
    }
    Ok(())
}

/// What there is no room for.
fn exceeded(quota: &Value, wanted: &Amounts) -> Option<String> {
    let (hard, used) = (&quota["status"]["hard"], &quota["status"]["used"]);
    let amount = |from: &Value, key: &str| from[key].as_str().and_then(Quantity::parse);
    let mut parts: [Vec<String>; 3] = Default::default();
    for (key, more) in wanted {
        let Some(most) = amount(hard, key) else { continue };
        let now = amount(used, key).unwrap_or(Quantity::whole(0));
        if now.plus(more).nano() > most.nano() {
            for (part, value) in parts.iter_mut().zip([more, &now, &most]) {
                part.push(format!("{key}={value}"));
            }
        }
    }
    let [requested, used, limited] = parts.map(|p| p.join(","));
    (!requested.is_empty()).then(|| format!("requested: {requested}, used: {used}, limited: {limited}"))
}

/// Adds to what a quota says is used, as the API server itself does.
fn add(call: &Call<'_>, key: &str, wanted: &Amounts) -> Result<(), String> {
    let app = call.app;
    let Some(resource) = app.catalogue().get("", "v1", "resourcequotas") else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        let Some(live) = app.store().get("resourcequotas", key) else { return Ok(()) };
        if let Some(why) = exceeded(&live.value, wanted) {
            let title = live.value["metadata"]["name"].as_str().unwrap_or_default();
            return Err(format!("exceeded quota: {title}, {why}"));
        }
        let mut next = live.value.clone();
        for (name, more) in
            wanted.iter().filter(|(name, _)| live.value["status"]["hard"].get(*name).is_some())
        {
            let used = &live.value["status"]["used"][name];
            let now = used.as_str().and_then(Quantity::parse).unwrap_or(Quantity::whole(0));
            next["status"]["used"][name] = now.plus(more).to_string().into();
        }
        let Ok(mut next) = decode::canonical(next, &resource.ty) else { return Ok(()) };
        let now = app.now();
        let write = Write {
            ty: &resource.ty,
            version: "v1",
            manager: "kube-apiserver",
            subresource: "status",
            reset: &Reset::Fields(fieldset::Set::of_fields(&[&["spec"]])),
            now: &now,
            convert: &|_, _| None,
        };
        managed::track_update(&live.value, &mut next, &write);
        if app.store_mut().update("resourcequotas", key, live.revision, next).is_ok() {
            return Ok(());
        }
    }
    Err("the quota is being changed by too many at once; try again".into())
}
