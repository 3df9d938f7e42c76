//! The rules that objects must keep, with the causes that a real server reports.
//!
//! Rules: Kubernetes `pkg/apis/*/validation`.

mod batch;
mod cel;
mod core;
mod custom;
mod definition;
mod golang;
mod immutable;
pub mod meta;
mod networking;
mod pod;
mod policy;
mod ratchet;
mod scaling;
mod service;
mod storage;
mod workload;

use crate::schema::catalogue::Resource;
use crate::schema::{Struct, Type};
use crate::status::Cause;
use serde_json::Value;

/// Rules for a new object.
pub fn create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = meta::object(resource, object);
    kind(resource, object, None, &mut causes);
    causes
}

/// Rules for a changed object.
pub fn update(resource: &Resource, subresource: &str, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = meta::update(resource, new, old);
    if resource.is("", "pods") && subresource == "ephemeralcontainers" {
        pod::ephemeral_containers(&new["spec"], causes.as_mut());
        immutable::ephemeral_containers(new, old, &mut causes);
        return causes;
    }
    if !subresource.is_empty() && resource.custom.is_none() {
        if resource.is("", "services") && subresource == "status" {
            service::status(new, &mut causes);
        }
        if resource.is("batch", "jobs") && subresource == "status" {
            batch::status(new, &mut causes);
        }
        return causes;
    }
    kind(resource, new, Some(old), &mut causes);
    causes.extend(immutable::check(resource, new, old));
    causes
}

fn kind(resource: &Resource, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(custom) = &resource.custom {
        causes.extend(custom::check(object, old, &custom.schema));
        if let Some(path) = custom.scale.as_ref().and_then(|s| s["specReplicasPath"].as_str()) {
            custom::scale(object, path, causes);
        }
        return;
    }
    workload::check(resource, object, old.is_none(), causes);
    core::check(resource, object, old, causes);
    policy::check(resource, object, causes);
    networking::check(resource, object, causes);
    storage::check(resource, object, causes);
    if let Some(ty) = resource.ty.as_struct() {
        enumerations(object, ty, "", causes);
    }
    causes.retain(|cause| !cause.is_settled());
}

/// Strings that must be one of a few, wherever the schema says so. Statuses are not checked, nor are fields that kinds
/// check with words of their own.
fn enumerations(object: &Value, ty: &Struct, path: &str, causes: &mut Vec<Cause>) {
    for (name, field) in &ty.fields {
        let value = &object[name];
        if value.is_null() || (path.is_empty() && name == "status") {
            continue;
        }
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (&*field.ty, value) {
            (Type::String, Value::String(text))
                if !field.allowed.is_empty()
                    && !text.is_empty()
                    && !field.allowed.contains(text)
                    && !causes.iter().any(|c| c.field == below) =>
            {
                causes.push(Cause::unsupported(below, value, &field.allowed));
            }
            (Type::Struct(inner), Value::Object(_)) => enumerations(value, inner, &below, causes),
            (Type::List(list), Value::Array(items)) => {
                if let Type::Struct(inner) = &*list.element {
                    for (index, item) in items.iter().enumerate() {
                        enumerations(item, inner, &format!("{below}[{index}]"), causes);
                    }
                }
            }
            _ => {}
        }
    }
}
