//! Pod Security admission: what namespaces' labels ask of pods.
//!
//! Rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/ in the version `latest`; older versions that
//! a namespace asks for are judged by the same rules.

use crate::admission::standards::{self, Level, Violation};
use crate::app::App;
use crate::status::{About, Cause, Refusal};
use crate::write::Call;
use serde_json::Value;
use std::collections::BTreeMap;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// What a namespace asks for in one mode: `enforce`, `warn` or `audit`.
#[derive(Debug, PartialEq)]
struct Wish {
    level: Level,
    version: String,
}

impl Wish {
    fn read(labels: &Value, mode: &str) -> Wish {
        let text = |key: String| labels[key].as_str().unwrap_or_default().to_owned();
        let level = Level::parse(&text(format!("{PREFIX}{mode}"))).unwrap_or(Level::Privileged);
        let version = text(format!("{PREFIX}{mode}-version"));
        Wish { level, version: if version.is_empty() { "latest".into() } else { version } }
    }

    fn name(&self) -> String {
        format!("{}:{}", self.level.name(), self.version)
    }
}

/// What is wrong with the labels of a namespace.
pub fn label_causes(namespace: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (key, rule) in [
            (format!("{PREFIX}{mode}"), "must be one of privileged, baseline, restricted"),
            (format!("{PREFIX}{mode}-version"), "must be \"latest\" or \"v1.x\""),
        ] {
            let value = &namespace["metadata"]["labels"][&key];
            let Some(text) = value.as_str() else { continue };
            let minor = text.strip_prefix("v1.").unwrap_or_default();
            let is_version = text == "latest"
                || (!minor.is_empty()
                    && minor.bytes().all(|b| b.is_ascii_digit())
                    && (minor == "0" || !minor.starts_with('0')));
            let fits = if key.ends_with("-version") { is_version } else { Level::parse(text).is_some() };
            if !fits {
                causes.push(Cause::invalid(format!("metadata.labels[{key}]"), value, rule));
            }
        }
    }
    causes
}

/// The pod's metadata and spec in an object: its own or that of its template, and whether it is a pod.
fn pod_in<'a>(group: &str, plural: &str, object: &'a Value) -> Option<(&'a Value, &'a Value, bool)> {
    let template = match (group, plural) {
        ("", "pods") => return Some((&object["metadata"], &object["spec"], true)),
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template["spec"].is_object().then_some((&template["metadata"], &template["spec"], false))
}

/// Judges a write. The result is warnings for the client.
pub fn check(call: &Call<'_>, object: &Value, old: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let resource = &call.target.resource;
    if resource.is("", "namespaces") {
        return match (old, call.target.subresource.as_str()) {
            (Some(old), "") => Ok(of_namespace(call.app, object, old)),
            _ => Ok(Vec::new()),
        };
    }
    let Some((metadata, spec, is_pod)) = pod_in(&resource.group, &resource.plural, object) else {
        return Ok(Vec::new());
    };
    let judged = match call.target.subresource.as_str() {
        // What a pod may change later is nothing that the standards look at.
        "" => !is_pod || old.is_none(),
        "ephemeralcontainers" => true,
        _ => false,
    };
    let namespace = call.app.store().get("namespaces", &call.target.namespace);
    let Some(namespace) = namespace.filter(|_| judged) else { return Ok(Vec::new()) };
    let labels = &namespace.value["metadata"]["labels"];
    let violations = |wish: &Wish| standards::violations(wish.level, metadata, spec);
    if is_pod {
        let enforced = Wish::read(labels, "enforce");
        let found = violations(&enforced);
        if !found.is_empty() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("violates PodSecurity {:?}: {}", enforced.name(), details(&found));
            return Err(Refusal::forbidden(About::new("", "pods", name), &why));
        }
    }
    // Who does not say what to warn of is warned of what is enforced.
    let mode = if labels[format!("{PREFIX}warn")].is_string() { "warn" } else { "enforce" };
    let warned = Wish::read(labels, mode);
    let found = violations(&warned);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("would violate PodSecurity {:?}: {}", warned.name(), details(&found))])
}

fn details(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    texts.join(", ")
}

/// The pods of a namespace that a stricter level would refuse.
fn of_namespace(app: &App, new: &Value, old: &Value) -> Vec<String> {
    let wish = Wish::read(&new["metadata"]["labels"], "enforce");
    let before = Wish::read(&old["metadata"]["labels"], "enforce");
    if wish == before || (wish.level <= before.level && wish.version == before.version) {
        return Vec::new();
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let prefix = format!("{name}/");
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in app.store().range("pods", &prefix, "") {
        let found = standards::violations(wish.level, &pod.value["metadata"], &pod.value["spec"]);
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|v| v.reason).collect();
        let pod = pod.value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        groups.entry(reasons.join(", ")).or_default().push(pod);
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = groups
        .into_iter()
        .map(|(reasons, pods)| match &pods[..] {
            [first, _] => format!("{first} (and 1 other pod): {reasons}"),
            [first, others @ ..] if !others.is_empty() => {
                format!("{first} (and {} other pods): {reasons}", others.len())
            }
            pods => format!("{}: {reasons}", pods.concat()),
        })
        .collect();
    lines.sort();
    let head = format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level {:?}",
        wish.name()
    );
    std::iter::once(head).chain(lines).collect()
}
