//! Rules for CustomResourceDefinitions.
//!
//! Wording: k8s.io/apiextensions-apiserver `pkg/apis/apiextensions/validation` and `pkg/apiserver/schema`.

use super::{custom, meta};
use crate::expressions::compiled;
use crate::status::Cause;
use serde_json::{Value, json};

/// The deepest schema that is looked at.
const DEEPEST: usize = 60;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value[key].as_array().into_iter().flatten().enumerate()
}

/// All of them. `is_new` when it is created.
pub fn check(object: &Value, is_new: bool, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if is_new && text(&object["metadata"]["name"]) != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], detail));
    }
    group(object, causes);
    names(&spec["names"], causes);
    let scope = &spec["scope"];
    if is_empty(scope) {
        causes.push(Cause::required("spec.scope", ""));
    } else if *scope != "Cluster" && *scope != "Namespaced" {
        causes.push(Cause::unsupported("spec.scope", scope, &["Cluster", "Namespaced"].map(String::from)));
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        causes.push(Cause::invalid("spec.preserveUnknownFields", &json!(true), detail));
    }
    versions(object, causes);
    conversion(&spec["conversion"], causes);
}

fn group(object: &Value, causes: &mut Vec<Cause>) {
    let group = &object["spec"]["group"];
    let name = text(group);
    if name.is_empty() {
        causes.push(Cause::required("spec.group", ""));
        return;
    }
    causes.extend(meta::subdomain(name).into_iter().map(|m| Cause::invalid("spec.group", group, m)));
    if !name.contains('.') {
        causes.push(Cause::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|p| name == *p || name.ends_with(&format!(".{p}")));
    let approval = "api-approved.kubernetes.io";
    if protected && is_empty(&object["metadata"]["annotations"][approval]) {
        let detail = format!(
            "protected groups must have approval annotation {approval:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        causes.push(Cause::required(format!("metadata.annotations[{approval}]"), &detail));
    }
}

fn names(names: &Value, causes: &mut Vec<Cause>) {
    for key in ["plural", "singular", "kind", "listKind"] {
        let (at, value) = (format!("spec.names.{key}"), &names[key]);
        let name = text(value);
        if name.is_empty() {
            causes.push(Cause::required(at, ""));
            continue;
        }
        let is_kind = key.to_lowercase().ends_with("kind");
        let shown = if is_kind { name.to_lowercase() } else { name.to_owned() };
        let mixed = if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
        for complaint in meta::dns_1035_label(&shown) {
            causes.push(Cause::invalid(&at, value, format!("{mixed}{complaint}")));
        }
    }
    for key in ["shortNames", "categories"] {
        for (index, name) in each(names, key) {
            let at = format!("spec.names.{key}[{index}]");
            causes.extend(meta::dns_1035_label(text(name)).into_iter().map(|m| Cause::invalid(&at, name, m)));
        }
    }
    if !is_empty(&names["kind"]) && names["kind"] == names["listKind"] {
        let detail = "kind and listKind may not be the same";
        causes.push(Cause::invalid("spec.names.listKind", &names["listKind"], detail));
    }
}

/// What the versions have in common is looked at once, as fields of the definition.
fn shared(versions: &[Value], key: &str) -> bool {
    versions.iter().all(|v| v[key] == versions[0][key])
}

/// Versions as Go prints the internal type, where what they have in common is not in them.
fn shown(versions: &[Value]) -> Value {
    let inner =
        |version: &Value, key: &str| if shared(versions, key) { Value::Null } else { version[key].clone() };
    versions
        .iter()
        .map(|v| {
            json!({"Name": v["name"], "Served": v["served"], "Storage": v["storage"],
                "Deprecated": v["deprecated"] == true, "DeprecationWarning": v["deprecationWarning"],
                "Schema": inner(v, "schema"), "Subresources": inner(v, "subresources"),
                "AdditionalPrinterColumns": inner(v, "additionalPrinterColumns"),
                "SelectableFields": inner(v, "selectableFields")})
        })
        .collect()
}

fn versions(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored: Vec<&Value> = versions.iter().filter(|v| v["storage"] == true).collect();
    let mut seen: Vec<&Value> = Vec::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let (name, at) = (&version["name"], format!("spec.versions[{index}].name"));
        for complaint in meta::dns_1035_label(text(name)) {
            causes.push(Cause::invalid(&at, name, &complaint));
            if index == 0 {
                causes.push(Cause::invalid("spec.version", name, complaint));
            }
        }
        unique &= !seen.contains(&name);
        seen.push(name);
    }
    if !unique {
        causes.push(Cause::invalid("spec.versions", &shown(versions), "must contain unique version names"));
    }
    let list = &object["status"]["storedVersions"];
    if stored.len() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &shown(versions), detail));
    }
    let remembered = list.as_array().map_or(&[][..], Vec::as_slice);
    if remembered.is_empty() {
        causes.push(Cause::invalid(
            "status.storedVersions",
            &Value::Null,
            "must have at least one stored version",
        ));
    } else if let Some(missing) = stored.last().filter(|v| !remembered.contains(&v["name"])) {
        let detail = format!("must have the storage version {}", text(&missing["name"]));
        causes.push(Cause::invalid("status.storedVersions", list, detail));
    }
    for (index, version) in versions.iter().enumerate() {
        let place = |key: &str, top: &str| {
            if shared(versions, key) { top.to_owned() } else { format!("spec.versions[{index}].{key}") }
        };
        let looked_at = |key: &str| index == 0 || !shared(versions, key);
        let root = &version["schema"]["openAPIV3Schema"];
        if root.is_null() {
            causes.push(Cause::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        } else if looked_at("schema") {
            let at = format!("{}.openAPIV3Schema", place("schema", "spec.validation"));
            self::root(root, &at, causes);
        }
        if looked_at("subresources") {
            scale(&version["subresources"]["scale"], &place("subresources", "spec.subresources"), causes);
        }
        if looked_at("additionalPrinterColumns") {
            let at = place("additionalPrinterColumns", "spec.additionalPrinterColumns");
            columns(version, &at, causes);
        }
        if looked_at("selectableFields") {
            let at = place("selectableFields", "spec.selectableFields");
            for (f, field) in each(version, "selectableFields") {
                let path = text(&field["jsonPath"]);
                if !path.starts_with(['.', '[']) {
                    let found = path.split('.').next().unwrap_or_default();
                    let detail = format!("is an invalid path: expected [ or . but got: {found}");
                    causes.push(Cause::invalid(format!("{at}[{f}].jsonPath"), &field["jsonPath"], detail));
                }
            }
        }
    }
}

