//! Rules for custom resources: their structural schema, list types, and CEL rules.
//!
//! Wording: k8s.io/kube-openapi `validation` and k8s.io/apiextensions-apiserver `pkg/apiserver/validation`.

use super::cel;
use crate::status::Cause;
use crate::time;
use serde_json::{Value, json};

/// The deepest value that is checked.
const DEEPEST: usize = 100;

/// Checks an object against its schema. `old` is set for changes.
pub fn check(object: &Value, old: Option<&Value>, schema: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let (Some(value), false) =
            (object.get(name), matches!(name.as_str(), "metadata" | "apiVersion" | "kind"))
        {
            walk(value, property, name, 0, &mut causes);
        }
    }
    required(object, schema, "", &mut causes);
    lists(object, schema, "", 0, &mut causes);
    let unchanged =
        |cause: &Cause| old.is_some_and(|old| super::ratchet::is_unchanged(cause, object, old, schema));
    causes.retain(|cause| !unchanged(cause));
    let broken = causes.iter().any(blocks_rules);
    if broken {
        if cel::has_rules(schema, 0) {
            causes.push(Cause {
                field: "<nil>".into(),
                reason: "FieldValueInvalid",
                message: "Invalid value: null: some validation rules were not checked because the object was invalid; correct \
                          the existing errors to complete validation"
                    .into(),
            });
        }
    } else {
        let mut broken_rules = Vec::new();
        cel::check(object, old, schema, &mut broken_rules);
        broken_rules.retain(|cause| !unchanged(cause));
        causes.extend(broken_rules);
    }
    causes
}

/// Checks a value that is a default against the schema that it is the default of.
pub fn value(value: &Value, schema: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(value, schema, "", 0, &mut causes);
    causes
}

/// Whether an error keeps the CEL rules from being looked at: they count on the shape of what they read.
fn blocks_rules(cause: &Cause) -> bool {
    matches!(
        cause.reason,
        "FieldValueNotSupported"
            | "FieldValueRequired"
            | "FieldValueTooLong"
            | "FieldValueTooMany"
            | "FieldValueTypeInvalid"
    )
}

/// Checks what the scale subresource reads: a replica count that is no number.
pub fn scale(object: &Value, path: &str, causes: &mut Vec<Cause>) {
    let value = crate::crd::at_path(object, path);
    if let Value::String(text) = value {
        causes.push(Cause::invalid(
            path,
            &json!(0),
            format!("{path} accessor error: {text} is of the type string, expected int64"),
        ));
    } else if value.as_i64().is_some_and(|n| n < 0) {
        causes.push(Cause::invalid(path, value, "should be a non-negative integer"));
    }
}

fn wrong_type(path: &str, wanted: &str, shown: &Value, causes: &mut Vec<Cause>) {
    let message = format!("Invalid value: {shown}: {path} in body must be of type {wanted}: {shown}");
    causes.push(Cause { field: path.into(), reason: "FieldValueTypeInvalid", message });
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn required(object: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if object.get(name).is_none() {
            let field = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            causes.push(Cause::required(field, ""));
        }
    }
}

