//! Admission: what the server's plugins make of a write, and ValidatingAdmissionPolicies.
//!
//! Rules: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/ and
//! https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/

mod accounts;
mod limits;
pub mod pod_security;
mod priorities;
mod quotas;
mod standards;
mod warnings;

use crate::expressions::compiled;
use crate::selector::Labels;
use crate::status::{Cause, Refusal};
use crate::store::Object;
use crate::write::Call;
use engine::policy::cel::Scope;
use serde_json::{Value, json};
use std::sync::Arc;

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";

/// What a policy says of a write.
struct Verdict {
    policy: String,
    binding: String,
    message: String,
    reason: String,
    actions: Vec<String>,
}

/// Completes a new object before it is validated.
pub fn complete(call: &Call<'_>, object: &mut Value) -> Result<(), Refusal> {
    if call.target.resource.is("", "pods") && call.target.subresource.is_empty() {
        limits::set_defaults(call.app, &call.target.namespace, object);
        if call.app.config.service_accounts {
            accounts::set(call.app, &call.target.namespace, object)?;
        }
        priorities::set(call.app, object)?;
    }
    Ok(())
}

/// Completes a changed object before it is validated.
pub fn complete_change(call: &Call<'_>, object: &mut Value) {
    if call.target.resource.is("", "pods")
        && call.target.subresource.is_empty()
        && let Value::Object(spec) = &mut object["spec"]
    {
        crate::strategy::tolerate(spec);
    }
}

/// Refuses to resize a pod on a node that is not there.
fn check_node(call: &Call<'_>, pod: &Value, old: Option<&Value>) -> Result<(), Refusal> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let changed = old.is_some_and(|old| old["spec"] != pod["spec"]);
    if call.target.subresource == "resize"
        && changed
        && !node.is_empty()
        && call.app.store().get("nodes", node).is_none()
    {
        return Err(Refusal::forbidden(call.about(), &format!("node {node:?} not found")));
    }
    Ok(())
}

/// Judges a write that is valid. Warnings for the client are added to `warnings`.
pub fn judge(
    call: &Call<'_>,
    operation: &str,
    object: &Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let resource = &call.target.resource;
    let is_whole = call.target.subresource.is_empty();
    if is_whole {
        warnings.extend(warnings::of(resource, object, old));
    }
    if is_whole && resource.group.is_empty() && (old.is_none() || resource.plural == "persistentvolumeclaims")
    {
        limits::check(call.app, &call.target.namespace, &resource.plural, object)?;
    }
    if resource.is("", "pods") {
        check_node(call, object, old)?;
    }
    warnings.extend(pod_security::check(call, object, old)?);
    warnings.extend(check(call, operation, Some(object), old)?);
    if old.is_none() {
        quotas::count(call, object)?;
    }
    Ok(())
}

/// Checks a write against the policies; the result is warnings for the client.
pub fn check(
    call: &Call<'_>,
    operation: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Vec<String>, Refusal> {
    // A policy cannot lock out those who would repair it.
    if call.target.resource.group == "admissionregistration.k8s.io" {
        return Ok(Vec::new());
    }
    let pairs: Vec<(Arc<Object>, Arc<Object>)> = {
        let store = call.app.store();
        let pair = |binding: &Arc<Object>| {
            let policy = binding.value["spec"]["policyName"].as_str()?;
            Some((store.get(POLICIES, policy)?, binding.clone()))
        };
        store.range(BINDINGS, "", "").filter_map(pair).collect()
    };
    let mut warnings = Vec::new();
    for (policy, binding) in pairs {
        let write = Subject { call, operation, object, old };
        if !write.is_meant(&policy.value["spec"]["matchConstraints"], true)
            || !write.is_meant(&binding.value["spec"]["matchResources"], false)
        {
            continue;
        }
        for verdict in write.judge(&policy.value, &binding.value) {
            let Verdict { policy, binding, message, .. } = &verdict;
            let acts = |action: &str| verdict.actions.iter().any(|a| a == action);
            if acts("Deny") {
                let message = format!(
                    "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"
                );
                return Err(refusal(call, object.or(old), &message, &verdict.reason));
            }
            if acts("Warn") {
                warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
                ));
            }
        }
    }
    Ok(warnings)
}

