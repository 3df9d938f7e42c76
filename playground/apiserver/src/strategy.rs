//! What the server itself sets and keeps on a write, kind by kind.
//!
//! Rules: Kubernetes `pkg/registry/*/strategy.go`.

use crate::app::App;
use crate::fieldset::Set;
use crate::managed::Reset;
use crate::schema::catalogue::Resource;
use crate::services;
use crate::status::{About, Refusal};
use serde_json::{Map, Value, json};

/// Fields that an endpoint resets, so that nobody owns them through it.
pub fn reset(resource: &Resource, subresource: &str) -> Reset {
    match subresource {
        "status" if resource.custom.is_some() => Reset::AllBut("status"),
        "status" => Reset::Fields(Set::of_fields(&[&["spec"], &["metadata", "labels"]])),
        "" if resource.has("status") => Reset::Fields(Set::of_fields(&[&["status"]])),
        _ => Reset::Fields(Set::default()),
    }
}

/// Folds fields that exist in requests only into the stored ones.
pub fn fold_write_only(resource: &Resource, object: &mut Value) {
    if !resource.is("", "secrets") {
        return;
    }
    let Value::Object(fields) = object else { return };
    let Some(Value::Object(plain)) = fields.shift_remove("stringData") else { return };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if !data.is_object() {
        *data = json!({});
    }
    for (key, value) in plain {
        use base64::Engine;
        let bytes = value.as_str().unwrap_or_default();
        data[key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }
}

/// Kinds whose `metadata.generation` counts changes of what is wanted.
fn has_generation(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return true;
    }
    match resource.group.as_str() {
        "apps" => resource.plural != "controllerrevisions",
        "batch" | "networking.k8s.io" | "policy" | "discovery.k8s.io" | "admissionregistration.k8s.io" => {
            true
        }
        "apiextensions.k8s.io" | "flowcontrol.apiserver.k8s.io" | "scheduling.k8s.io" => true,
        "" => matches!(resource.plural.as_str(), "pods" | "replicationcontrollers" | "podtemplates"),
        _ => false,
    }
}

/// Sets a field of `metadata`, which every object in canonical form has.
fn set_meta(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert(key.into(), value.into());
    }
}

fn remove_meta(object: &mut Value, key: &str) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove(key);
    }
}

/// Fills in what the server decides when an object is created.
pub fn before_create(app: &App, resource: &Resource, object: &mut Value) -> Result<(), Refusal> {
    let uid = app.uid();
    for key in
        ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
    {
        remove_meta(object, key);
    }
    set_meta(object, "uid", uid.clone());
    set_meta(object, "creationTimestamp", app.now());
    if has_generation(resource) {
        set_meta(object, "generation", 1);
    }
    let keeps_status = resource.is("", "nodes");
    if resource.has("status")
        && !keeps_status
        && let Value::Object(fields) = object
    {
        fields.shift_remove("status");
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => {
            object["status"] = json!({"phase": "Active"});
            let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.iter().any(|f| f == "kubernetes") {
                object["spec"]["finalizers"] =
                    std::iter::once(json!("kubernetes")).chain(finalizers).collect();
            }
        }
        ("", "persistentvolumeclaims") => {
            object["status"] = json!({"phase": "Pending"});
            let source = object["spec"]["dataSource"].clone();
            if !source.is_null() && object["spec"]["dataSourceRef"].is_null() {
                object["spec"]["dataSourceRef"] = source;
            }
            add_finalizer(object, "kubernetes.io/pvc-protection");
        }
        ("", "persistentvolumes") => {
            object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": app.now()});
            add_finalizer(object, "kubernetes.io/pv-protection");
        }
        ("", "pods") => pod(object),
        ("", "services") => services::allocate(app, object, None)?,
        ("batch", "jobs") => job(object, &uid),
        ("apps", "daemonsets") => daemon_set(object, None),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            let versions = object["spec"]["versions"].as_array().into_iter().flatten();
            let stored: Vec<Value> =
                versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
            object["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": stored});
        }
        _ => {}
    }
    Ok(())
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let mut list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !list.iter().any(|f| f == finalizer) {
        list.push(finalizer.into());
    }
    set_meta(object, "finalizers", list);
}

fn pod(object: &mut Value) {
    let qos = quality_of_service(&object["spec"]);
    object["status"] = json!({"phase": "Pending", "qosClass": qos});
    let Value::Object(spec) = &mut object["spec"] else { return };
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    spec.entry("priority").or_insert_with(|| 0.into());
    spec.entry("preemptionPolicy").or_insert_with(|| "PreemptLowerPriority".into());
    tolerate(spec);
}

