//! Rules for security contexts.

use super::{MOST, each, one_of};
use crate::status::Cause;
use crate::validate::golang;
use serde_json::{Value, json};

/// The identifier of a user or group.
fn identifier(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|id| !(0..=MOST).contains(&id)) {
        causes.push(Cause::invalid(path, value, format!("must be between 0 and {MOST}, inclusive")));
    }
}

fn seccomp(profile: &Value, path: &str, causes: &mut Vec<Cause>) {
    if profile.is_null() {
        return;
    }
    let at = format!("{path}.seccompProfile");
    let (kind, local) = (&profile["type"], &profile["localhostProfile"]);
    one_of(kind, &format!("{at}.type"), &["Localhost", "RuntimeDefault", "Unconfined"], causes);
    let detail_at = format!("{at}.localhostProfile");
    if kind == "Localhost" && local.as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required(detail_at, "must be set when seccomp type is Localhost"));
    } else if kind != "Localhost" && local.is_string() {
        let shown = json!({"Type": kind, "LocalhostProfile": local});
        causes.push(Cause::invalid(detail_at, &shown, "can only be set when seccomp type is Localhost"));
    }
}

/// The security context of a container.
pub fn of_container(context: &Value, path: &str, causes: &mut Vec<Cause>) {
    if context.is_null() {
        return;
    }
    for key in ["runAsUser", "runAsGroup"] {
        identifier(&context[key], format!("{path}.{key}"), causes);
    }
    one_of(&context["procMount"], &format!("{path}.procMount"), &["Default", "Unmasked"], causes);
    seccomp(&context["seccompProfile"], path, causes);
    if context["allowPrivilegeEscalation"] == false {
        let refuse = |detail: &str| Cause::invalid(path, &golang::security_context(context), detail);
        if context["privileged"] == true {
            causes.push(refuse("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        if each(&context["capabilities"], "add").any(|(_, c)| c == "CAP_SYS_ADMIN") {
            causes.push(refuse(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
}

/// Whether a name is one of a sysctl.
fn is_sysctl(name: &str) -> bool {
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let bytes = part.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        })
}

/// The security context of a pod.
pub fn of_pod(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let context = &spec["securityContext"];
    let path = format!("{path}.securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        identifier(&context[key], format!("{path}.{key}"), causes);
    }
    for (index, group) in each(context, "supplementalGroups") {
        identifier(group, format!("{path}.supplementalGroups[{index}]"), causes);
    }
    let mut seen: Vec<&Value> = Vec::new();
    for (index, sysctl) in each(context, "sysctls") {
        let name = &sysctl["name"];
        let at = format!("{path}.sysctls[{index}].name");
        let text = name.as_str().unwrap_or_default();
        if text.is_empty() {
            causes.push(Cause::required(at, ""));
        } else if !is_sysctl(text) {
            let rule = "must have at most 253 characters and match regex \
                        ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            causes.push(Cause::invalid(at, name, rule));
        } else if seen.contains(&name) {
            causes.push(Cause::duplicate(at, name));
        }
        seen.push(name);
    }
    let policies = ["Always", "OnRootMismatch"];
    one_of(&context["fsGroupChangePolicy"], &format!("{path}.fsGroupChangePolicy"), &policies, causes);
    seccomp(&context["seccompProfile"], &path, causes);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.push(Cause::invalid(format!("{path}.shareProcessNamespace"), &json!(true), detail));
    }
}
