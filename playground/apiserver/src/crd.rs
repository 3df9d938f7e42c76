//! CustomResourceDefinitions: from the stored object to served resources, and the way back.

use crate::app::App;
use crate::managed::{self, Reset, Write};
use crate::schema::catalogue::Resource;
use crate::schema::custom;
use crate::store::Object;
use crate::{decode, fieldset};
use serde_json::{Map, Value, json};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
const TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Sets the defaults that a structural schema declares. `null` gives way to a default unless it is allowed.
pub fn defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let replace = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => property["nullable"] != true,
                    Some(_) => false,
                };
                match property.get("default") {
                    Some(default) if replace => {
                        fields.insert(name.clone(), default.clone());
                    }
                    _ if replace => {
                        fields.shift_remove(name);
                    }
                    _ => {}
                }
                if let Some(inner) = fields.get_mut(name) {
                    defaults(inner, property);
                }
            }
            if let additional @ Value::Object(_) = &schema["additionalProperties"] {
                let declared = schema["properties"].as_object();
                for (name, inner) in fields.iter_mut() {
                    if !declared.is_some_and(|d| d.contains_key(name)) {
                        defaults(inner, additional);
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| defaults(item, &schema["items"])),
        _ => {}
    }
}

/// Follows the write of an object: a definition starts, changes or stops being served.
pub fn after_write(app: &App, resource: &Resource, stored: &Object) {
    if !resource.is(GROUP, PLURAL) {
        return;
    }
    let definition = &stored.value;
    if definition["metadata"]["deletionTimestamp"].is_string() {
        clean_up(app, definition);
        return;
    }
    let next = accepted(app, resource, definition);
    let is_established = |definition: &Value| {
        let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    // Names that another definition has are not served, unless they already were.
    if is_established(next.as_ref().unwrap_or(definition)) {
        serve(app, definition);
    }
    if let Some(next) = next {
        // A racing write accepts the names itself.
        let _ = app.store_mut().update(TABLE, &stored.key, stored.revision, next);
    }
}

fn serve(app: &App, definition: &Value) {
    let resources = custom::resources(definition);
    let (group, plural) = names(definition);
    app.change_catalogue(|catalogue| {
        catalogue.remove(&group, &plural);
        resources.into_iter().for_each(|r| catalogue.add(r));
    });
}

fn names(definition: &Value) -> (String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&definition["spec"]["group"]), text(&definition["spec"]["names"]["plural"]))
}