/// Pods stay five minutes on a node that is lost, unless they say otherwise.
pub fn tolerate(spec: &mut Map<String, Value>) {
    let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    for taint in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{taint}");
        let covers = |t: &Value| {
            (t["key"] == key.as_str() || t["key"].is_null())
                && matches!(t["effect"].as_str(), None | Some("NoExecute"))
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
    spec.insert("tolerations".into(), tolerations.into());
}

fn quality_of_service(spec: &Value) -> &'static str {
    let containers = || {
        ["containers", "initContainers"].into_iter().flat_map(|l| spec[l].as_array().into_iter().flatten())
    };
    let (mut any, mut all) = (false, true);
    for container in containers() {
        let (limits, requests) = (&container["resources"]["limits"], &container["resources"]["requests"]);
        for key in ["cpu", "memory"] {
            any |= !limits[key].is_null() || !requests[key].is_null();
            all &= !limits[key].is_null() && limits[key] == requests[key];
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn job(object: &mut Value, uid: &str) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name});
    let asked = object["spec"]["template"]["metadata"]["labels"].clone();
    let has_labels = |labels: &Value| labels.as_object().is_some_and(|l| !l.is_empty());
    // A Job without labels takes those of its pods.
    let takes_over = !has_labels(&object["metadata"]["labels"]);
    if let Some(Value::Object(meta)) = object.pointer_mut("/spec/template/metadata") {
        let existing = meta.entry("labels").or_insert_with(|| json!({}));
        for (key, value) in labels.as_object().into_iter().flatten() {
            // A template's own label of that name is refused later.
            if asked.get(key).is_none() {
                existing[key] = value.clone();
            }
        }
    }
    if takes_over {
        object["metadata"]["labels"] = object["spec"]["template"]["metadata"]["labels"].clone();
    }
    object["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
}

/// Keeps what an update cannot change.
pub fn before_update(
    app: &App,
    resource: &Resource,
    subresource: &str,
    new: &mut Value,
    old: &Value,
) -> Result<(), Refusal> {
    match subresource {
        "status" => keep_all_but_status(resource, new, old),
        "ephemeralcontainers" => keep_all_but(new, old, |out, sent| {
            set_or_remove(&mut out["spec"], "ephemeralContainers", sent["spec"].get("ephemeralContainers"));
        }),
        "resize" => keep_all_but(new, old, |out, sent| {
            for list in ["containers", "initContainers"] {
                let sent = sent["spec"][list].as_array().cloned().unwrap_or_default();
                for container in out["spec"][list].as_array_mut().into_iter().flatten() {
                    if let Some(wanted) = sent.iter().find(|c| c["name"] == container["name"]) {
                        set_or_remove(container, "resources", wanted.get("resources"));
                    }
                }
            }
        }),
        "finalize" => {
            let finalizers = new["spec"]["finalizers"].clone();
            new["spec"] = old["spec"].clone();
            new["spec"]["finalizers"] = finalizers;
            new["status"] = old["status"].clone();
        }
        _ => {
            if resource.has("status")
                && let Value::Object(fields) = new
            {
                match old.get("status") {
                    Some(status) => fields.insert("status".into(), status.clone()),
                    None => fields.shift_remove("status"),
                };
            }
            match (resource.group.as_str(), resource.plural.as_str()) {
                ("", "services") => {
                    services::keep(new, old);
                    services::allocate(app, new, Some(old))?;
                }
                ("apps", "daemonsets") => daemon_set(new, Some(old)),
                ("", "namespaces") => new["spec"] = old["spec"].clone(),
                ("apiextensions.k8s.io", "customresourcedefinitions") => remember_stored(new),
                _ => {}
            }
        }
    }
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "name",
        "namespace",
    ] {
        match old["metadata"].get(key) {
            Some(value) => set_meta(new, key, value.clone()),
            None => remove_meta(new, key),
        }
    }
    Ok(())
}

/// Which of its templates a DaemonSet has, in an annotation of old.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn daemon_set(new: &mut Value, old: Option<&Value>) {
    let number = |set: &Value| {
        let text = set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().unwrap_or_default();
        text.parse::<i64>().unwrap_or(0)
    };
    let generation = match old {
        None => 1,
        Some(old) if old["spec"]["template"] != new["spec"]["template"] => number(old) + 1,
        Some(old) => number(old),
    };
    if let Some(Value::Object(metadata)) = new.get_mut("metadata") {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[TEMPLATE_GENERATION] = generation.to_string().into();
    }
}