fn scale(scale: &Value, at: &str, causes: &mut Vec<Cause>) {
    if scale.is_null() {
        return;
    }
    for (key, below) in
        [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", "")]
    {
        let (path, at) = (&scale[key], format!("{at}.scale.{key}"));
        let name = text(path);
        if name.is_empty() {
            if !below.is_empty() {
                causes.push(Cause::required(at, ""));
            }
        } else if !name.starts_with('.') || name.contains('[') {
            causes.push(Cause::invalid(at, path, "must be a simple json path starting with ."));
        } else if below.is_empty() {
            if !name.starts_with(".spec.") && !name.starts_with(".status.") {
                let detail = "should be a json path under either .status or .spec";
                causes.push(Cause::invalid(at, path, detail));
            }
        } else if !name.starts_with(&format!("{below}.")) {
            causes.push(Cause::invalid(at, path, format!("should be a json path under {below}")));
        }
    }
}

fn columns(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (index, column) in each(version, "additionalPrinterColumns") {
        let at = format!("{at}[{index}]");
        if is_empty(&column["name"]) {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        let kind = &column["type"];
        if is_empty(kind) {
            causes.push(Cause::required(
                format!("{at}.type"),
                "must be one of boolean,date,integer,number,string",
            ));
        } else if !["boolean", "date", "integer", "number", "string"].iter().any(|k| kind == k) {
            let detail = "must be one of boolean,date,integer,number,string";
            causes.push(Cause::invalid(format!("{at}.type"), kind, detail));
        }
        if is_empty(&column["jsonPath"]) {
            causes.push(Cause::required(format!("{at}.JSONPath"), ""));
        }
    }
}

fn conversion(conversion: &Value, causes: &mut Vec<Cause>) {
    match conversion["strategy"].as_str() {
        Some("None") | None => {}
        Some("Webhook") => {
            let webhook = &conversion["webhook"];
            if is_empty(&webhook["clientConfig"]) {
                let detail = "required when strategy is set to Webhook";
                causes.push(Cause::required("spec.conversion.webhookClientConfig", detail));
            }
            if is_empty(&webhook["conversionReviewVersions"]) {
                causes.push(Cause::required("spec.conversion.conversionReviewVersions", ""));
            }
        }
        Some(_) => {
            let allowed = ["None", "Webhook"].map(String::from);
            causes.push(Cause::unsupported("spec.conversion.strategy", &conversion["strategy"], &allowed));
        }
    }
}

fn root(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    let before = causes.len();
    let kind = &schema["type"];
    if is_empty(kind) {
        causes.push(Cause::required(format!("{at}.type"), "must not be empty at the root"));
    } else if *kind != "object" {
        causes.push(Cause::invalid(format!("{at}.type"), kind, "must be object at the root"));
    }
    let metadata = &schema["properties"]["metadata"];
    let more = metadata["properties"]
        .as_object()
        .is_some_and(|p| p.keys().any(|k| k != "name" && k != "generateName"));
    if more {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        causes.push(Cause::forbidden(format!("{at}.properties[metadata]"), detail));
    }
    if causes.len() == before {
        walk(schema, at, 0, causes);
    }
}

fn walk(schema: &Value, at: &str, depth: usize, causes: &mut Vec<Cause>) {
    if depth > DEEPEST {
        return;
    }
    if depth > 0 {
        kind(schema, at, causes);
    }
    extensions(schema, at, causes);
    lists(schema, at, causes);
    rules(schema, at, causes);
    default(schema, at, causes);
    combinations(schema, at, causes);
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{at}.uniqueItems"), detail));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && regex::Regex::new(pattern).is_err()
    {
        let detail = format!(
            "must be a valid regular expression, but isn't: error parsing regexp: {}",
            if pattern.matches('[').count() > pattern.matches(']').count() {
                format!("missing closing ]: `{}`", &pattern[pattern.rfind('[').unwrap_or(0)..])
            } else {
                format!("`{pattern}`")
            }
        );
        causes.push(Cause::invalid(format!("{at}.pattern"), &schema["pattern"], detail));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{at}.properties[{name}]"), depth + 1, causes);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{at}.{key}"), depth + 1, causes);
        }
    }
}

