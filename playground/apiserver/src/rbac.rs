//! Role-based access control.
//!
//! Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/

use crate::app::App;
use crate::auth::User;
use serde_json::Value;

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
    if user.groups.iter().any(|g| g == "system:masters") {
        return true;
    }
    let namespace = if action.resource.is_empty() { "" } else { action.namespace.as_str() };
    each_rule(app, user, namespace, |rule| permits(rule, action))
}

/// The rules that a user has in a namespace, those of all namespaces and of paths included.
pub fn rules(app: &App, user: &User, namespace: &str) -> Vec<Value> {
    let mut out = Vec::new();
    each_rule(app, user, namespace, |rule| {
        out.push(rule.clone());
        false
    });
    out
}

/// Looks at the rules that a user has in a namespace until one is what is looked for; whether one was.
fn each_rule(app: &App, user: &User, namespace: &str, mut wanted: impl FnMut(&Value) -> bool) -> bool {
    let store = app.store();
    let cluster = format!("clusterrolebindings.{GROUP}");
    let local = format!("rolebindings.{GROUP}");
    let prefix = format!("{namespace}/");
    let bindings = store
        .range(&cluster, "", "")
        .chain(store.range(&local, &prefix, "").filter(|_| !namespace.is_empty()));
    for binding in bindings {
        if !binds(&binding.value, user) {
            continue;
        }
        let reference = &binding.value["roleRef"];
        let name = reference["name"].as_str().unwrap_or_default();
        let role = if reference["kind"] == "ClusterRole" {
            store.get(&format!("clusterroles.{GROUP}"), name)
        } else {
            let namespace = binding.value["metadata"]["namespace"].as_str().unwrap_or_default();
            store.get(&format!("roles.{GROUP}"), &format!("{namespace}/{name}"))
        };
        let Some(role) = role else { continue };
        if role.value["rules"].as_array().into_iter().flatten().any(&mut wanted) {
            return true;
        }
        // Aggregated roles collect the rules of the roles that their selectors find.
        for selector in role.value["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten()
        {
            let selector = crate::selector::Labels::from_object(selector);
            let table = format!("clusterroles.{GROUP}");
            for other in store.range(&table, "", "").filter(|r| selector.matches(&r.value)) {
                if other.value["rules"].as_array().into_iter().flatten().any(&mut wanted) {
                    return true;
                }
            }
        }
    }
    false
}

fn binds(binding: &Value, user: &User) -> bool {
    let own_namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == user.name,
            Some("Group") => user.groups.iter().any(|g| g == name),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or(own_namespace);
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
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