fn refusal(call: &Call<'_>, object: Option<&Value>, message: &str, reason: &str) -> Refusal {
    let mut about = call.about();
    if about.name.is_empty() {
        about.name = object.and_then(|o| o["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    }
    let mut refusal = Refusal::forbidden(about, message);
    (refusal.code, refusal.reason) = match reason {
        "Unauthorized" => (401, "Unauthorized"),
        "Forbidden" => (403, "Forbidden"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    refusal.causes.push(Cause { field: String::new(), reason: "", message: message.into() });
    refusal
}

struct Subject<'a> {
    call: &'a Call<'a>,
    operation: &'a str,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
}

impl Subject<'_> {
    /// Whether `MatchResources` select this write. Without rules a binding selects what its policy does.
    fn is_meant(&self, resources: &Value, rules_needed: bool) -> bool {
        let matches = |key: &str| resources[key].as_array().into_iter().flatten().any(|rule| self.fits(rule));
        let no_rules = resources["resourceRules"].as_array().is_none_or(Vec::is_empty);
        if matches("excludeResourceRules") || !(matches("resourceRules") || (no_rules && !rules_needed)) {
            return false;
        }
        let objects = Labels::from_object(&resources["objectSelector"]);
        let selected = [self.object, self.old].into_iter().flatten().any(|o| objects.matches(o));
        selected && self.in_namespace(&Labels::from_object(&resources["namespaceSelector"]))
    }

    fn fits(&self, rule: &Value) -> bool {
        let target = self.call.target;
        let has = |key: &str, wanted: &str| {
            rule[key].as_array().into_iter().flatten().any(|v| v == wanted || v == "*")
        };
        let plural = &target.resource.plural;
        let resource = if target.subresource.is_empty() {
            has("resources", plural) || has("resources", "*/*")
        } else {
            let list = rule["resources"].as_array();
            let full = format!("{plural}/{}", target.subresource);
            let fits = |v: &Value| {
                *v == full.as_str()
                    || *v == "*/*"
                    || *v == format!("{plural}/*")
                    || *v == format!("*/{}", target.subresource)
            };
            list.is_some_and(|l| l.iter().any(fits))
        };
        let scope = match rule["scope"].as_str() {
            Some("Namespaced") => target.resource.namespaced,
            Some("Cluster") => !target.resource.namespaced,
            _ => true,
        };
        let names = rule["resourceNames"].as_array().filter(|n| !n.is_empty());
        scope
            && resource
            && names.is_none_or(|n| n.iter().any(|name| *name == target.name.as_str()))
            && has("apiGroups", &target.resource.group)
            && has("apiVersions", &target.resource.version)
            && has("operations", self.operation)
    }

    fn in_namespace(&self, selector: &Labels) -> bool {
        if selector.is_empty() {
            return true;
        }
        let target = self.call.target;
        if target.resource.is("", "namespaces") {
            return [self.object, self.old].into_iter().flatten().any(|o| selector.matches(o));
        }
        if target.namespace.is_empty() {
            return true;
        }
        let namespace = self.call.app.store().get("namespaces", &target.namespace);
        namespace.is_some_and(|n| selector.matches(&n.value))
    }

    fn scope(&self, policy: &Value) -> Scope {
        let target = self.call.target;
        let resource = &target.resource;
        let mut scope = Scope::new();
        scope.set("object", self.object.unwrap_or(&Value::Null));
        scope.set("oldObject", self.old.unwrap_or(&Value::Null));
        scope.set("params", &Value::Null);
        let name = self.object.or(self.old).map(|o| o["metadata"]["name"].clone()).unwrap_or_default();
        let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let plural =
            json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
        let request = json!({"kind": kind, "resource": plural, "subResource": target.subresource, "requestKind": kind,
            "requestResource": plural, "requestSubResource": target.subresource, "name": name,
            "namespace": target.namespace, "operation": self.operation, "userInfo": self.call.user.to_value(),
            "dryRun": self.call.dry_run(), "options": {}});
        scope.set("request", &request);
        let namespace = self.call.app.store().get("namespaces", &target.namespace);
        scope.set("namespaceObject", namespace.as_ref().map_or(&Value::Null, |n| &n.value));
        for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
            let (Some(name), Some(text)) = (variable["name"].as_str(), variable["expression"].as_str())
            else {
                continue;
            };
            // A variable that fails makes the expressions fail that use it.
            if let Some(outcome) = compiled(text).ok().and_then(|e| e.evaluate(&scope).ok()) {
                scope.set_outcome(&format!("variables.{name}"), outcome);
            }
        }
        scope
    }

    /// The violations of one policy as one binding wants them handled.
    fn judge(&self, policy: &Value, binding: &Value) -> Vec<Verdict> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let actions: Vec<String> =
            binding["spec"]["validationActions"].as_array().into_iter().flatten().map(text).collect();
        let verdict = |message: String, reason: String| Verdict {
            policy: text(&policy["metadata"]["name"]),
            binding: text(&binding["metadata"]["name"]),
            message,
            reason,
            actions: actions.clone(),
        };
        let strict = policy["spec"]["failurePolicy"] != "Ignore";
        let scope = self.scope(policy);
        let evaluate = |expression: &str| {
            compiled(expression).and_then(|e| e.evaluate_bool(&scope).map_err(|error| error.to_string()))
        };
        let mut out = Vec::new();
        for condition in policy["spec"]["matchConditions"].as_array().into_iter().flatten() {
            match evaluate(&text(&condition["expression"])) {
                Ok(true) => {}
                Ok(false) => return Vec::new(),
                Err(error) if strict => {
                    return vec![verdict(error, String::new())];
                }
                Err(_) => return Vec::new(),
            }
        }
        for validation in policy["spec"]["validations"].as_array().into_iter().flatten() {
            let expression = text(&validation["expression"]);
            match evaluate(&expression) {
                Ok(true) => {}
                Ok(false) => {
                    let made = validation["messageExpression"].as_str().and_then(|m| compiled(m).ok());
                    let made =
                        made.and_then(|m| m.evaluate_text(&scope).ok()).filter(|m| !m.trim().is_empty());
                    let fixed = validation["message"].as_str().filter(|m| !m.is_empty()).map(str::to_owned);
                    let message =
                        made.or(fixed).unwrap_or_else(|| format!("failed expression: {expression}"));
                    out.push(verdict(message, text(&validation["reason"])));
                }
                Err(error) if strict => {
                    out.push(verdict(
                        format!("expression '{expression}' resulted in error: {error}"),
                        String::new(),
                    ));
                }
                Err(_) => {}
            }
        }
        out
    }
}

/// Rules for a policy: its expressions must compile.
pub fn policy_causes(policy: &Value, causes: &mut Vec<Cause>) {
    let spec = &policy["spec"];
    let mut check = |path: String, value: &Value| {
        if let Some(text) = value.as_str()
            && let Some(complaint) = crate::expressions::complaint(text)
        {
            causes.push(Cause::invalid(path, value, complaint));
        }
    };
    for (list, keys) in [
        ("variables", &["expression"][..]),
        ("matchConditions", &["expression"][..]),
        ("validations", &["expression", "messageExpression"][..]),
    ] {
        for (index, item) in spec[list].as_array().into_iter().flatten().enumerate() {
            for key in keys {
                check(format!("spec.{list}[{index}].{key}"), &item[*key]);
            }
        }
    }
    if spec["validations"].as_array().is_none_or(Vec::is_empty) {
        let detail = "validations or auditAnnotations must contain at least one item";
        if spec["auditAnnotations"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required("spec.validations", detail));
        }
    }
}