fn kind(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    let kind = &schema["type"];
    let known = ["array", "boolean", "integer", "number", "object", "string"];
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if is_empty(kind) {
        if !free {
            let place = if at.ends_with("items") { "array items" } else { "object fields" };
            let detail = format!("must not be empty for specified {place}");
            causes.push(Cause::required(format!("{at}.type"), &detail));
        }
    } else if !known.iter().any(|k| kind == k) {
        causes.push(Cause::unsupported(format!("{at}.type"), kind, &known.map(String::from)));
    }
    if *kind == "array" && schema["items"].is_null() {
        causes.push(Cause::required(format!("{at}.items"), "must be specified"));
    }
    if !is_empty(&schema["properties"]) && schema["additionalProperties"].is_object() {
        let detail = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(format!("{at}.additionalProperties"), detail));
    }
}

fn extensions(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let at = format!("{at}.x-kubernetes-preserve-unknown-fields");
        causes.push(Cause::invalid(at, &json!(false), "must be true or undefined"));
    }
    let map = &schema["x-kubernetes-map-type"];
    if map.is_string() && *map != "atomic" && *map != "granular" {
        let allowed = ["atomic", "granular"].map(String::from);
        causes.push(Cause::unsupported(format!("{at}.x-kubernetes-map-type"), map, &allowed));
    }
}

fn lists(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    let kind = &schema["x-kubernetes-list-type"];
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let items = &schema["items"];
    match kind.as_str() {
        None | Some("atomic") => {}
        Some("set") => {
            let plain = items["type"] != "object" || items["x-kubernetes-map-type"] == "atomic";
            if !plain {
                let at = format!("{at}.items.x-kubernetes-map-type");
                let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                causes.push(Cause::invalid(at, &items["x-kubernetes-map-type"], detail));
            }
        }
        Some("map") => {
            let field = format!("{at}.x-kubernetes-list-map-keys");
            if keys.is_empty() {
                let detail = "must not be empty if x-kubernetes-list-type is map";
                causes.push(Cause::required(field, detail));
                return;
            }
            let named = |key: &Value| items["properties"].get(text(key)).is_some();
            if !keys.iter().all(named) {
                let detail = "entries must all be names of item properties";
                causes.push(Cause::invalid(field, &schema["x-kubernetes-list-map-keys"], detail));
            }
            for key in keys.iter().filter(|k| named(k)) {
                let needed = each(items, "required").any(|(_, r)| r == key);
                if !needed && items["properties"][text(key)].get("default").is_none() {
                    let at = format!("{at}.items.properties[{}].default", text(key));
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    causes.push(Cause::required(at, detail));
                }
            }
        }
        Some(_) => {
            let allowed = ["atomic", "set", "map"].map(String::from);
            causes.push(Cause::unsupported(format!("{at}.x-kubernetes-list-type"), kind, &allowed));
        }
    }
}

/// CEL rules have to be expressions. Their types are not looked at before they are used.
fn rules(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (index, rule) in each(schema, "x-kubernetes-validations") {
        let at = format!("{at}.x-kubernetes-validations[{index}].rule");
        let expression = text(&rule["rule"]);
        if expression.trim().is_empty() {
            causes.push(Cause::required(at, "rule is not specified"));
        } else if let Err(error) = compiled(expression) {
            let shown = json!({"Rule": expression, "Message": text(&rule["message"]),
                "MessageExpression": text(&rule["messageExpression"]), "Reason": rule["reason"],
                "FieldPath": text(&rule["fieldPath"]), "OptionalOldSelf": rule["optionalOldSelf"]});
            causes.push(Cause::invalid(at, &shown, format!("compilation failed: {error}")));
        }
    }
}

/// A default has to be a value of its own schema. As on a real server the complaints name no path.
fn default(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    if let Some(value) = schema.get("default").filter(|v| !v.is_null()) {
        let at = format!("{at}.default");
        for complaint in custom::value(value, schema) {
            causes.push(Cause { field: at.clone(), ..complaint });
        }
    }
}

/// Alternatives add rules and say nothing of structure.
fn combinations(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    for key in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in each(schema, key) {
            // What may be a number or a text is told apart in one way only.
            let int_or_string = schema["x-kubernetes-int-or-string"] == true;
            if !is_empty(&inner["type"]) && !int_or_string {
                let at = format!("{at}.{key}[{index}].type");
                causes.push(Cause::forbidden(at, "must be empty to be structural"));
            }
        }
    }
    if !is_empty(&schema["not"]["type"]) {
        causes.push(Cause::forbidden(format!("{at}.not.type"), "must be empty to be structural"));
    }
}