fn walk(value: &Value, schema: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if depth > DEEPEST {
        return;
    }
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    let wanted = schema["type"].as_str().unwrap_or_default();
    let found = type_name(value);
    let fits = match wanted {
        "" => !int_or_string || matches!(found, "integer" | "string"),
        "number" => matches!(found, "number" | "integer"),
        "integer" => found == "integer" || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        wanted => wanted == found,
    };
    if !fits {
        let wanted = if wanted.is_empty() { "integer,string" } else { wanted };
        wrong_type(path, wanted, &json!(found), causes);
        if (wanted, found) == ("integer", "number") {
            let detail = format!("Checked value must be of type integer (default format) in {path}");
            causes.push(Cause::invalid("<nil>", &json!(""), detail));
        }
        return;
    }
    if let Value::Array(allowed) = &schema["enum"]
        && !allowed.contains(value)
    {
        let names: Vec<String> =
            allowed.iter().map(|a| a.as_str().map_or(a.to_string(), str::to_owned)).collect();
        causes.push(Cause::unsupported(path, value, &names));
    }
    combinations(value, schema, path, depth, causes);
    match value {
        Value::String(text) => string(text, schema, path, causes),
        Value::Number(_) => number(value, schema, path, causes),
        Value::Array(items) => {
            let limit = |key: &str| schema[key].as_u64();
            let count = items.len() as u64;
            if limit("maxItems").is_some_and(|m| count > m) {
                let most = limit("maxItems").unwrap_or(0);
                let message = format!("Too many: {count}: must have at most {most} items");
                causes.push(Cause { field: path.into(), reason: "FieldValueTooMany", message });
            }
            if let Some(least) = limit("minItems").filter(|m| count < *m) {
                let detail = format!("{path} in body should have at least {least} items");
                causes.push(Cause::invalid(path, &json!(count), detail));
            }
            for (index, item) in items.iter().enumerate() {
                walk(item, &schema["items"], &format!("{path}[{index}]"), depth + 1, causes);
            }
        }
        Value::Object(fields) => {
            if let Some(most) = schema["maxProperties"].as_u64().filter(|m| fields.len() as u64 > *m) {
                let message = format!("Too many: {}: must have at most {most} items", fields.len());
                causes.push(Cause { field: path.into(), reason: "FieldValueTooMany", message });
            }
            if let Some(least) = schema["minProperties"].as_u64().filter(|m| (fields.len() as u64) < *m) {
                let detail = format!("{path} in body should have at least {least} properties");
                causes.push(Cause::invalid(path, value, detail));
            }
            required(value, schema, path, causes);
            if schema["x-kubernetes-embedded-resource"] == true {
                for name in ["apiVersion", "kind"] {
                    if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                        causes.push(Cause::required(format!("{path}.{name}"), ""));
                    }
                }
            }
            for (name, item) in fields {
                let below = format!("{path}.{name}");
                match schema["properties"].get(name) {
                    Some(property) => walk(item, property, &below, depth + 1, causes),
                    None if schema["additionalProperties"].is_object() => {
                        walk(item, &schema["additionalProperties"], &below, depth + 1, causes);
                    }
                    None => {}
                }
            }
        }
        _ => {}
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combinations(value: &Value, schema: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    let complaints = |inner: &Value| {
        let mut found = Vec::new();
        walk(value, inner, path, depth + 1, &mut found);
        found
    };
    // As a real server does, these complain about no field in particular.
    let refuse = |detail: &str| Cause::invalid("<nil>", &json!(""), format!("{path:?} must {detail}"));
    if let Value::Array(any) = &schema["anyOf"] {
        let found: Vec<Vec<Cause>> = any.iter().map(complaints).collect();
        if !found.iter().any(Vec::is_empty) {
            causes.push(refuse("validate at least one schema (anyOf)"));
            causes.extend(found.into_iter().next().unwrap_or_default());
        }
    }
    if let Value::Array(one) = &schema["oneOf"] {
        let found: Vec<Vec<Cause>> = one.iter().map(complaints).collect();
        match found.iter().filter(|f| f.is_empty()).count() {
            0 => {
                causes.push(refuse("validate one and only one schema (oneOf). Found none valid"));
                causes.extend(found.into_iter().next().unwrap_or_default());
            }
            1 => {}
            n => {
                let detail =
                    format!("validate one and only one schema (oneOf). Found {n} valid alternatives");
                causes.push(refuse(&detail));
            }
        }
    }
    if schema["not"].is_object() && complaints(&schema["not"]).is_empty() {
        causes.push(refuse("not validate the schema (not)"));
    }
    for inner in schema["allOf"].as_array().into_iter().flatten() {
        walk(value, inner, path, depth + 1, causes);
    }
}

fn string(text: &str, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let shown = json!(text);
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|m| length > *m) {
        causes.push(Cause::too_long(path, format!("may not be more than {most} bytes")));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|m| length < *m) {
        let detail = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, &shown, detail));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Ok(regex) = regex::Regex::new(pattern)
        && !regex.is_match(text)
    {
        causes.push(Cause::invalid(path, &shown, format!("{path} in body should match '{pattern}'")));
    }
    let format = schema["format"].as_str().unwrap_or_default();
    let fits = has_format(text, format);
    if !fits {
        wrong_type(path, format, &shown, causes);
    }
}

/// Whether a text has a format; formats that are not known have no rule.
///
/// Rules: https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#jsonschemaprops-v1-apiextensions-k8s-io and
/// k8s.io/kube-openapi `pkg/validation/strfmt`.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => time::parse(text).is_some(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let most = if address.contains(':') { 128 } else { 32 };
            address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= most)
        }),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            matches!(parts.len(), 6 | 8 | 20)
                && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "duration" => is_duration(text),
        // Absolute, or a path from the root.
        "uri" => {
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
            (named || text.starts_with('/')) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        }
        "email" => text
            .rsplit_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains(' ')),
        "hostname" => {
            !text.is_empty()
                && text.len() <= 253
                && text.split('.').all(|l| super::meta::dns_label(&l.to_lowercase()).is_empty())
        }
        _ => true,
    }
}