fn set_or_remove(object: &mut Value, key: &str, value: Option<&Value>) {
    let Value::Object(fields) = object else { return };
    match value {
        Some(value) => drop(fields.insert(key.into(), value.clone())),
        None => drop(fields.shift_remove(key)),
    }
}

/// Takes from what was sent only what `change` takes over, and who owns it.
fn keep_all_but(new: &mut Value, old: &Value, change: impl Fn(&mut Value, &Value)) {
    let mut out = old.clone();
    change(&mut out, new);
    set_or_remove(&mut out["metadata"], "managedFields", new["metadata"].get("managedFields"));
    *new = out;
}

fn keep_all_but_status(resource: &Resource, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let mut out = old.clone();
    if let Value::Object(fields) = &mut out {
        match status {
            Some(status) => fields.insert("status".into(), status),
            None => fields.shift_remove("status"),
        };
    }
    let managed = new["metadata"].get("managedFields").cloned();
    if resource.custom.is_none() {
        out["metadata"] = new["metadata"].clone();
        match old["metadata"].get("labels") {
            Some(labels) => set_meta(&mut out, "labels", labels.clone()),
            None => remove_meta(&mut out, "labels"),
        }
    }
    match managed {
        Some(managed) => set_meta(&mut out, "managedFields", managed),
        None => remove_meta(&mut out, "managedFields"),
    }
    *new = out;
}

/// A definition remembers every version that objects were ever stored in.
fn remember_stored(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let current: Vec<Value> = versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    let mut stored = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in current {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    if definition["status"].is_object() {
        definition["status"]["storedVersions"] = stored.into();
    }
}

/// Kinds that a PUT creates when they are missing.
pub fn creates_on_update(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(resource.plural.as_str(), "endpoints" | "events" | "limitranges" | "services"),
        "coordination.k8s.io" | "rbac.authorization.k8s.io" => true,
        _ => false,
    }
}

/// Whether a PUT may leave out the resourceVersion that it replaces.
pub fn allows_unconditional_update(resource: &Resource) -> bool {
    let versioned = match resource.group.as_str() {
        "coordination.k8s.io" | "admissionregistration.k8s.io" | "apiextensions.k8s.io" => true,
        "policy" => resource.plural == "poddisruptionbudgets",
        _ => false,
    };
    resource.custom.is_none() && !versioned
}

/// Counts `metadata.generation` up when what is wanted changed.
pub fn generation(resource: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    // Annotations can be written through the status, too, and count then as little as the status does.
    if !has_generation(resource) || subresource == "status" {
        return;
    }
    let wanted = |object: &Value| -> Map<String, Value> {
        let fields = object.as_object().into_iter().flatten();
        let skip_status = resource.has("status");
        let wanted = fields.filter(|(k, _)| *k != "metadata" && (*k != "status" || !skip_status));
        wanted.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let annotations = resource.is("apps", "deployments")
        && new["metadata"]["annotations"] != old["metadata"]["annotations"];
    let labels =
        resource.plural == "endpointslices" && new["metadata"]["labels"] != old["metadata"]["labels"];
    if annotations || labels || wanted(new) != wanted(old) {
        let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        set_meta(new, "generation", next);
    }
}

/// Whether an object that is being deleted has nothing left that holds it.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    let none = |v: &Value| v.as_array().is_none_or(Vec::is_empty);
    if !meta["deletionTimestamp"].is_string() || !none(&meta["finalizers"]) {
        return false;
    }
    if resource.is("", "namespaces") {
        return none(&object["spec"]["finalizers"]);
    }
    meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Whether two states differ in nothing, or only in the times of `managedFields`.
pub fn same_but_times(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut out = object.clone();
        remove_meta(&mut out, "resourceVersion");
        if let Some(Value::Array(list)) = out.pointer_mut("/metadata/managedFields") {
            for entry in list.iter_mut().filter_map(Value::as_object_mut) {
                entry.shift_remove("time");
            }
            list.sort_by_key(Value::to_string);
        }
        out
    };
    bare(new) == bare(old)
}

/// Refuses to delete what the cluster cannot do without.
pub fn check_delete(resource: &Resource, name: &str) -> Result<(), Refusal> {
    let immortal = ["default", "kube-system", "kube-public"];
    if resource.is("", "namespaces") && immortal.contains(&name) {
        let about = About::new("", "namespaces", name);
        return Err(Refusal::forbidden(about, "this namespace may not be deleted"));
    }
    Ok(())
}
