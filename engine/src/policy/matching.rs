//! Which policies an object falls under.

use std::collections::BTreeMap;
use std::fmt;

use super::model::{MatchPolicy, MatchResources, Operator, Rule, Selector};
use crate::object::{GroupKind, Object};

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
}

impl fmt::Display for Operation {
    /// As admission requests have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        })
    }
}

/// The name of a kind's resource, by the rules of English that Kubernetes' own kinds follow.
pub fn plural(kind: &str) -> String {
    let name = kind.to_lowercase();
    if name == "endpoints" {
        return name;
    }
    if ["s", "x", "z", "ch", "sh"].iter().any(|end| name.ends_with(end)) {
        return format!("{name}es");
    }
    match name.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{name}s"),
    }
}

/// What is known about an object when policies are chosen for it.
pub(super) struct Subject<'a> {
    pub object: &'a Object,
    pub operation: Operation,
    /// Name of its kind's resource.
    pub resource: &'a str,
    /// Labels of its namespace; none for a cluster-wide object.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
}

impl Subject<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        labels(self.object)
    }

    fn is_namespace(&self) -> bool {
        self.object.gvk().group_kind().is("", "Namespace")
    }
}

/// An object's labels.
pub(super) fn labels(object: &Object) -> BTreeMap<String, String> {
    let labels = object.value()["metadata"]["labels"].as_object();
    labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

impl MatchResources {
    /// Whether an object is meant. Without rules everything is: a binding may leave them to its policy.
    pub fn matches(&self, subject: &Subject) -> bool {
        let rule = |rule: &Rule| rule.matches(subject, self.match_policy);
        self.selects_namespace(subject)
            && self.object_selector.as_ref().is_none_or(|selector| selector.matches(&subject.labels()))
            && !self.exclude_resource_rules.iter().any(rule)
            && (self.resource_rules.is_empty() || self.resource_rules.iter().any(rule))
    }

    fn selects_namespace(&self, subject: &Subject) -> bool {
        let Some(selector) = &self.namespace_selector else { return true };
        match subject.namespace_labels {
            Some(labels) => selector.matches(labels),
            // A Namespace is selected by its own labels, other cluster-wide objects always are.
            None if subject.is_namespace() => selector.matches(&subject.labels()),
            None => true,
        }
    }
}

impl Rule {
    fn matches(&self, subject: &Subject, policy: MatchPolicy) -> bool {
        let gvk = subject.object.gvk();
        let listed = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let scope = match self.scope.as_deref() {
            Some("Cluster") => subject.object.namespace().is_none(),
            Some("Namespaced") => subject.object.namespace().is_some(),
            _ => true,
        };
        // Versions of one resource are the same objects: the API server converts between them.
        let version = policy == MatchPolicy::Equivalent || listed(&self.api_versions, &gvk.version);
        let resource = |rule: &String| {
            let (resource, sub) = rule.split_once('/').unwrap_or((rule, ""));
            (resource == "*" || resource == subject.resource) && (sub.is_empty() || sub == "*")
        };
        scope
            && version
            && listed(&self.api_groups, &gvk.group)
            && listed(&self.operations, &subject.operation.to_string())
            && self.resources.iter().any(resource)
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == subject.object.name()))
    }
}

impl Selector {
    /// Whether labels are selected. An empty selector selects everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// Plural names of custom kinds, from their definitions.
pub(super) fn custom_plurals(objects: &[Object]) -> BTreeMap<GroupKind, String> {
    objects
        .iter()
        .filter(|object| object.gvk().group_kind().is("apiextensions.k8s.io", "CustomResourceDefinition"))
        .filter_map(|definition| {
            let spec = &definition.value()["spec"];
            let kind = GroupKind::new(spec["group"].as_str()?, spec["names"]["kind"].as_str()?);
            Some((kind, spec["names"]["plural"].as_str()?.to_owned()))
        })
        .collect()
}
