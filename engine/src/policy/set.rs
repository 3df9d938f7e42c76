//! Reading a folder of policies.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cel::{CelError, Expression};
use super::matching::custom_plurals;
use super::model::{BindingSpec, FailurePolicy, MatchResources, Named, ParamKind, PolicySpec};
use crate::object::{GroupKind, Object};

const GROUP: &str = "admissionregistration.k8s.io";

/// A policy that cannot be used. Nothing is let through by a policy that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The object does not have the form of its kind.
    #[error("{file}: {kind} {name}: {message}")]
    Invalid {
        /// Where it was read from.
        file: String,
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// An expression cannot be compiled.
    #[error("{file}: policy {policy}: {error}")]
    Expression {
        /// Where it was read from.
        file: String,
        /// Name of the policy.
        policy: String,
        /// What is wrong.
        error: CelError,
    },
    /// Two objects have one name.
    #[error("{file}: there is another {kind} {name}")]
    Duplicate {
        /// Where the second was read from.
        file: String,
        /// Kind of the objects.
        kind: String,
        /// Their name.
        name: String,
    },
    /// A binding is for a policy that is not there.
    #[error("{file}: binding {binding} is for policy {policy}, which does not exist here")]
    UnknownPolicy {
        /// Where the binding was read from.
        file: String,
        /// Name of the binding.
        binding: String,
        /// Name of the policy.
        policy: String,
    },
}

pub(super) struct Policy {
    pub name: String,
    pub failure: FailurePolicy,
    pub params: Option<ParamKind>,
    pub constraints: MatchResources,
    pub conditions: Vec<(String, Expression)>,
    pub variables: Vec<(String, Expression)>,
    pub validations: Vec<Check>,
    pub bindings: Vec<Binding>,
}

pub(super) struct Check {
    pub expression: Expression,
    pub message: Option<String>,
    pub message_expression: Option<Expression>,
}

pub(super) struct Binding {
    pub name: String,
    pub spec: BindingSpec,
}

/// Policies, ready to be asked. A policy without a binding is read and never enforced, as in Kubernetes.
#[derive(Default)]
pub struct PolicySet {
    pub(super) policies: Vec<Policy>,
    /// Objects beside the policies, which they may take parameters from.
    pub(super) others: Vec<Object>,
    pub(super) plurals: BTreeMap<GroupKind, String>,
}

impl PolicySet {
    /// Reads policies and bindings, each with the name of its file. Other objects are kept as parameters.
    ///
    /// # Errors
    /// [`PolicyError`] names the file, the object and what is wrong.
    pub fn parse(objects: &[(Object, String)]) -> Result<Self, PolicyError> {
        let mut set = Self::default();
        let mut index = BTreeMap::new();
        let mut bindings = Vec::new();
        let mut binding_names = BTreeSet::new();
        for (object, file) in objects {
            let gvk = object.gvk();
            match (gvk.group.as_str(), gvk.kind.as_str()) {
                (GROUP, "ValidatingAdmissionPolicy") => {
                    let policy = policy(object, file)?;
                    if index.insert(policy.name.clone(), set.policies.len()).is_some() {
                        return Err(duplicate(object, file));
                    }
                    set.policies.push(policy);
                }
                (GROUP, "ValidatingAdmissionPolicyBinding") => {
                    if !binding_names.insert(object.name()) {
                        return Err(duplicate(object, file));
                    }
                    let spec: BindingSpec = spec(object, file)?;
                    bindings.push((Binding { name: object.name().to_owned(), spec }, file));
                }
                _ => set.others.push(object.clone()),
            }
        }
        for (binding, file) in bindings {
            let Some(policy) = index.get(&binding.spec.policy_name).and_then(|i| set.policies.get_mut(*i))
            else {
                return Err(PolicyError::UnknownPolicy {
                    file: file.clone(),
                    binding: binding.name,
                    policy: binding.spec.policy_name,
                });
            };
            policy.bindings.push(binding);
        }
        set.plurals = custom_plurals(&set.others);
        Ok(set)
    }

    /// How many policies are enforced.
    pub fn enforced(&self) -> usize {
        self.policies.iter().filter(|policy| !policy.bindings.is_empty()).count()
    }

    /// Whether no policy is enforced.
    pub fn is_empty(&self) -> bool {
        self.enforced() == 0
    }

    /// Learns the plural names of custom kinds from definitions that are deployed along.
    pub fn learn_kinds(&mut self, objects: &[Object]) {
        self.plurals.extend(custom_plurals(objects));
    }
}

fn policy(object: &Object, file: &str) -> Result<Policy, PolicyError> {
    let spec: PolicySpec = spec(object, file)?;
    let name = object.name();
    let compile = |source: &str| {
        Expression::compile(source).map_err(|error| PolicyError::Expression {
            file: file.to_owned(),
            policy: name.to_owned(),
            error,
        })
    };
    let named = |list: Vec<Named>| -> Result<Vec<(String, Expression)>, PolicyError> {
        list.into_iter().map(|one| Ok((one.name, compile(&one.expression)?))).collect()
    };
    if spec.match_constraints.resource_rules.is_empty() {
        return Err(invalid(
            object,
            file,
            "spec.matchConstraints.resourceRules is empty: it would match nothing",
        ));
    }
    let validations = spec.validations.into_iter().map(|validation| {
        Ok(Check {
            expression: compile(&validation.expression)?,
            message: validation.message.filter(|message| !message.trim().is_empty()),
            message_expression: validation.message_expression.as_deref().map(compile).transpose()?,
        })
    });
    Ok(Policy {
        name: name.to_owned(),
        failure: spec.failure_policy,
        params: spec.param_kind,
        constraints: spec.match_constraints,
        conditions: named(spec.match_conditions)?,
        variables: named(spec.variables)?,
        validations: validations.collect::<Result<_, PolicyError>>()?,
        bindings: Vec::new(),
    })
}

fn spec<T: DeserializeOwned>(object: &Object, file: &str) -> Result<T, PolicyError> {
    let spec = object.value().get("spec").cloned().unwrap_or(Value::Null);
    serde_json::from_value(spec).map_err(|error| invalid(object, file, &format!("spec: {error}")))
}

fn invalid(object: &Object, file: &str, message: &str) -> PolicyError {
    PolicyError::Invalid {
        file: file.to_owned(),
        kind: object.gvk().kind,
        name: object.name().to_owned(),
        message: message.to_owned(),
    }
}

fn duplicate(object: &Object, file: &str) -> PolicyError {
    PolicyError::Duplicate { file: file.to_owned(), kind: object.gvk().kind, name: object.name().to_owned() }
}
