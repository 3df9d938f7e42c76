//! Deletion: preconditions, finalizers, grace, propagation.
//!
//! Rules: k8s.io/apiserver `registry/rest/delete.go` and `registry/generic/registry/store.go`.

use crate::app::App;
use crate::schema::catalogue::Resource;
use crate::status::{self, About, Refusal};
use crate::store::Object;
use crate::write::Call;
use crate::{admission, body, crd, protobuf, strategy};
use serde_json::{Value, json};

/// `metav1.DeleteOptions`, from the query and the body.
#[derive(Debug, Default)]
pub struct Options {
    grace: Option<i64>,
    uid: String,
    revision: String,
    propagation: String,
    dry_run: bool,
}

impl Options {
    /// Reads the options of a request.
    pub fn read(call: &Call<'_>) -> Result<Options, Refusal> {
        let query = &call.request.query;
        let mut out = Options {
            grace: query.number("gracePeriodSeconds"),
            propagation: query.get("propagationPolicy").to_owned(),
            dry_run: call.dry_run(),
            ..Options::default()
        };
        if !call.request.body.is_empty() {
            let sent = match call.request.content_type() {
                "application/yaml" => body::yaml(&call.request.body)?.value,
                protobuf::MEDIA_TYPE => {
                    protobuf::decode(&call.request.body, &App::named_type("meta.v1.DeleteOptions"))
                        .map_err(|e| Refusal::bad_request(e.to_string()))?
                }
                _ => {
                    body::json(&call.request.body)
                        .map_err(|e| Refusal::bad_request(format!("json parse error: {e}")))?
                        .value
                }
            };
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            out.grace = sent["gracePeriodSeconds"].as_i64().or(out.grace);
            out.dry_run |= all_stages(&sent);
            out.uid = text(&sent["preconditions"]["uid"]);
            out.revision = text(&sent["preconditions"]["resourceVersion"]);
            if let Some(policy) = sent["propagationPolicy"].as_str() {
                out.propagation = policy.to_owned();
            }
            let kind = text(&sent["kind"]);
            if !kind.is_empty() && kind != "DeleteOptions" {
                let version = text(&sent["apiVersion"]);
                return Err(Refusal::bad_request(format!(
                    "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
                )));
            }
            if sent["dryRun"].as_array().into_iter().flatten().any(|d| d != "All") {
                let cause = status::Cause::unsupported("dryRun", &sent["dryRun"], &["All".into()]);
                return Err(Refusal::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
            }
            if !sent["orphanDependents"].is_null() && !sent["propagationPolicy"].is_null() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                let cause = status::Cause::invalid("propagationPolicy", &sent["propagationPolicy"], detail);
                return Err(Refusal::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
            }
            if sent["orphanDependents"] == true {
                out.propagation = "Orphan".into();
            }
        }
        if !matches!(out.propagation.as_str(), "" | "Foreground" | "Background" | "Orphan") {
            let cause = status::Cause::unsupported(
                "propagationPolicy",
                &out.propagation.clone().into(),
                &["Foreground", "Background", "Orphan", "nil"].map(String::from),
            );
            return Err(Refusal::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
        Ok(out)
    }

    /// Reads `metav1.DeleteOptions`, as an eviction carries them.
    pub fn from_value(sent: &Value) -> Options {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Options {
            grace: sent["gracePeriodSeconds"].as_i64(),
            uid: text(&sent["preconditions"]["uid"]),
            revision: text(&sent["preconditions"]["resourceVersion"]),
            propagation: text(&sent["propagationPolicy"]),
            dry_run: all_stages(sent),
        }
    }

    /// Whether nothing is to be stored.
    pub fn dry_run(&self) -> bool {
        self.dry_run
    }

    fn check(&self, resource: &Resource, live: &Object) -> Result<(), Refusal> {
        let name = live.value["metadata"]["name"].as_str().unwrap_or_default();
        let about = || About::new(&resource.group, &resource.kind, name);
        let uid = live.value["metadata"]["uid"].as_str().unwrap_or_default();
        if !self.uid.is_empty() && self.uid != uid {
            let why = format!(
                "the UID in the precondition ({}) does not match the UID in record ({uid}). The object might have been \
                 deleted and then recreated",
                self.uid
            );
            return Err(Refusal::conflict(about(), &why));
        }
        if !self.revision.is_empty() && self.revision != live.revision.to_string() {
            let why = format!(
                "the ResourceVersion in the precondition ({}) does not match the ResourceVersion in record ({}). The object \
                 might have been modified",
                self.revision, live.revision
            );
            return Err(Refusal::conflict(about(), &why));
        }
        Ok(())
    }
}

/// Whether options say that nothing is to be stored.
fn all_stages(options: &Value) -> bool {
    options["dryRun"].as_array().into_iter().flatten().any(|stage| stage == "All")
}

/// What came of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// The object is still there, or its last state is shown.
    Object(Value),
    /// It is gone.
    Status(Value),
}

/// Attempts to delete an object that others write, before giving up.
const ATTEMPTS: usize = 20;

/// Kinds that answer a finished deletion with the object.
fn shows_object(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(
            resource.plural.as_str(),
            "pods"
                | "services"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        ),
        "storage.k8s.io" => true,
        _ => false,
    }
}

/// Deletes one object.
pub fn delete(call: &Call<'_>, options: &Options) -> Result<Deleted, Refusal> {
    let resource = &call.target.resource;
    strategy::check_delete(resource, &call.target.name)?;
    for _ in 0..ATTEMPTS {
        let live = call.live()?;
        options.check(resource, &live)?;
        admission::check(call, "DELETE", None, Some(&live.value))?;
        if let Some(done) = attempt(call, options, &live)? {
            return Ok(done);
        }
    }
    Err(Refusal::modified(call.about()))
}

fn attempt(call: &Call<'_>, options: &Options, live: &Object) -> Result<Option<Deleted>, Refusal> {
    let resource = &call.target.resource;
    let table = resource.table();
    let old = &live.value;
    let mut new = old.clone();
    let marked = old["metadata"]["deletionTimestamp"].is_string();
    let finalizers = finalizers(old, options);
    let grace = grace(resource, old, options);
    let is_namespace = resource.is("", "namespaces");
    let is_definition = resource.is("apiextensions.k8s.io", "customresourcedefinitions");
    if finalizers.is_empty() {
        if let Value::Object(metadata) = &mut new["metadata"] {
            metadata.shift_remove("finalizers");
        }
    } else {
        new["metadata"]["finalizers"] = finalizers.clone().into();
    }
    let held_by_spec = is_namespace && old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let held = !finalizers.is_empty() || held_by_spec || grace > 0 || is_definition;
    // What goes at once and was never to be given time is shown as it was.
    let is_marked_now = held || resource.is("", "pods");
    if is_marked_now && !marked {
        let deadline = crate::time::now()
            .checked_add(jiff::SignedDuration::from_secs(grace))
            .unwrap_or_else(|_| crate::time::now());
        new["metadata"]["deletionTimestamp"] = crate::time::seconds(deadline).into();
        if is_namespace {
            new["status"]["phase"] = "Terminating".into();
        } else if !is_definition {
            new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            if let Some(generation) = new["metadata"]["generation"].as_i64() {
                new["metadata"]["generation"] = (generation + 1).into();
            }
        }
        if is_definition {
            crd::mark_terminating(call.app, &mut new);
        }
    } else if marked && grace < old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) {
        // A shorter grace period than the one that runs.
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
    let object = |value: &Value| Deleted::Object(call.app.shown(resource, value));
    let gone = |value: &Value| {
        if shows_object(resource) {
            return object(value);
        }
        let uid = value["metadata"]["uid"].as_str().unwrap_or_default();
        Deleted::Status(status::deleted(&call.about(), uid))
    };
    if options.dry_run || call.dry_run() {
        return Ok(Some(if held { object(&new) } else { gone(&new) }));
    }
    let key = &live.key;
    if held {
        if new == *old {
            return Ok(Some(object(old)));
        }
        let stored = call.app.store_mut().update(&table, key, live.revision, new);
        let Ok(stored) = stored else { return Ok(None) };
        crd::after_write(call.app, resource, &stored);
        return Ok(Some(object(&stored.value)));
    }
    let removed = call.app.store_mut().delete(&table, key, live.revision);
    let Ok(removed) = removed else { return Ok(None) };
    crd::after_delete(call.app, resource, &removed);
    new["metadata"]["resourceVersion"] = removed.revision.to_string().into();
    Ok(Some(gone(&new)))
}

/// Finalizers after the propagation policy has been entered.
fn finalizers(object: &Value, options: &Options) -> Vec<Value> {
    let mut list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let wanted = match options.propagation.as_str() {
        "Foreground" => Some("foregroundDeletion"),
        "Orphan" => Some("orphan"),
        "" => return list,
        _ => None,
    };
    list.retain(|f| f != "foregroundDeletion" && f != "orphan");
    list.extend(wanted.map(|w| json!(w)));
    list
}

/// Seconds until the object may go: only pods that run somewhere are given time.
fn grace(resource: &Resource, object: &Value, options: &Options) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let running = object["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty())
        && !matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !running {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let already = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    // A negative period means one second.
    match options.grace.or(already).unwrap_or(own) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}
