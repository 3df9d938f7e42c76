//! Discovery documents, legacy and aggregated, and the version.

use crate::schema::catalogue::{Catalogue, Resource, group_version};
use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// `/version`: the release whose behaviour is reproduced.
pub fn version() -> Value {
    json!({"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go1.26.6", "compiler": "gc", "platform": "linux/amd64"})
}

/// `/api`.
pub fn api_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn group(name: &str, versions: &[String]) -> Map<String, Value> {
    let version = |v: &String| json!({"groupVersion": group_version(name, v), "version": v});
    let mut out = Map::new();
    out.insert("name".into(), name.into());
    out.insert("versions".into(), versions.iter().map(version).collect());
    out.insert("preferredVersion".into(), versions.first().map(version).unwrap_or_default());
    out
}

/// `/apis`.
pub fn groups(catalogue: &Catalogue) -> Value {
    let named = catalogue.groups().into_iter().filter(|(name, _)| !name.is_empty());
    let groups: Vec<Value> = named.map(|(name, versions)| Value::Object(group(&name, &versions))).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`; `None` when nothing is served in it.
pub fn one_group(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let (_, versions) = catalogue.groups().into_iter().find(|(g, _)| g == name)?;
    let mut out = Map::new();
    out.insert("kind".into(), "APIGroup".into());
    out.insert("apiVersion".into(), "v1".into());
    out.extend(group(name, &versions));
    Some(Value::Object(out))
}

/// `/api/v1` and `/apis/{group}/{version}`; `None` when nothing is served in it.
pub fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    let served = catalogue.all().iter().filter(|r| r.group == group && r.version == version);
    for resource in served {
        list.push(entry(resource));
        for sub in &resource.subresources {
            let mut out = Map::new();
            out.insert("name".into(), format!("{}/{}", resource.plural, sub.name).into());
            out.insert("singularName".into(), "".into());
            out.insert("namespaced".into(), resource.namespaced.into());
            if !sub.group.is_empty() && sub.group != resource.group {
                out.insert("group".into(), sub.group.clone().into());
                out.insert("version".into(), sub.version.clone().into());
            }
            out.insert("kind".into(), sub.kind.clone().into());
            out.insert("verbs".into(), sub.verbs.clone().into());
            list.push(Value::Object(out));
        }
    }
    if list.is_empty() {
        return None;
    }
    let mut out =
        json!({"kind": "APIResourceList", "groupVersion": group_version(group, version), "resources": list});
    if !group.is_empty() {
        out["apiVersion"] = "v1".into();
    }
    Some(out)
}

fn entry(resource: &Resource) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), resource.plural.clone().into());
    out.insert("singularName".into(), resource.singular.clone().into());
    out.insert("namespaced".into(), resource.namespaced.into());
    out.insert("kind".into(), resource.kind.clone().into());
    out.insert("verbs".into(), resource.verbs.clone().into());
    if !resource.short_names.is_empty() {
        out.insert("shortNames".into(), resource.short_names.clone().into());
    }
    if !resource.categories.is_empty() {
        out.insert("categories".into(), resource.categories.clone().into());
    }
    if resource.verbs.iter().any(|v| v == "list") && resource.plural != "componentstatuses" {
        let text = format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind);
        let digest = Sha256::digest(text.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(&digest[..8]);
        out.insert("storageVersionHash".into(), hash.into());
    }
    Value::Object(out)
}

/// Aggregated discovery (`apidiscovery.k8s.io/v2`) of `/api` or of `/apis`.
pub fn aggregated(catalogue: &Catalogue, core: bool) -> Value {
    let mut items = Vec::new();
    for (name, versions) in catalogue.groups().into_iter().filter(|(name, _)| name.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|version| {
                let served = catalogue.all().iter().filter(|r| r.group == name && r.version == *version);
                let resources: Vec<Value> = served.map(aggregated_entry).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_entry(resource: &Arc<Resource>) -> Value {
    let custom = resource.custom.is_some();
    let own = |kind: &str, group: &str, version: &str| {
        let (group, version) =
            if custom { (resource.group.as_str(), resource.version.as_str()) } else { (group, version) };
        json!({"group": group, "version": version, "kind": kind})
    };
    let mut out = json!({"resource": resource.plural, "responseKind": own(&resource.kind, "", ""),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs});
    if !resource.short_names.is_empty() {
        out["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        out["categories"] = resource.categories.clone().into();
    }
    if !resource.subresources.is_empty() {
        let sub = |s: &crate::schema::catalogue::Subresource| {
            json!({"subresource": s.name, "verbs": s.verbs,
                "responseKind": {"group": s.group, "version": s.version, "kind": s.kind}})
        };
        out["subresources"] = resource.subresources.iter().map(sub).collect();
    }
    out
}
