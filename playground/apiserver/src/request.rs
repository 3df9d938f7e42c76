//! What a request asks for: path and query of the Kubernetes API.

use crate::schema::catalogue::{Catalogue, Resource};
use crate::status::Refusal;
use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A request with its body read.
#[derive(Debug)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Path, percent-decoded per segment.
    pub path: Vec<String>,
    /// Query parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Where the connection becomes available when its protocol changes.
    pub upgrade: Mutex<Option<OnUpgrade>>,
    /// An earlier revision that a list is to show, by a fault on demand.
    pub stale: Option<u64>,
}

impl Request {
    /// Takes the connection for another protocol; none where that is not possible, or done.
    pub fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The media type of the body without parameters.
    pub fn content_type(&self) -> &str {
        self.header("content-type").split(';').next().unwrap_or_default().trim()
    }
}

/// Query parameters; the first of several equal ones counts.
#[derive(Debug, Default, Clone)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &str) -> Query {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.entry(percent_decode(key, true)).or_default().push(percent_decode(value, true));
        }
        Query(out)
    }

    /// A parameter; empty when it is not there.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|v| v.first()).map_or("", String::as_str)
    }

    /// All values of a parameter.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a parameter is there and not `false` or `0`.
    pub fn is_true(&self, key: &str) -> bool {
        self.0.contains_key(key) && !matches!(self.get(key), "false" | "0")
    }

    /// A number; `None` when absent or none.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.get(key).parse().ok()
    }
}

/// Decodes `%41` and, in queries, `+`.
pub fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                i += 2;
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(*byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The resource, object and subresource that a path names.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Namespace; empty for none or all.
    pub namespace: String,
    /// Object name; empty for the collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}

impl Target {
    /// The key of the object in its table.
    pub fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// Reads a path below `/api/v1` or `/apis/group/version`.
    pub fn find(catalogue: &Catalogue, path: &[String]) -> Result<Target, Refusal> {
        let (group, version, rest) = match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["api", version, ..] => ("", version, &path[2..]),
            ["apis", group, version, ..] => (group, version, &path[3..]),
            _ => return Err(Refusal::no_path()),
        };
        if !catalogue.serves(group, version) || rest.is_empty() {
            return Err(Refusal::no_path());
        }
        let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
        let get = |plural: &str| catalogue.get(group, version, plural).ok_or_else(Refusal::no_resource);
        let make = |resource, namespace: &str, tail: &[&str]| Target {
            resource,
            namespace: namespace.into(),
            name: tail.first().copied().unwrap_or_default().into(),
            subresource: tail.get(1).copied().unwrap_or_default().into(),
        };
        let target = match parts[..] {
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                make(get("namespaces")?, "", &[name, sub])
            }
            ["namespaces", namespace, plural, ref tail @ ..] => {
                let resource = get(plural)?;
                if !resource.namespaced {
                    return Err(Refusal::no_resource());
                }
                make(resource, namespace, tail)
            }
            [plural, ref tail @ ..] => {
                let resource = get(plural)?;
                if resource.namespaced && !tail.is_empty() {
                    return Err(Refusal::no_resource());
                }
                make(resource, "", tail)
            }
            [] => return Err(Refusal::no_path()),
        };
        if !target.subresource.is_empty() && !target.resource.has(&target.subresource) {
            return Err(Refusal::no_resource());
        }
        Ok(target)
    }
}

/// The verb that authorisation and discovery know.
pub fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let one = !target.name.is_empty();
    match (method.as_str(), one) {
        ("GET" | "HEAD", _) if query.is_true("watch") => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> Result<Target, Refusal> {
        let path: Vec<String> = path.trim_matches('/').split('/').map(String::from).collect();
        Target::find(&Catalogue::built_in(), &path)
    }

    #[test]
    fn paths_name_objects() {
        let pod = find("/api/v1/namespaces/n/pods/p/log").unwrap();
        assert_eq!((pod.key().as_str(), pod.subresource.as_str()), ("n/p", "log"));
        let namespace = find("/api/v1/namespaces/n/finalize").unwrap();
        assert_eq!((namespace.name.as_str(), namespace.subresource.as_str()), ("n", "finalize"));
        assert_eq!(find("/apis/apps/v1/deployments").unwrap().resource.kind, "Deployment");
        assert_eq!(find("/api/v1/namespaces/n/widgets").unwrap_err().reason, "NotFound");
        assert!(find("/apis/no.such/v1/x").unwrap_err().plain.is_some());
        assert!(find("/api/v1/namespaces/n/nodes").is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=i+in+(1%2C2)&watch&limit=3");
        assert_eq!(query.get("labelSelector"), "i in (1,2)");
        assert!(query.is_true("watch"));
        assert_eq!(query.number("limit"), Some(3));
    }
}
