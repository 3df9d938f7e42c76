//! Nobody grants what they do not have.
//!
//! Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping

use crate::app::App;
use crate::auth::User;
use crate::rbac::{self, Action};
use crate::request::Target;
use crate::schema::catalogue::Resource;
use crate::status::{About, Refusal};
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a role or binding that somebody is about to write.
pub fn check(app: &App, user: &User, target: &Target, object: &Value) -> Result<(), Refusal> {
    let resource = &target.resource;
    if resource.group != GROUP || user.groups.iter().any(|g| g == "system:masters") {
        return Ok(());
    }
    let namespace = &target.namespace;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let rules = match resource.plural.as_str() {
        "roles" | "clusterroles" => {
            let free = Action::on("escalate", GROUP, &resource.plural, "", namespace, name);
            if rbac::allowed(app, user, &free) {
                return Ok(());
            }
            object["rules"].as_array().cloned().unwrap_or_default()
        }
        "rolebindings" | "clusterrolebindings" => {
            let reference = &object["roleRef"];
            let role = reference["name"].as_str().unwrap_or_default();
            let (plural, place) = if reference["kind"] == "ClusterRole" {
                ("clusterroles", "")
            } else {
                ("roles", namespace.as_str())
            };
            if rbac::allowed(app, user, &Action::on("bind", GROUP, plural, "", namespace, role)) {
                return Ok(());
            }
            let key = if place.is_empty() { role.to_owned() } else { format!("{place}/{role}") };
            let Some(role) = app.store().get(&format!("{plural}.{GROUP}"), &key) else {
                return Err(Refusal::not_found(About::new(GROUP, plural, role)));
            };
            role.value["rules"].as_array().cloned().unwrap_or_default()
        }
        _ => return Ok(()),
    };
    let missing: Vec<String> = rules.iter().filter(|r| !holds(app, user, r, namespace)).map(print).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&json!(user.groups)),
        missing.join("\n")
    );
    Err(Refusal::forbidden(about(resource, name), &why))
}

fn about(resource: &Resource, name: &str) -> About {
    About::new(&resource.group, &resource.plural, name)
}

/// Whether a user may do all that a rule permits.
fn holds(app: &App, user: &User, rule: &Value, namespace: &str) -> bool {
    let texts = |key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut names = texts("resourceNames");
    if names.is_empty() {
        names.push(String::new());
    }
    let (groups, resources, paths) = (texts("apiGroups"), texts("resources"), texts("nonResourceURLs"));
    texts("verbs").iter().all(|verb| {
        let mut actions = Vec::new();
        for (group, resource) in groups.iter().flat_map(|g| resources.iter().map(move |r| (g, r))) {
            actions.extend(names.iter().map(|name| Action::on(verb, group, resource, "", namespace, name)));
        }
        actions.extend(paths.iter().map(|path| Action {
            verb: verb.clone(),
            path: path.clone(),
            ..Action::default()
        }));
        actions.iter().all(|action| rbac::allowed(app, user, action))
    })
}

fn quoted(list: &Value) -> String {
    let items: Vec<String> = list.as_array().into_iter().flatten().map(Value::to_string).collect();
    format!("[{}]", items.join(" "))
}

/// A rule as a real server prints it.
fn print(rule: &Value) -> String {
    let keys = [
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    ];
    let parts = keys.iter().filter(|(_, key)| rule[*key].as_array().is_some_and(|l| !l.is_empty()));
    let parts: Vec<String> = parts.map(|(name, key)| format!("{name}:{}", rule[*key])).collect();
    format!("{{{}}}", parts.join(", "))
}
