//! Which Service a request of a host and path belongs to, by the rules of all Ingresses.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use super::table::Port;

/// The Service behind a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub namespace: String,
    pub service: String,
    pub port: Port,
}

#[derive(Clone, Debug)]
enum Host {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: exactly one further label matches.
    Wildcard(String),
    Any,
}

#[derive(Clone, Debug)]
struct Rule {
    host: Host,
    exact: bool,
    path: String,
    backend: Backend,
}

/// The rules of all Ingresses, the most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    default: Option<Backend>,
}

impl Rules {
    /// Compiles the rules. Of equal ones that of the older Ingress wins.
    pub fn new(ingresses: &[Arc<Ingress>]) -> Rules {
        let mut sorted: Vec<&Arc<Ingress>> = ingresses.iter().collect();
        sorted.sort_by_key(|ingress| ingress.metadata.creation_timestamp.clone());
        let mut all = Rules::default();
        for ingress in sorted {
            let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
            let Some(spec) = &ingress.spec else { continue };
            if let Some(backend) = &spec.default_backend
                && all.default.is_none()
            {
                all.default = self::backend(namespace, backend);
            }
            for rule in spec.rules.iter().flatten() {
                let host = match rule.host.as_deref().map(str::to_lowercase) {
                    None => Host::Any,
                    Some(host) if host.is_empty() || host == "*" => Host::Any,
                    Some(host) => match host.strip_prefix('*') {
                        Some(suffix) => Host::Wildcard(suffix.to_owned()),
                        None => Host::Exact(host),
                    },
                };
                for path in rule.http.iter().flat_map(|http| &http.paths) {
                    let Some(backend) = self::backend(namespace, &path.backend) else { continue };
                    let text = path.path.clone().filter(|path| !path.is_empty());
                    all.rules.push(Rule {
                        host: host.clone(),
                        exact: path.path_type == "Exact",
                        path: text.unwrap_or_else(|| "/".to_owned()),
                        backend,
                    });
                }
            }
        }
        all.rules.sort_by_key(|rule| {
            let host = match &rule.host {
                Host::Exact(_) => (0, Reverse(0)),
                Host::Wildcard(suffix) => (1, Reverse(suffix.len())),
                Host::Any => (2, Reverse(0)),
            };
            (host, Reverse(rule.path.trim_end_matches('/').len()), !rule.exact)
        });
        all
    }

    /// The backend of a request; the host comes without a port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Backend> {
        let host = host.to_lowercase();
        self.rules
            .iter()
            .find(|rule| matches_host(&rule.host, &host) && matches_path(rule, path))
            .map(|rule| &rule.backend)
            .or(self.default.as_ref())
    }
}

fn backend(namespace: &str, backend: &IngressBackend) -> Option<Backend> {
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref()?;
    let port = match (&port.number, &port.name) {
        (Some(number), _) if *number > 0 => Port::Number(*number),
        (_, Some(name)) => Port::Name(name.clone()),
        _ => return None,
    };
    Some(Backend { namespace: namespace.to_owned(), service: service.name.clone(), port })
}

fn matches_host(rule: &Host, host: &str) -> bool {
    match rule {
        Host::Any => true,
        Host::Exact(exact) => exact == host,
        Host::Wildcard(suffix) => {
            host.strip_suffix(suffix.as_str()).is_some_and(|label| !label.is_empty() && !label.contains('.'))
        }
    }
}

/// Prefixes match whole elements: `/a` matches `/a` and `/a/b`, not `/ab`.
fn matches_path(rule: &Rule, path: &str) -> bool {
    if rule.exact {
        return rule.path == path;
    }
    let prefix = rule.path.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rules(rules: Value) -> Rules {
        let ingress = json!({"metadata": {"name": "i", "namespace": "dev"}, "spec": {"rules": rules}});
        Rules::new(&[Arc::new(serde_json::from_value(ingress).unwrap())])
    }

    fn path(path: &str, kind: &str, service: &str) -> Value {
        json!({"path": path, "pathType": kind,
               "backend": {"service": {"name": service, "port": {"number": 80}}}})
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let rules = rules(json!([
            {"http": {"paths": [path("/", "Prefix", "frontend"), path("/api", "Prefix", "backend"),
                                path("/api/exact", "Exact", "exact"), path("/api/v2/", "ImplementationSpecific", "v2")]}},
            {"host": "a.example.com", "http": {"paths": [path("/", "Prefix", "a")]}},
            {"host": "*.example.com", "http": {"paths": [path("/", "Prefix", "wild")]}},
        ]));
        for (host, path, expected) in [
            ("shop", "/", "frontend"),
            ("shop", "/apix", "frontend"),
            ("shop", "/api", "backend"),
            ("shop", "/api/", "backend"),
            ("shop", "/api/products", "backend"),
            ("shop", "/api/exact", "exact"),
            ("shop", "/api/exact/more", "backend"),
            ("shop", "/api/v2", "v2"),
            ("shop", "/api/v2/x", "v2"),
            ("A.example.com", "/api", "a"),
            ("b.example.com", "/api", "wild"),
            ("b.c.example.com", "/api", "backend"),
            ("example.com", "/", "frontend"),
        ] {
            let found = rules.find(host, path).map(|backend| backend.service.as_str());
            assert_eq!(found, Some(expected), "{host} {path}");
        }
    }

    #[test]
    fn nothing_matches_without_a_rule() {
        let rules = rules(json!([{"host": "shop", "http": {"paths": [path("/a", "Prefix", "s")]}}]));
        assert_eq!(rules.find("shop", "/b"), None);
        assert_eq!(rules.find("other", "/a"), None);
    }
}
