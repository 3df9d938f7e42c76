//! Role-based access control.
//!
//! Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/

use crate::app::App;
use crate::auth::User;
use crate::store::{Object, Store};
use serde_json::Value;
use std::sync::Arc;

/// What somebody wants to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Action {
    /// Verb, as `list`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Resource; empty for a path outside the API groups.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty for all or none.
    pub namespace: String,
    /// Object name; empty for any.
    pub name: String,
    /// Path, when it is no resource.
    pub path: String,
}

impl Action {
    /// An action on a resource.
    pub fn on(verb: &str, group: &str, resource: &str, sub: &str, namespace: &str, name: &str) -> Action {
        Action {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            name: name.into(),
            path: String::new(),
        }
    }

    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The sentence of a refusal.
    pub fn denial(&self, user: &User) -> String {
        if self.resource.is_empty() {
            return format!("User {:?} cannot {} path {:?}", user.name, self.verb, self.path);
        }
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!(
            "User {:?} cannot {} resource {:?} in API group {:?} {place}",
            user.name,
            self.verb,
            self.full_resource(),
            self.group
        )
    }
}

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether a user may do something.
pub fn allowed(app: &App, user: &User, action: &Action) -> bool {
    why_allowed(app, user, action).is_some()
}

/// Why a user may do something, in words (empty for the administrators, who may do anything); `None` when they may not.
pub fn why_allowed(app: &App, user: &User, action: &Action) -> Option<String> {
    if user.groups.iter().any(|g| g == "system:masters") {
        return Some(String::new());
    }
    let store = app.store();
    let namespace = if action.resource.is_empty() { "" } else { &action.namespace };
    let permission = grants(&store, user, namespace)
        .into_iter()
        .find(|grant| grant.rules().any(|rule| permits(rule, action)))?;
    Some(format!("RBAC: allowed by {}", permission.title))
}

/// The rules that a user has in a namespace, or with an empty one everywhere.
pub fn rules(app: &App, user: &User, namespace: &str) -> Vec<Value> {
    let store = app.store();
    grants(&store, user, namespace).iter().flat_map(Grant::rules).cloned().collect()
}

/// What one binding gives to a user.
struct Grant {
    title: String,
    /// The role, and what it aggregates.
    roles: Vec<Arc<Object>>,
}

impl Grant {
    fn rules(&self) -> impl Iterator<Item = &Value> {
        self.roles.iter().flat_map(|role| role.value["rules"].as_array().into_iter().flatten())
    }
}

fn grants(store: &Store, user: &User, namespace: &str) -> Vec<Grant> {
    let cluster = format!("clusterrolebindings.{GROUP}");
    let local = format!("rolebindings.{GROUP}");
    let prefix = format!("{namespace}/");
    let everywhere = store.range(&cluster, "", "");
    let here = store.range(&local, &prefix, "").filter(|_| !namespace.is_empty());
    let mut out = Vec::new();
    for binding in everywhere.chain(here) {
        let Some(subject) = binds(&binding.value, user) else { continue };
        let reference = &binding.value["roleRef"];
        let name = reference["name"].as_str().unwrap_or_default();
        let own = binding.value["metadata"]["namespace"].as_str().unwrap_or_default();
        let is_cluster_role = reference["kind"] == "ClusterRole";
        let role = if is_cluster_role {
            store.get(&format!("clusterroles.{GROUP}"), name)
        } else {
            store.get(&format!("roles.{GROUP}"), &format!("{own}/{name}"))
        };
        let Some(role) = role else { continue };
        let mut roles = vec![role.clone()];
        // Aggregated roles collect the rules of the roles that their selectors find.
        for selector in role.value["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten()
        {
            let selector = crate::selector::Labels::from_object(selector);
            let table = format!("clusterroles.{GROUP}");
            roles.extend(store.range(&table, "", "").filter(|r| selector.matches(&r.value)).cloned());
        }
        let title = binding.value["metadata"]["name"].as_str().unwrap_or_default();
        let (kind, title) = if own.is_empty() {
            ("ClusterRoleBinding", title.to_owned())
        } else {
            ("RoleBinding", format!("{title}/{own}"))
        };
        let role_kind = if is_cluster_role { "ClusterRole" } else { "Role" };
        out.push(Grant { title: format!("{kind} {title:?} of {role_kind} {name:?} to {subject}"), roles });
    }
    out
}

/// The subject of a binding that a user is, as sentences name it.
fn binds(binding: &Value, user: &User) -> Option<String> {
    let own_namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
    binding["subjects"].as_array().into_iter().flatten().find_map(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => (name == user.name).then(|| format!("User {name:?}")),
            Some("Group") => user.groups.iter().any(|g| g == name).then(|| format!("Group {name:?}")),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or(own_namespace);
                let is = user.name == format!("system:serviceaccount:{namespace}:{name}");
                is.then(|| format!("ServiceAccount \"{name}/{namespace}\""))
            }
            _ => None,
        }
    })
}

fn permits(rule: &Value, action: &Action) -> bool {
    let has =
        |key: &str, wanted: &str| rule[key].as_array().into_iter().flatten().any(|v| v == wanted || v == "*");
    if !has("verbs", &action.verb) {
        return false;
    }
    if action.resource.is_empty() {
        return rule["nonResourceURLs"].as_array().into_iter().flatten().filter_map(Value::as_str).any(
            |url| {
                url == action.path
                    || url.strip_suffix('*').is_some_and(|prefix| action.path.starts_with(prefix))
            },
        );
    }
    let full = action.full_resource();
    let any_sub = format!("*/{}", action.subresource);
    let resource = has("resources", &full) || (!action.subresource.is_empty() && has("resources", &any_sub));
    let names = rule["resourceNames"].as_array().filter(|n| !n.is_empty());
    let named = names.is_none_or(|names| names.iter().any(|n| n == action.name.as_str()));
    has("apiGroups", &action.group) && resource && named
}
