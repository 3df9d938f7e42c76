//! Creating, updating, patching and applying objects.

mod patching;

pub use patching::apply_patch;

use crate::app::App;
use crate::auth::User;
use crate::decode::{self, Parsed};
use crate::managed::{self, Reset, Write};
use crate::request::{Request, Target};
use crate::schema::Type;
use crate::schema::catalogue::Resource;
use crate::status::{About, Cause, Refusal};
use crate::store::{self, Object};
use crate::{admission, body, convert, crd, defaults, escalation, protobuf, strategy, validate};
use serde_json::{Value, json};
use std::sync::Arc;

/// A write request on its way.
pub struct Call<'a> {
    /// The server's state.
    pub app: &'a App,
    /// What is written.
    pub target: &'a Target,
    /// The request.
    pub request: &'a Request,
    /// Who writes.
    pub user: &'a User,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// What came of a write.
#[derive(Debug)]
pub struct Written {
    /// The object in the version of the request.
    pub object: Value,
    /// Whether it was created.
    pub created: bool,
}

/// Attempts to write an object that others write too, before giving up.
const ATTEMPTS: usize = 20;

impl<'a> Call<'a> {
    fn resource(&self) -> &'a Resource {
        &self.target.resource
    }

    /// The object as refusals name it.
    pub fn about(&self) -> About {
        self.about_name(&self.target.name)
    }

    fn about_name(&self, name: &str) -> About {
        About::new(&self.resource().group, &self.resource().plural, name)
    }

    /// Whether nothing is to be stored.
    pub fn dry_run(&self) -> bool {
        self.request.query.all("dryRun").iter().any(|v| v == "All")
    }

    /// The field manager: as asked for, or taken from the user agent.
    pub fn manager(&self) -> String {
        let given = self.request.query.get("fieldManager");
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self.request.header("user-agent").split('/').next().unwrap_or_default();
        if agent.is_empty() { "unknown".into() } else { agent.chars().take(128).collect() }
    }

    /// Checks `dryRun`, `fieldValidation` and the like.
    fn check_options(&self, kind: &str, apply: bool) -> Result<(), Refusal> {
        let query = &self.request.query;
        let mut causes = Vec::new();
        let text = |s: &str| Value::String(s.to_owned());
        for value in query.all("dryRun").iter().filter(|v| *v != "All") {
            causes.push(Cause::unsupported("dryRun", &json!([value]), &["All".into()]));
        }
        let validation = query.get("fieldValidation");
        if !matches!(validation, "" | "Strict" | "Warn" | "Ignore") {
            let supported = ["Ignore", "Strict", "Warn", ""].map(String::from);
            causes.push(Cause::unsupported("fieldValidation", &text(validation), &supported));
        }
        if query.get("fieldManager").len() > 128 {
            causes.push(Cause::too_long("fieldManager", "may not be more than 128 bytes"));
        }
        if apply && query.get("fieldManager").is_empty() {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
        if kind == "PatchOptions" && !apply && !query.get("force").is_empty() {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid("meta.k8s.io", kind, "", causes)) }
    }

    /// Reports undeclared and duplicate fields as `fieldValidation` asks.
    fn report_fields(
        &mut self,
        unknown: &[String],
        duplicates: &[String],
        strict: &str,
    ) -> Result<(), Refusal> {
        let lines: Vec<String> = duplicates
            .iter()
            .map(|d| format!("duplicate field {d:?}"))
            .chain(unknown.iter().map(|u| format!("unknown field {u:?}")))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        match self.request.query.get("fieldValidation") {
            "Ignore" => {}
            "Strict" => {
                return Err(Refusal::bad_request(format!(
                    "{strict}strict decoding error: {}",
                    lines.join(", ")
                )));
            }
            _ => self.warnings.extend(lines),
        }
        Ok(())
    }

    fn parse_body(&self, ty: &Type) -> Result<Parsed, Refusal> {
        let bytes = &self.request.body;
        let unrecognized = |error: String| {
            Refusal::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: \
                 {error} ({})",
                self.resource().kind,
                body::hex(bytes)
            ))
        };
        match self.request.content_type() {
            "application/json" | "" => body::json(bytes).map_err(unrecognized),
            "application/yaml" | "application/apply-patch+yaml" | "text/yaml" => body::yaml(bytes),
            protobuf::MEDIA_TYPE => {
                let value = protobuf::decode(bytes, ty).map_err(|e| Refusal::bad_request(e.to_string()))?;
                Ok(Parsed { value, duplicates: Vec::new() })
            }
            other => Err(Refusal::unsupported_media(
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json, \
                     application/yaml, {} ({other} is not)",
                    protobuf::MEDIA_TYPE
                ),
                None,
            )),
        }
    }

    /// The body as an object of a kind, in canonical form.
    pub fn read(&mut self, ty: &Type, group_version: &str, kind: &str) -> Result<Value, Refusal> {
        let Parsed { mut value, duplicates } = self.parse_body(ty)?;
        if !value.is_object() {
            return Err(Refusal::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: \
                 json: cannot unmarshal {} into Go value of type struct {{ APIVersion string; Kind string }}",
                if value.is_array() { "array" } else { "string" }
            )));
        }
        let version = group_version.rsplit('/').next().unwrap_or_default();
        let sent_kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let sent_version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
        if !sent_kind.is_empty() && sent_kind != kind {
            let shown = if sent_version.is_empty() { group_version } else { &sent_version };
            return Err(Refusal::bad_request(format!(
                "{sent_kind} in version \"{}\" cannot be handled as a {kind}: no kind {sent_kind:?} is registered for version \
                 {shown:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                shown.rsplit('/').next().unwrap_or_default()
            )));
        }
        let other_version = !sent_version.is_empty() && sent_version != group_version;
        let refuse_version = || {
            Refusal::bad_request(format!(
                "the API version in the data ({sent_version}) does not match the expected API version ({group_version})"
            ))
        };
        let custom = self.resource().custom.is_some();
        if other_version && !custom {
            return Err(refuse_version());
        }
        value["kind"] = kind.into();
        value["apiVersion"] = group_version.into();
        let mut unknown = Vec::new();
        let head = format!("{kind} in version {version:?} cannot be handled as a {kind}: ");
        let value = decode::decode(value, ty, &mut unknown)
            .map_err(|error| Refusal::bad_request(format!("{head}{error}")))?;
        if custom {
            unknown.sort();
        }
        self.report_fields(&unknown, &duplicates, &head)?;
        if other_version {
            return Err(refuse_version());
        }
        Ok(value)
    }

    fn check_namespace_of(&self, object: &mut Value) -> Result<(), Refusal> {
        let sent = object["metadata"]["namespace"].as_str().unwrap_or_default();
        if !sent.is_empty() && sent != self.target.namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !self.target.namespace.is_empty() {
            object["metadata"]["namespace"] = self.target.namespace.clone().into();
        }
        Ok(())
    }

    fn check_name_of(&self, object: &mut Value) -> Result<(), Refusal> {
        let sent = object["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = &self.target.name;
        if sent.is_empty() {
            object["metadata"]["name"] = wanted.clone().into();
        } else if sent != wanted {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({sent}) does not match the name on the URL ({wanted})"
            )));
        }
        Ok(())
    }

    fn convert(&self, object: &Value, to: &str) -> Option<(Value, Arc<Type>)> {
        let ty = self.app.type_in(self.resource(), to)?;
        let value = convert::convert(object, &self.resource().table(), to);
        Some((decode::canonical(value, &ty).ok()?, ty))
    }

    fn with_write<T>(&self, reset: &Reset, run: impl FnOnce(&Write<'_>) -> T) -> T {
        let resource = self.resource();
        let (version, now, manager) = (resource.group_version(), self.app.now(), self.manager());
        let convert = |object: &Value, to: &str| self.convert(object, to);
        run(&Write {
            ty: &resource.ty,
            version: &version,
            manager: &manager,
            subresource: &self.target.subresource,
            reset,
            now: &now,
            convert: &convert,
        })
    }

    /// Sets defaults and records the write in `managedFields`. `live` and `new` are in the version of the request.
    pub fn track(&self, live: &Value, new: &mut Value) {
        let reset = strategy::reset(self.resource(), &self.target.subresource);
        self.with_write(&reset, |write| managed::track_update(live, new, write));
    }

    fn set_defaults(&self, object: &mut Value) -> Result<(), Refusal> {
        let resource = self.resource();
        match &resource.custom {
            Some(custom) => crd::defaults(object, &custom.schema),
            None => defaults::apply(object, &resource.ty),
        }
        Ok(())
    }

    /// POST of an object.
    pub fn create(&mut self) -> Result<Written, Refusal> {
        self.check_options("CreateOptions", false)?;
        let resource = self.resource();
        let mut object = self.read(&resource.ty.clone(), &resource.group_version(), &resource.kind)?;
        self.check_namespace_of(&mut object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.app.check_namespace(resource, &self.target.namespace, &name)?;
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|v| !v.is_empty() && v != "0") {
            return Err(Refusal::internal("resourceVersion should not be set on objects to be created"));
        }
        strategy::fold_write_only(resource, &mut object);
        self.set_defaults(&mut object)?;
        let empty = self.empty();
        self.track(&empty, &mut object);
        // A name that is made up here, and what follows from it, is nobody's.
        if name.is_empty()
            && let Some(prefix) = object["metadata"]["generateName"].as_str()
        {
            object["metadata"]["name"] = format!("{prefix}{}", self.app.suffix()).into();
            self.set_defaults(&mut object)?;
        }
        self.finish_create(object)
    }

    /// What an object of the resource looks like before anything is set.
    fn empty(&self) -> Value {
        let resource = self.resource();
        match &resource.custom {
            Some(_) => json!({"metadata": {}}),
            None => resource.ty.zero(),
        }
    }

    /// Admits a write; what clients are warned of they are told even when it is refused.
    fn judge(&mut self, operation: &str, object: &Value, old: Option<&Value>) -> Result<(), Refusal> {
        let mut warnings = Vec::new();
        let verdict = admission::judge(self, operation, object, old, &mut warnings);
        self.warnings.extend(warnings);
        verdict
    }

    /// Stores a new object that is in the version of the request, with defaults and managed fields.
    fn finish_create(&mut self, object: Value) -> Result<Written, Refusal> {
        let resource = self.resource();
        let table = resource.table();
        let hub = self.app.hub(resource);
        let ty = self.app.type_in(resource, &hub).unwrap_or_else(|| resource.ty.clone());
        let mut object = convert::convert(&object, &table, &hub);
        admission::complete(self, &mut object)?;
        strategy::before_create(self.app, resource, &mut object)?;
        let mut object = decode::canonical(object, &ty).map_err(|e| Refusal::bad_request(e.to_string()))?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let causes = validate::create(resource, &object);
        if !causes.is_empty() {
            return Err(Refusal::invalid(&resource.group, &resource.kind, &name, causes));
        }
        escalation::check(self.app, self.user, self.target, &object)?;
        self.judge("CREATE", &object, None)?;
        let key = self.key_of(&name);
        if self.dry_run() {
            if self.app.store().get(&table, &key).is_some() {
                return Err(Refusal::already_exists(self.about_name(&name)));
            }
            if let Value::Object(metadata) = &mut object["metadata"] {
                metadata.shift_remove("resourceVersion");
            }
            return Ok(Written { object: self.app.shown(resource, &object), created: true });
        }
        let stored = self.app.store_mut().create(&table, &key, object);
        let stored = stored.map_err(|_| Refusal::already_exists(self.about_name(&name)))?;
        crd::after_write(self.app, resource, &stored);
        Ok(Written { object: self.app.shown(resource, &stored.value), created: true })
    }

    /// The key that an object of a name is stored under.
    pub fn key_of(&self, name: &str) -> String {
        if self.target.namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.target.namespace)
        }
    }

    /// The stored object.
    pub fn live(&self) -> Result<Arc<Object>, Refusal> {
        let found = self.app.store().get(&self.resource().table(), &self.target.key());
        found.ok_or_else(|| Refusal::not_found(self.about()))
    }

    /// Tries a write until nobody else wrote in between. `attempt` gives the new object in the version of the request.
    pub fn retry(
        &mut self,
        mut attempt: impl FnMut(&mut Self, &Object, &Value) -> Result<Value, Refusal>,
    ) -> Result<Written, Refusal> {
        for _ in 0..ATTEMPTS {
            let live = self.live()?;
            let shown = self.app.shown(self.resource(), &live.value);
            self.warnings.clear();
            let new = attempt(self, &live, &shown)?;
            if let Some(written) = self.finish_update(&live, new)? {
                return Ok(written);
            }
        }
        Err(Refusal::modified(self.about()))
    }

    /// Stores a changed object; `None` when somebody else wrote since it was read.
    fn finish_update(&mut self, live: &Object, new: Value) -> Result<Option<Written>, Refusal> {
        let resource = self.resource();
        let table = resource.table();
        let hub = self.app.hub(resource);
        let ty = self.app.type_in(resource, &hub).unwrap_or_else(|| resource.ty.clone());
        let old = &live.value;
        let mut new = convert::convert(&new, &table, &hub);
        if let Some(uid) = new["metadata"]["uid"].as_str()
            && !uid.is_empty()
            && old["metadata"]["uid"] != uid
        {
            let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
            let causes = vec![cause.clone(), cause];
            return Err(Refusal::invalid(&resource.group, &resource.kind, &self.target.name, causes));
        }
        admission::complete_change(self, &mut new);
        strategy::before_update(self.app, resource, &self.target.subresource, &mut new, old)?;
        let mut new = decode::canonical(new, &ty).map_err(|e| Refusal::bad_request(e.to_string()))?;
        strategy::generation(resource, &self.target.subresource, &mut new, old);
        let causes = validate::update(resource, &self.target.subresource, &new, old);
        if !causes.is_empty() {
            return Err(Refusal::invalid(&resource.group, &resource.kind, &self.target.name, causes));
        }
        escalation::check(self.app, self.user, self.target, &new)?;
        self.judge("UPDATE", &new, Some(old))?;
        let doomed = strategy::is_finished(resource, &new);
        if !doomed && strategy::same_but_times(&new, old) {
            return Ok(Some(Written { object: self.app.shown(resource, old), created: false }));
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if self.dry_run() {
            return Ok(Some(Written { object: self.app.shown(resource, &new), created: false }));
        }
        let key = self.target.key();
        if doomed {
            let gone = self.app.store_mut().delete(&table, &key, live.revision);
            return match gone {
                Ok(gone) => {
                    crd::after_delete(self.app, resource, &gone);
                    Ok(Some(Written { object: self.app.shown(resource, &new), created: false }))
                }
                Err(_) => Ok(None),
            };
        }
        let stored = self.app.store_mut().update(&table, &key, live.revision, new);
        match stored {
            Ok(stored) => {
                crd::after_write(self.app, resource, &stored);
                Ok(Some(Written { object: self.app.shown(resource, &stored.value), created: false }))
            }
            Err(store::Error::Changed | store::Error::Exists) => Ok(None),
        }
    }

    /// 409: the object that a client means is gone, and another has its name.
    pub fn other_uid(&self, wanted: &str, known: &str) -> Refusal {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {wanted}, UID in object meta: {known}",
            self.resource().plural,
            self.target.key()
        );
        Refusal::conflict(self.about(), &why)
    }

    fn check_version(&self, object: &Value, live: &Object) -> Result<(), Refusal> {
        let sent = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !sent.is_empty() && sent != "0" && sent != live.revision.to_string() {
            return Err(Refusal::modified(self.about()));
        }
        Ok(())
    }

    /// PUT of an object or of its status.
    pub fn update(&mut self) -> Result<Written, Refusal> {
        self.check_options("UpdateOptions", false)?;
        let resource = self.resource();
        let mut sent = self.read(&resource.ty.clone(), &resource.group_version(), &resource.kind)?;
        let warnings = self.warnings.clone();
        self.check_name_of(&mut sent)?;
        self.check_namespace_of(&mut sent)?;
        strategy::fold_write_only(resource, &mut sent);
        self.set_defaults(&mut sent)?;
        let fresh = ["resourceVersion", "uid"]
            .iter()
            .all(|key| sent["metadata"][*key].as_str().is_none_or(str::is_empty));
        if fresh
            && self.target.subresource.is_empty()
            && strategy::creates_on_update(&self.target.resource)
            && self.app.store().get(&self.target.resource.table(), &self.target.key()).is_none()
        {
            self.app.check_namespace(&self.target.resource, &self.target.namespace, &self.target.name)?;
            let mut new = sent.clone();
            self.track(&self.empty(), &mut new);
            match self.finish_create(new) {
                Err(refusal) if refusal.reason == "AlreadyExists" => {}
                result => return result,
            }
        }
        self.retry(|call, live, shown| {
            call.warnings.extend(warnings.iter().cloned());
            let uid = sent["metadata"]["uid"].as_str().unwrap_or_default();
            let known = shown["metadata"]["uid"].as_str().unwrap_or_default();
            if !uid.is_empty() && uid != known {
                return Err(call.other_uid(uid, known));
            }
            let unconditional =
                sent["metadata"]["resourceVersion"].as_str().is_none_or(|v| v.is_empty() || v == "0");
            if unconditional && !strategy::allows_unconditional_update(&call.target.resource) {
                let resource = &call.target.resource;
                let cause =
                    Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                return Err(Refusal::invalid(
                    &resource.group,
                    &resource.plural,
                    &call.target.name,
                    vec![cause],
                ));
            }
            call.check_version(&sent, live)?;
            let mut new = sent.clone();
            call.track(shown, &mut new);
            Ok(new)
        })
    }
}
