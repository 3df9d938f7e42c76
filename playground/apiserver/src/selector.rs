//! Label and field selectors.

use crate::schema::catalogue::Resource;
use crate::status::Refusal;
use serde_json::Value;

/// One condition on labels.
#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

/// A label selector in its text form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels(Vec<Requirement>);

impl Labels {
    /// Reads `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Labels, Refusal> {
        let mut out = Vec::new();
        for part in split(text) {
            out.push(requirement(part.trim()).map_err(Refusal::bad_request)?);
        }
        Ok(Labels(out))
    }

    /// Reads a `metav1.LabelSelector`; an empty one selects everything.
    pub fn from_object(selector: &Value) -> Labels {
        let mut out = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            out.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().into()]));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = expression["values"].as_array().into_iter().flatten();
            let values: Vec<String> = values.filter_map(Value::as_str).map(str::to_owned).collect();
            out.push(match expression["operator"].as_str() {
                Some("In") => Requirement::In(key, values),
                Some("NotIn") => Requirement::NotIn(key, values),
                Some("Exists") => Requirement::Exists(key),
                _ => Requirement::Missing(key),
            });
        }
        Labels(out)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels fit.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(&object["metadata"]["labels"])
    }

    /// Whether labels fit.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        let get = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        self.0.iter().all(|r| match r {
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Missing(key) => get(key).is_none(),
            Requirement::In(key, values) => get(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|x| x != v)),
            Requirement::Greater(key, than) => number(key).is_some_and(|v| v > *than),
            Requirement::Less(key, than) => number(key).is_some_and(|v| v < *than),
        })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out.retain(|p| !p.trim().is_empty());
    out
}

/// What is wrong with the words of an equation: a key and a value are one word each.
fn malformed(part: &str) -> Option<String> {
    let at = part.find(['=', '!', '<', '>'])?;
    let (left, right) = part.split_at(at);
    let mut keys = left.split_whitespace();
    if let (Some(_), Some(second)) = (keys.next(), keys.next()) {
        let is_list = matches!(second, "in" | "notin");
        return (!is_list).then(|| {
            format!("unable to parse requirement: found '{second}', expected: in, notin, =, ==, !=, gt, lt")
        });
    }
    let operator = ["!=", "==", "=", "<", ">"].into_iter().find(|o| right.starts_with(o));
    let Some(operator) = operator else {
        let word = right.split_whitespace().next().unwrap_or_default();
        return Some(format!(
            "unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt"
        ));
    };
    let value = &right[operator.len()..];
    if let Some(odd) = ["==", "!=", "=", "<", ">"].into_iter().find(|o| value.trim_start().starts_with(o)) {
        return Some(format!("unable to parse requirement: found '{odd}', expected: identifier"));
    }
    let mut words = value.split_whitespace();
    let second = words.nth(1)?;
    let end = second.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')));
    Some(format!("found '{}', expected: ',' or 'end of string'", &second[..end.unwrap_or(second.len())]))
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Missing(key.trim().into()));
    }
    if let Some(refusal) = malformed(part) {
        return Err(refusal);
    }
    for (operator, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let (key, values) = (key.trim().to_owned(), vec![value.trim().to_owned()]);
            return Ok(if negative { Requirement::NotIn(key, values) } else { Requirement::In(key, values) });
        }
    }
    for (operator, greater) in [(">", true), ("<", false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let than = value.trim().parse().map_err(|_| {
                format!("unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            let key = key.trim().to_owned();
            return Ok(if greater { Requirement::Greater(key, than) } else { Requirement::Less(key, than) });
        }
    }
    let mut words = part.splitn(2, char::is_whitespace);
    let (key, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    if rest.is_empty() {
        return Ok(Requirement::Exists(key.into()));
    }
    let end = rest.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(rest.len());
    let (operator, values) = rest.split_at(end);
    let unknown =
        || format!("unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt");
    if !matches!(operator, "in" | "notin") {
        return Err(unknown());
    }
    let inner = values
        .trim()
        .strip_prefix('(')
        .and_then(|v| v.strip_suffix(')'))
        .ok_or_else(|| format!("unable to parse requirement: found '{}' expected: '('", values.trim()))?;
    let values = inner.split(',').map(|v| v.trim().to_owned()).collect();
    Ok(if operator == "in" {
        Requirement::In(key.into(), values)
    } else {
        Requirement::NotIn(key.into(), values)
    })
}

/// A field selector: path, value, and whether they must be equal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// Reads `metadata.name=x,status.phase!=y` for a resource.
    pub fn parse(text: &str, resource: &Resource) -> Result<Fields, Refusal> {
        let mut out = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = if let Some((key, value)) = part.split_once("!=") {
                (key, value, false)
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (key, value, true)
            } else {
                return Err(Refusal::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            if !known(resource, key) {
                let others = resource.custom.as_ref().is_some_and(|c| !c.selectable.is_empty());
                return Err(Refusal::bad_request(if selectable(resource).is_empty() && !others {
                    format!(
                        "{key:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {key}")
                }));
            }
            out.push((key.to_owned(), value.to_owned(), equal));
        }
        Ok(Fields(out))
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object fits.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(key, value, equal)| (field(object, key) == *value) == *equal)
    }
}

fn field(object: &Value, path: &str) -> String {
    let path = if path == "name" { "metadata.name" } else { path };
    let mut at = object;
    for part in path.split('.') {
        at = &at[part];
    }
    match at {
        Value::String(s) => s.clone(),
        Value::Null if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".into(),
        Value::Null if path.ends_with("replicas") || path == "status.successful" => "0".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn known(resource: &Resource, key: &str) -> bool {
    key == "metadata.name"
        || (key == "metadata.namespace" && resource.namespaced)
        || selectable(resource).contains(&key)
        || resource.custom.as_ref().is_some_and(|c| c.selectable.iter().any(|s| s == key))
}

/// Fields that a kind can be selected by, beyond name and namespace.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        ("", "secrets") => &["type"],
        ("", "namespaces") => &["status.phase", "name"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let object = json!({"metadata": {"labels": {"i": "1", "even": "false"}}});
        for (text, expected) in [
            ("even=false", true),
            ("i in (1,2)", true),
            ("i notin (1,2),even", false),
            ("!even", false),
            ("i!=3,even==false", true),
            ("other notin (x)", true),
            ("i>0", true),
            ("", true),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&object), expected, "{text}");
        }
        assert_eq!(
            Labels::parse("bad bad bad").unwrap_err().message,
            "unable to parse requirement: found 'bad', expected: in, notin, =, ==, !=, gt, lt"
        );
    }
}
