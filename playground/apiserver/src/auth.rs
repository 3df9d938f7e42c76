//! Who is asking: tokens and impersonation.

use crate::app::App;
use crate::rbac::{self, Action};
use crate::request::Request;
use crate::status::{About, Refusal};
use serde_json::{Value, json};

/// An authenticated user.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    /// The cluster administrator.
    pub fn admin() -> User {
        User::of("kubernetes-admin", &["system:masters", "system:authenticated"])
    }

    /// Somebody without a token.
    pub fn anonymous() -> User {
        User::of("system:anonymous", &["system:unauthenticated"])
    }

    /// A service account, with the groups that it belongs to.
    pub fn service_account(namespace: &str, name: &str) -> User {
        let own = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", own.as_str(), "system:authenticated"];
        User::of(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
    }

    fn of(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect() }
    }

    /// As `userInfo` of a review.
    pub fn to_value(&self) -> Value {
        json!({"username": self.name, "groups": self.groups})
    }
}

/// Finds out who sends a request: its token, then whom it impersonates.
pub fn authenticate(app: &App, request: &Request) -> Result<User, Refusal> {
    let user = match request.header("authorization").strip_prefix("Bearer ") {
        Some(token) => app.user_of(token).ok_or_else(Refusal::unauthorized)?,
        None if app.config.anonymous_admin => User::admin(),
        None => User::anonymous(),
    };
    impersonate(app, request, user)
}

fn impersonate(app: &App, request: &Request, user: User) -> Result<User, Refusal> {
    let name = request.header("impersonate-user");
    if name.is_empty() {
        return Ok(user);
    }
    let groups = request.headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    let mut wanted = vec![("users".to_owned(), String::new(), name.to_owned())];
    if let Some((namespace, account)) =
        name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'))
    {
        wanted = vec![("serviceaccounts".into(), namespace.into(), account.into())];
        if groups.is_empty() {
            groups = User::service_account(namespace, account).groups;
        }
    }
    wanted.extend(
        groups
            .iter()
            .filter(|g| !g.starts_with("system:serviceaccounts") && *g != "system:authenticated")
            .map(|g| ("groups".to_owned(), String::new(), g.clone())),
    );
    for (resource, namespace, name) in wanted {
        let action = Action::on("impersonate", "", &resource, "", &namespace, &name);
        if !rbac::allowed(app, &user, &action) {
            return Err(Refusal::forbidden(About::new("", &resource, &name), &action.denial(&user)));
        }
    }
    let everybody =
        if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|g| g == everybody) {
        groups.push(everybody.into());
    }
    Ok(User { name: name.into(), groups })
}
