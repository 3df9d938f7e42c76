//! Who is asking: tokens and impersonation.

use crate::app::App;
use crate::rbac::{self, Action};
use crate::request::{Request, percent_decode};
use crate::status::{About, Refusal};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What tells users of one name apart; empty when nothing does.
    pub uid: String,
    /// What else is known of the user.
    pub extra: BTreeMap<String, Vec<String>>,
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
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    /// As `userInfo` of a review.
    pub fn to_value(&self) -> Value {
        let mut out = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            out["uid"] = self.uid.clone().into();
        }
        if !self.extra.is_empty() {
            out["extra"] = json!(self.extra);
        }
        out
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
    let groups = request.headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    let uid = request.header("impersonate-uid");
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in &request.headers {
        if let (Some(key), Ok(value)) = (header.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            extra.entry(percent_decode(key, false)).or_default().push(value.to_owned());
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        let go_list = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|g| format!("{g:?}")).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        };
        let groups = if groups.is_empty() { "[]string(nil)".into() } else { go_list(&groups) };
        let pairs: Vec<String> = extra.iter().map(|(k, v)| format!("{k:?}:{}", go_list(v))).collect();
        let extra = if pairs.is_empty() {
            "map[string][]string(nil)".to_owned()
        } else {
            format!("map[string][]string{{{}}}", pairs.join(", "))
        };
        return Err(Refusal::bad_request(format!(
            "requested &user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{groups}, Extra:{extra}}} without impersonating a \
             user name"
        )));
    }
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut wanted = vec![("", "users", "", String::new(), name.to_owned())];
    if let Some((namespace, account)) =
        name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'))
    {
        wanted = vec![("", "serviceaccounts", "", namespace.into(), account.into())];
        if groups.is_empty() {
            groups = User::service_account(namespace, account).groups;
        }
    }
    wanted.extend(
        groups
            .iter()
            .filter(|g| !g.starts_with("system:serviceaccounts") && *g != "system:authenticated")
            .map(|g| ("", "groups", "", String::new(), g.clone())),
    );
    if !uid.is_empty() {
        wanted.push((AUTHENTICATION, "uids", "", String::new(), uid.to_owned()));
    }
    for (key, values) in &extra {
        for value in values {
            wanted.push((AUTHENTICATION, "userextras", key, String::new(), value.clone()));
        }
    }
    for (group, resource, sub, namespace, name) in wanted {
        let action = Action::on("impersonate", group, resource, sub, &namespace, &name);
        if !rbac::allowed(app, &user, &action) {
            let resource = if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") };
            return Err(Refusal::forbidden(About::new(group, &resource, &name), &action.denial(&user)));
        }
    }
    let everybody =
        if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|g| g == everybody) {
        groups.push(everybody.into());
    }
    Ok(User { name: name.into(), groups, uid: uid.to_owned(), extra })
}