/// The names of a definition that no other one of its group has, and what is wrong with the others.
///
/// Rules: k8s.io/apiextensions-apiserver `pkg/controller/status/naming_controller.go`.
fn negotiated(app: &App, definition: &Value) -> (Value, Option<(&'static str, String)>) {
    let wanted = &definition["spec"]["names"];
    let own = definition["metadata"]["name"].as_str().unwrap_or_default();
    let (mut resources, mut kinds): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for other in app.store().range(TABLE, "", "") {
        if other.key == own || other.value["spec"]["group"] != definition["spec"]["group"] {
            continue;
        }
        let taken = &other.value["status"]["acceptedNames"];
        resources.extend([taken["plural"].clone(), taken["singular"].clone()]);
        resources.extend(taken["shortNames"].as_array().cloned().unwrap_or_default());
        kinds.extend([taken["kind"].clone(), taken["listKind"].clone()]);
    }
    let taken =
        |list: &[Value], name: &Value| name.as_str().is_some_and(|n| !n.is_empty()) && list.contains(name);
    let before = &definition["status"]["acceptedNames"];
    let mut accepted = before.clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict = None;
    let checks: [(&str, &'static str, &[Value]); 5] = [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ];
    for (key, reason, list) in checks {
        let single = std::slice::from_ref(&wanted[key]);
        let asked = wanted[key].as_array().map_or(single, Vec::as_slice);
        let had = std::slice::from_ref(&before[key]);
        let had = before[key].as_array().map_or(had, Vec::as_slice);
        let bad: Vec<String> = asked
            .iter()
            .filter(|name| !had.contains(name) && taken(list, name))
            .map(|name| format!("{name} is already in use"))
            .collect();
        if bad.is_empty() {
            match wanted.get(key) {
                Some(value) => accepted[key] = value.clone(),
                None => drop(accepted.as_object_mut().map(|names| names.shift_remove(key))),
            }
        } else {
            conflict = Some((reason, bad.join(", ")));
        }
    }
    match wanted.get("categories") {
        Some(value) => accepted["categories"] = value.clone(),
        None => drop(accepted.as_object_mut().map(|names| names.shift_remove("categories"))),
    }
    (accepted, conflict)
}

/// The definition with accepted names and conditions; `None` when it has them.
fn accepted(app: &App, resource: &Resource, definition: &Value) -> Option<Value> {
    let (accepted, conflict) = negotiated(app, definition);
    let status = &definition["status"];
    let found = |kind: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|c| c["type"] == kind).cloned()
    };
    let now = app.now();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let same = found(kind).filter(|c| c["status"] == status);
        let since = same.map_or(json!(now), |c| c["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
    };
    let named = match &conflict {
        None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", "False", reason, message),
    };
    let established = match found("Established").filter(|c| c["status"] == "True") {
        Some(already) => already,
        None if conflict.is_none() => {
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
        }
        None => condition("Established", "False", "NotAccepted", "not all names are accepted"),
    };
    let same = |c: &Value| {
        let kind = c["type"].as_str().unwrap_or_default();
        found(kind).is_some_and(|f| ["status", "reason", "message"].iter().all(|k| f[*k] == c[*k]))
    };
    if status["acceptedNames"] == accepted && same(&named) && same(&established) {
        return None;
    }
    let mut next = definition.clone();
    next["status"]["acceptedNames"] = accepted;
    next["status"]["conditions"] = json!([named, established]);
    let mut next = decode::canonical(next, &resource.ty).ok()?;
    let write = Write {
        ty: &resource.ty,
        version: &resource.group_version(),
        manager: "kube-apiserver",
        subresource: "status",
        reset: &Reset::Fields(fieldset::Set::of_fields(&[&["spec"]])),
        now: &now,
        convert: &|_, _| None,
    };
    managed::track_update(definition, &mut next, &write);
    Some(next)
}

/// Marks a definition that is being deleted.
pub fn mark_terminating(app: &App, definition: &mut Value) {
    let finalizers = definition["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == CLEANUP) {
        let all: Vec<Value> = finalizers.into_iter().chain([json!(CLEANUP)]).collect();
        definition["metadata"]["finalizers"] = all.into();
    }
    let condition = json!({"type": "Terminating", "status": "True", "lastTransitionTime": app.now(),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"});
    match &mut definition["status"]["conditions"] {
        Value::Array(list) => list.push(condition),
        other => *other = json!([condition]),
    }
}

/// Deletes the instances of a definition that is being deleted, and the definition with the last of them.
fn clean_up(app: &App, definition: &Value) {
    let (group, plural) = names(definition);
    let table = format!("{plural}.{group}");
    let instances: Vec<_> = app.store().range(&table, "", "").cloned().collect();
    let mut left = false;
    for instance in instances {
        let held = instance.value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let marked = instance.value["metadata"]["deletionTimestamp"].is_string();
        if held {
            left = true;
            if !marked {
                let mut next = instance.value.clone();
                next["metadata"]["deletionTimestamp"] = app.now().into();
                next["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                let _ = app.store_mut().update(&table, &instance.key, instance.revision, next);
            }
        } else {
            left |= app.store_mut().delete(&table, &instance.key, instance.revision).is_err();
        }
    }
    if left {
        return;
    }
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let others = |f: &&Value| **f != CLEANUP;
    let kept: Vec<Value> = definition["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(others)
        .cloned()
        .collect();
    let mut store = app.store_mut();
    let Some(live) = store.get(TABLE, name) else { return };
    if kept.is_empty() {
        let _ = store.delete(TABLE, name, live.revision);
        store.close(&table);
        drop(store);
        app.change_catalogue(|catalogue| catalogue.remove(&group, &plural));
    } else {
        let mut next = live.value.clone();
        next["metadata"]["finalizers"] = kept.into();
        let _ = store.update(TABLE, name, live.revision, next);
    }
}

/// Follows the removal of an object: the last instance takes a dying definition with it.
pub fn after_delete(app: &App, resource: &Resource, gone: &Object) {
    if resource.is(GROUP, PLURAL) {
        let (group, plural) = names(&gone.value);
        app.change_catalogue(|catalogue| catalogue.remove(&group, &plural));
    } else if resource.custom.is_some() {
        let definition = app.store().get(TABLE, &resource.table());
        if let Some(definition) = definition.filter(|d| d.value["metadata"]["deletionTimestamp"].is_string())
        {
            clean_up(app, &definition.value);
        }
    }
}

/// The value at a simple JSON path (`.spec.replicas`), as the scale subresource names it.
pub fn at_path<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.trim_start_matches('.').split('.').fold(object, |at, part| &at[part])
}

/// Sets the value at a simple JSON path.
pub fn set_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.trim_start_matches('.').split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = value;
}
