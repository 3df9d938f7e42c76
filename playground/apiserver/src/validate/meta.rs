//! Rules for `metadata`: names, labels, annotations, finalizers, owner references.

use crate::schema::catalogue::Resource;
use crate::status::Cause;
use serde_json::{Value, json};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
'[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Total size of annotations, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

/// Complaints about a DNS subdomain.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 253 {
        out.push("must be no more than 253 bytes".into());
    }
    if !text.split('.').all(is_label) {
        out.push(SUBDOMAIN.into());
    }
    out
}

/// Complaints about a DNS label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push("must be no more than 63 bytes".into());
    }
    if !is_label(text) {
        out.push(LABEL.into());
    }
    out
}

/// Complaints about a DNS label that starts with a letter.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push("must be no more than 63 bytes".into());
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        out.push(LABEL_1035.into());
    }
    out
}

/// Complaints about a qualified name, as label keys are.
pub fn qualified(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            out.push(
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
                    .into(),
            );
            return out;
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    match prefix {
        Some("") => out.push("prefix part must be non-empty".into()),
        Some(prefix) => out.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {m}"))),
        None => {}
    }
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".into());
    }
    if !is_name_part(name) {
        out.push(QUALIFIED.into());
    }
    out
}

/// Complaints about a label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 63 {
        out.push("must be no more than 63 bytes".into());
    }
    if !text.is_empty() && !is_name_part(text) {
        out.push(LABEL_VALUE.into());
    }
    out
}

/// What is wrong with a key of configuration.
pub fn config_key(text: &str) -> Option<&'static str> {
    let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or \
                'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let fits = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!fits).then_some(rule)
}

/// Complaints about a `metav1.LabelSelector`.
pub fn selector(selector: &Value, path: &str, causes: &mut Vec<Cause>) {
    labels(&selector["matchLabels"], &format!("{path}.matchLabels"), causes);
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        let has_values = expression["values"].as_array().is_some_and(|v| !v.is_empty());
        match expression["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if !has_values => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if has_values => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{at}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => {
                let detail = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{at}.operator"), &json!(operator), detail));
            }
        }
        let key = expression["key"].as_str().unwrap_or_default();
        causes
            .extend(qualified(key).into_iter().map(|m| Cause::invalid(format!("{at}.key"), &json!(key), m)));
    }
}

/// Complaints about labels at a path.
pub fn labels(labels: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        causes.extend(qualified(key).into_iter().map(|m| Cause::invalid(path, &json!(key), m)));
        let complaints = label_value(value.as_str().unwrap_or_default());
        causes.extend(complaints.into_iter().map(|m| Cause::invalid(path, value, m)));
    }
}

/// How the names of a resource must look.
fn name_rule(resource: &Resource) -> fn(&str) -> Vec<String> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => namespace,
        ("", "services") => dns_label,
        ("rbac.authorization.k8s.io", _) => path_segment,
        _ => subdomain,
    }
}

fn namespace(text: &str) -> Vec<String> {
    if text.contains('.') { vec!["must not contain dots".into()] } else { dns_label(text) }
}

fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        text => ['/', '%']
            .into_iter()
            .filter(|c| text.contains(*c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    }
}

/// Rules for the metadata of any object.
pub fn object(resource: &Resource, object: &Value) -> Vec<Cause> {
    let meta = &object["metadata"];
    let mut causes = Vec::new();
    let name = meta["name"].as_str().unwrap_or_default();
    if let Some(prefix) = meta["generateName"].as_str().filter(|p| !p.is_empty()) {
        // What is made up follows it, so it may end with a hyphen.
        let shown = prefix.strip_suffix('-').map_or_else(|| prefix.to_owned(), |p| format!("{p}a"));
        let complaints = name_rule(resource)(&shown);
        let at = "metadata.generateName";
        causes.extend(complaints.into_iter().map(|m| Cause::invalid(at, &meta["generateName"], m)));
    }
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        let complaints = name_rule(resource)(name);
        causes.extend(complaints.into_iter().map(|m| Cause::invalid("metadata.name", &json!(name), m)));
    }
    // What a Job took over from its pods is looked at there.
    let taken_over =
        resource.is("batch", "jobs") && meta["labels"] == object["spec"]["template"]["metadata"]["labels"];
    if !taken_over {
        labels(&meta["labels"], "metadata.labels", &mut causes);
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        let complaints = qualified(&key.to_lowercase());
        causes.extend(complaints.into_iter().map(|m| Cause::invalid("metadata.annotations", &json!(key), m)));
    }
    if size > ANNOTATIONS_LIMIT {
        causes.push(Cause::too_long(
            "metadata.annotations",
            format!("may not be more than {ANNOTATIONS_LIMIT} bytes"),
        ));
    }
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if owner[key].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences.{key}");
                let detail =
                    if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(field, &owner[key], detail));
            }
        }
    }
    let controllers =
        meta["ownerReferences"].as_array().into_iter().flatten().filter(|o| o["controller"] == true).count();
    if controllers > 1 {
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &meta["ownerReferences"],
            "Only one reference can have Controller set to true",
        ));
    }
    for (index, finalizer) in meta["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        let complaints = qualified(text);
        let standard = matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") || text.contains('/');
        if complaints.is_empty() && !standard && resource.custom.is_none() {
            let rule = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, rule));
        }
        causes.extend(complaints.into_iter().map(|m| Cause::invalid("metadata.finalizers", finalizer, m)));
    }
    causes
}

/// Rules for a change of metadata.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = object(resource, new);
    if old["metadata"]["deletionTimestamp"].is_string() {
        let none = Vec::new();
        let before = old["metadata"]["finalizers"].as_array().unwrap_or(&none);
        let after = new["metadata"]["finalizers"].as_array().unwrap_or(&none);
        let added: Vec<String> = after
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(Value::as_str)
            .map(|f| format!("{f:?}"))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            // A real server runs this rule twice, once for every kind and once in the kind's own rules.
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        assert!(subdomain("a.b-c.1").is_empty());
        assert_eq!(subdomain("Bad_Name"), [SUBDOMAIN]);
        assert!(qualified("kubernetes.io/x").is_empty());
        assert_eq!(qualified("bad key!"), [QUALIFIED]);
        assert_eq!(qualified("a/b/c").len(), 1);
        assert!(label_value("").is_empty());
        assert_eq!(dns_1035_label("1a"), [LABEL_1035]);
    }
}
