//! Patches, and server-side apply among them.

use super::{Call, Written};
use crate::decode::{self, Parsed};
use crate::schema::Type;
use crate::status::{About, Refusal};
use crate::{body, last_applied, patch, strategy};
use serde_json::{Value, json};

impl Call<'_> {
    /// PATCH of any type.
    pub fn patch(&mut self) -> Result<Written, Refusal> {
        let kind = self.request.content_type().to_owned();
        self.check_options("PatchOptions", kind.starts_with("application/apply-patch"))?;
        let custom = self.resource().custom.is_some();
        match kind.as_str() {
            "application/apply-patch+yaml" => self.apply(),
            "application/json-patch+json" | "application/merge-patch+json" => self.other_patch(&kind),
            "application/strategic-merge-patch+json" if !custom => self.other_patch(&kind),
            "application/strategic-merge-patch+json" => Err(Refusal::unsupported_media(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                None,
            )),
            _ => Err(Refusal::unsupported_media("415: Unsupported Media Type", Some(About::default()))),
        }
    }

    fn other_patch(&mut self, kind: &str) -> Result<Written, Refusal> {
        let parsed = body::json(&self.request.body)
            .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
        let resource = self.target.resource.clone();
        self.retry(|call, live, shown| {
            let patched = apply_patch(kind, shown, &parsed.value, &resource.ty)?;
            let mut unknown = Vec::new();
            let shape = patched.clone();
            let mut new = decode::decode(patched, &resource.ty, &mut unknown)
                .map_err(|error| patch::misfit(kind, &parsed.value, &shape, &error))?;
            call.report_fields(&unknown, &parsed.duplicates, "")?;
            call.check_name_of(&mut new)?;
            call.check_namespace_of(&mut new)?;
            call.check_version(&new, live)?;
            strategy::fold_write_only(&resource, &mut new);
            call.set_defaults(&mut new)?;
            call.track(shown, &mut new);
            Ok(new)
        })
    }

    fn apply(&mut self) -> Result<Written, Refusal> {
        let Parsed { value: mut config, duplicates } = body::yaml(&self.request.body)?;
        self.report_fields(&[], &duplicates, "")?;
        let resource = self.target.resource.clone();
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if !config.is_object() || version != resource.group_version() || kind != resource.kind {
            let version = if version.contains('/') { version } else { format!("/{version}") };
            return Err(Refusal::bad_request(format!("invalid object type: {version}, Kind={kind}")));
        }
        if !config["metadata"].is_object() {
            config["metadata"] = json!({});
        }
        self.check_name_of(&mut config)?;
        let mut probe = config.clone();
        self.check_namespace_of(&mut probe)?;
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let force = self.request.query.is_true("force");
        let warnings = self.warnings.clone();
        loop {
            let missing = self.app.store().get(&resource.table(), &self.target.key()).is_none();
            if !missing {
                return self.retry(|call, live, shown| {
                    call.warnings.extend(warnings.iter().cloned());
                    call.check_version(&config, live)?;
                    call.applied(shown, &config, force)
                });
            }
            if !self.target.subresource.is_empty() {
                return Err(Refusal::not_found(self.about()));
            }
            self.app.check_namespace(&resource, &self.target.namespace, &self.target.name)?;
            let mut new = self.applied(&self.empty(), &config, force)?;
            if let Value::Object(metadata) = &mut new["metadata"] {
                metadata.shift_remove("resourceVersion");
                metadata.insert("name".into(), self.target.name.clone().into());
            }
            match self.finish_create(new) {
                Err(refusal) if refusal.reason == "AlreadyExists" => self.warnings = warnings.clone(),
                result => return result,
            }
        }
    }

    /// The object after an apply, with defaults.
    fn applied(&mut self, live: &Value, config: &Value, force: bool) -> Result<Value, Refusal> {
        let resource = self.target.resource.clone();
        let reset = strategy::reset(&resource, &self.target.subresource);
        let new = self.with_write(&reset, |write| last_applied::apply(live, config, force, write))?;
        let mut unknown = Vec::new();
        let mut new = decode::decode(new, &resource.ty, &mut unknown).map_err(|error| {
            Refusal::internal(format!("failed to convert new object to proper version: {error}"))
        })?;
        self.report_fields(&unknown, &[], "")?;
        if !self.target.namespace.is_empty() {
            new["metadata"]["namespace"] = self.target.namespace.clone().into();
        }
        strategy::fold_write_only(&resource, &mut new);
        self.set_defaults(&mut new)?;
        Ok(new)
    }
}

/// Applies a patch that is not a server-side apply.
pub fn apply_patch(kind: &str, target: &Value, patch: &Value, ty: &Type) -> Result<Value, Refusal> {
    match kind {
        "application/json-patch+json" => patch::json_patch(target, patch.clone()),
        "application/merge-patch+json" => {
            if !patch.is_object() {
                return Err(Refusal::bad_request("error decoding patch: the patch is not an object"));
            }
            Ok(patch::merge_patch(target, patch))
        }
        _ => patch::strategic(target, patch, ty),
    }
}
