//! Asking policies about an object.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cel::{CelError, Expression, Scope};
use super::matching::{Operation, Subject, labels, plural};
use super::model::{FailurePolicy, NotFoundAction};
use super::set::{Binding, Check, Policy, PolicySet};
use crate::object::{GroupVersionKind, Object, ObjectRef};

/// What follows from a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It is noted.
    Audit,
    /// People are warned.
    Warn,
    /// The object is refused.
    Deny,
}

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Name of the policy.
    pub policy: String,
    /// The object.
    pub object: ObjectRef,
    /// Which rule, in a sentence.
    pub message: String,
    /// What follows.
    pub action: Action,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (policy {})", self.object, self.message, self.policy)
    }
}

impl PolicySet {
    /// The rules that an object breaks. `namespace_labels` are those of the object's namespace, where
    /// they are known; its name is known in any case.
    ///
    /// An expression that fails counts as a violation, unless its policy says to ignore that.
    pub fn evaluate(
        &self,
        object: &Object,
        operation: Operation,
        namespace_labels: Option<&BTreeMap<String, String>>,
    ) -> Vec<Violation> {
        let kind = object.gvk().group_kind();
        let resource = self.plurals.get(&kind).cloned().unwrap_or_else(|| plural(&kind.kind));
        let namespace = object.namespace().map(|name| {
            let mut labels = namespace_labels.cloned().unwrap_or_default();
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            labels
        });
        let subject =
            Subject { object, operation, resource: &resource, namespace_labels: namespace.as_ref() };
        let mut violations = Vec::new();
        for policy in self.policies.iter().filter(|policy| policy.constraints.matches(&subject)) {
            for binding in &policy.bindings {
                let matches =
                    binding.spec.match_resources.as_ref().is_none_or(|rules| rules.matches(&subject));
                if matches {
                    self.evaluate_binding(policy, binding, &subject, &mut violations);
                }
            }
        }
        violations
    }

    fn evaluate_binding(
        &self,
        policy: &Policy,
        binding: &Binding,
        subject: &Subject,
        out: &mut Vec<Violation>,
    ) {
        let action = binding.spec.validation_actions.iter().copied().max().unwrap_or(Action::Deny);
        let mut violate = |message: String| {
            let violation = Violation {
                policy: policy.name.clone(),
                object: subject.object.object_ref(),
                message,
                action,
            };
            // Several parameters may find the same.
            if !out.contains(&violation) {
                out.push(violation);
            }
        };
        let params = match self.params(policy, binding, subject) {
            Params::None => vec![Value::Null],
            Params::Found(objects) => objects.into_iter().map(|object| object.value().clone()).collect(),
            Params::Missing if policy.failure == FailurePolicy::Ignore => return,
            Params::Missing => {
                violate(format!("the parameters of binding {} do not exist", binding.name));
                return;
            }
        };
        for params in params {
            for message in policy.messages(subject.scope(&params)) {
                violate(message);
            }
        }
    }

    fn params(&self, policy: &Policy, binding: &Binding, subject: &Subject) -> Params<'_> {
        let (Some(kind), Some(reference)) = (&policy.params, &binding.spec.param_ref) else {
            return Params::None;
        };
        let kind = GroupVersionKind::from_api_version(&kind.api_version, &kind.kind).group_kind();
        let namespace = reference.namespace.as_deref().or(subject.object.namespace());
        let found: Vec<&Object> = self
            .others
            .iter()
            .filter(|object| object.gvk().group_kind() == kind)
            .filter(|object| object.namespace().is_none_or(|own| Some(own) == namespace))
            .filter(|object| reference.name.as_deref().is_none_or(|name| name == object.name()))
            .filter(|object| {
                reference.selector.as_ref().is_none_or(|selector| selector.matches(&labels(object)))
            })
            .collect();
        match (found.is_empty(), reference.parameter_not_found_action) {
            (false, _) => Params::Found(found),
            (true, Some(NotFoundAction::Allow)) => Params::Found(Vec::new()),
            (true, _) => Params::Missing,
        }
    }
}

enum Params<'a> {
    /// The policy takes none.
    None,
    /// It is evaluated once for each.
    Found(Vec<&'a Object>),
    /// There have to be some.
    Missing,
}

impl Policy {
    /// What is wrong with an object.
    fn messages(&self, mut scope: Scope) -> Vec<String> {
        for (_, condition) in &self.conditions {
            match condition.evaluate_bool(&scope) {
                Ok(true) => {}
                Ok(false) => return Vec::new(),
                Err(error) => return self.failed(&error).into_iter().collect(),
            }
        }
        // A variable that fails matters only to those who use it.
        let mut broken: BTreeMap<String, CelError> = BTreeMap::new();
        for (name, expression) in &self.variables {
            let name = format!("variables.{name}");
            match expression.evaluate(&scope) {
                Ok(value) => scope.set_outcome(&name, value),
                Err(error) => {
                    let error = cause(expression, &broken).cloned().unwrap_or(error);
                    broken.insert(name, error);
                }
            }
        }
        self.validations.iter().filter_map(|check| self.message(check, &scope, &broken)).collect()
    }

    fn message(&self, check: &Check, scope: &Scope, broken: &BTreeMap<String, CelError>) -> Option<String> {
        match check.expression.evaluate_bool(scope) {
            Ok(true) => None,
            Ok(false) => Some(check.text(scope)),
            Err(error) => self.failed(cause(&check.expression, broken).unwrap_or(&error)),
        }
    }

    fn failed(&self, error: &CelError) -> Option<String> {
        (self.failure == FailurePolicy::Fail).then(|| error.to_string())
    }
}

/// The failure of a variable that an expression uses.
fn cause<'a>(expression: &Expression, broken: &'a BTreeMap<String, CelError>) -> Option<&'a CelError> {
    broken.iter().find(|(name, _)| expression.source().contains(name.as_str())).map(|(_, error)| error)
}

impl Check {
    /// What a person is told: the message that was computed, else the one that was written.
    fn text(&self, scope: &Scope) -> String {
        const LENGTH: usize = 1024;
        let computed =
            self.message_expression.as_ref().and_then(|expression| expression.evaluate_text(scope).ok());
        let usable = |text: &String| !text.trim().is_empty() && !text.contains('\n') && text.len() <= LENGTH;
        computed
            .filter(usable)
            .or_else(|| self.message.clone())
            .unwrap_or_else(|| format!("failed expression: {}", self.expression.source().trim()))
    }
}

impl Subject<'_> {
    /// The variables that expressions see.
    fn scope(&self, params: &Value) -> Scope {
        let gvk = self.object.gvk();
        let kind = json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
        let resource = json!({"group": gvk.group, "version": gvk.version, "resource": self.resource});
        let namespace = self.object.namespace();
        let request = json!({
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "name": self.object.name(), "namespace": namespace.unwrap_or_default(),
            "operation": self.operation.to_string(), "dryRun": false,
        });
        let namespace = namespace.map_or(Value::Null, |name| {
            let metadata = json!({"name": name, "labels": self.namespace_labels});
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        });
        let mut scope = Scope::new();
        let deleted = self.operation == Operation::Delete;
        scope.set("object", if deleted { &Value::Null } else { self.object.value() });
        scope.set("oldObject", if deleted { self.object.value() } else { &Value::Null });
        scope.set("request", &request);
        scope.set("namespaceObject", &namespace);
        scope.set("params", params);
        scope
    }
}