/// A duration as Go writes it (`1h30m`), or a number with a word (`3 hours`).
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 7] = ["ns", "us", "µs", "ms", "s", "m", "h"];
    const WORDS: [&str; 20] = [
        "nano",
        "nanosecond",
        "nanoseconds",
        "micro",
        "microsecond",
        "microseconds",
        "milli",
        "millisecond",
        "milliseconds",
        "sec",
        "second",
        "seconds",
        "min",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
        "day",
        "week",
    ];
    let text = text.trim_start_matches(['+', '-']);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if number == 0 || number == rest.len() {
            return false;
        }
        let after = rest[number..].trim_start();
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = after[..end].trim();
        if !UNITS.contains(&unit) && !WORDS.contains(&unit) && !matches!(unit, "d" | "w" | "days" | "weeks") {
            return false;
        }
        rest = &after[end..];
        parts += 1;
    }
    parts > 0
}

fn number(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(n) = value.as_f64() else { return };
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if n < least || (exclusive && n == least) {
            let word = if exclusive { "greater than" } else { "greater than or equal to" };
            let detail = format!("{path} in body should be {word} {}", schema["minimum"]);
            causes.push(Cause::invalid(path, value, detail));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if n > most || (exclusive && n == most) {
            let word = if exclusive { "less than" } else { "less than or equal to" };
            let detail = format!("{path} in body should be {word} {}", schema["maximum"]);
            causes.push(Cause::invalid(path, value, detail));
        }
    }
    let factor = schema["multipleOf"].as_f64().filter(|f| *f != 0.0);
    if let Some(fraction) = factor.filter(|f| f.abs() < 1.0)
        && !value.is_f64()
    {
        // A real server divides whole numbers by whole ones.
        let whole = fraction.trunc();
        let detail = format!("factor MultipleOf declared for {path} must be positive: {whole}");
        causes.push(Cause::invalid(path, &json!(whole as i64), detail));
    } else if let Some(factor) = factor
        && (n / factor).fract() != 0.0
    {
        let detail = format!("{path} in body should be a multiple of {}", schema["multipleOf"]);
        causes.push(Cause::invalid(path, value, detail));
    }
}

/// Sets and keyed lists hold each element once.
fn lists(value: &Value, schema: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if depth > DEEPEST {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, item) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let inner = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                lists(item, inner, &below, depth + 1, causes);
            }
        }
        Value::Array(items) => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let mut seen: Vec<Value> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let at = format!("{path}[{index}]");
                let identity = match (schema["x-kubernetes-list-type"].as_str(), keys) {
                    (Some("set"), _) => Some(item.clone()),
                    (Some("map"), Some(keys)) => {
                        let pairs = keys.iter().filter_map(Value::as_str);
                        Some(Value::Object(
                            pairs.filter_map(|k| Some((k.to_owned(), item.get(k)?.clone()))).collect(),
                        ))
                    }
                    _ => None,
                };
                if let Some(identity) = identity {
                    if seen.contains(&identity) {
                        causes.push(Cause::duplicate(&at, &identity));
                    } else {
                        seen.push(identity);
                    }
                }
                lists(item, &schema["items"], &at, depth + 1, causes);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(object: Value, spec: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        check(&object, None, &schema).into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn alternatives() {
        let spec = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(messages(json!({"spec": {"a": "x"}}), spec.clone()).is_empty());
        assert_eq!(
            messages(json!({"spec": {}}), spec),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value"
            ]
        );
        let quantity =
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert!(messages(json!({"spec": 1}), quantity.clone()).is_empty());
        assert_eq!(messages(json!({"spec": true}), quantity).len(), 1);
        for (format, good, bad) in [
            ("duration", "1h30m", "soon"),
            ("uri", "https://a/b", "::no"),
            ("email", "a@b.c", "a"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/64"),
        ] {
            assert!(has_format(good, format) && !has_format(bad, format), "{format}");
        }
    }

    #[test]
    fn shapes_and_sizes() {
        let spec = json!({"type": "array", "maxItems": 1, "items": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"}});
        assert_eq!(
            messages(json!({"spec": ["ab", "A"]}), spec),
            [
                "spec: Too many: 2: must have at most 1 items",
                "spec[1]: Invalid value: \"A\": spec[1] in body should be at least 2 chars long",
                "spec[1]: Invalid value: \"A\": spec[1] in body should match '^[a-z]+$'"
            ]
        );
        assert_eq!(
            messages(json!({"spec": {}}), json!({"type": "string"})),
            ["spec: Invalid value: \"object\": spec in body must be of type string: \"object\""]
        );
    }
}
