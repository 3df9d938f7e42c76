//! The table of everything the shop answers: one place for metric labels, `Allow` headers and tests.

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pages and their files.
    Page,
    /// The API, the only kind that the fault switch touches.
    Api,
    /// Probes and metrics: answered for machines and left out of the traffic metrics, so that an error
    /// rate speaks of customers and an idle shop shows no traffic.
    Probe,
}

/// A path template and what can be done there.
#[derive(Debug)]
pub struct Endpoint {
    /// Path with `{name}` in place of variable segments; the `route` label of metrics.
    pub template: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Methods with the status of their usual success.
    pub methods: &'static [(&'static str, u16)],
}

/// Every endpoint. Where two templates match a path, the first one answers.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { template: "/", kind: Kind::Page, methods: &[("GET", 200)] },
    Endpoint { template: "/orders/{number}", kind: Kind::Page, methods: &[("GET", 200)] },
    Endpoint { template: "/dashboard", kind: Kind::Page, methods: &[("GET", 200)] },
    Endpoint { template: "/assets/{name}", kind: Kind::Page, methods: &[("GET", 200)] },
    Endpoint { template: "/api/openapi.json", kind: Kind::Api, methods: &[("GET", 200)] },
    Endpoint { template: "/api/products", kind: Kind::Api, methods: &[("GET", 200), ("POST", 201)] },
    Endpoint {
        template: "/api/products/{id}",
        kind: Kind::Api,
        methods: &[("GET", 200), ("PUT", 200), ("DELETE", 204)],
    },
    Endpoint { template: "/api/categories", kind: Kind::Api, methods: &[("GET", 200)] },
    Endpoint { template: "/api/cart", kind: Kind::Api, methods: &[("GET", 200), ("DELETE", 204)] },
    Endpoint { template: "/api/cart/items/{id}", kind: Kind::Api, methods: &[("PUT", 200), ("DELETE", 200)] },
    Endpoint { template: "/api/cart/checkout", kind: Kind::Api, methods: &[("POST", 201)] },
    Endpoint { template: "/api/orders", kind: Kind::Api, methods: &[("GET", 200), ("POST", 201)] },
    Endpoint { template: "/api/orders/{number}", kind: Kind::Api, methods: &[("GET", 200), ("PATCH", 200)] },
    Endpoint { template: "/api/admin/orders", kind: Kind::Api, methods: &[("GET", 200)] },
    Endpoint { template: "/api/admin/audit", kind: Kind::Api, methods: &[("GET", 200)] },
    Endpoint { template: "/api/admin/summary", kind: Kind::Api, methods: &[("GET", 200)] },
    Endpoint { template: "/health", kind: Kind::Probe, methods: &[("GET", 200)] },
    Endpoint { template: "/ready", kind: Kind::Probe, methods: &[("GET", 200)] },
    Endpoint { template: "/metrics", kind: Kind::Probe, methods: &[("GET", 200)] },
];

impl Endpoint {
    /// The endpoint that answers `path`; one trailing slash is overlooked.
    pub fn find(path: &str) -> Option<&'static Self> {
        let path = match path.strip_suffix('/') {
            Some(rest) if !rest.is_empty() && !rest.ends_with('/') => rest,
            _ => path,
        };
        ENDPOINTS.iter().find(|endpoint| endpoint.matches(path))
    }

    fn matches(&self, path: &str) -> bool {
        let mut wanted = self.template.split('/');
        let mut given = path.split('/');
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    }

    /// Value of an `Allow` header. HEAD is answered wherever GET is.
    pub fn allow(&self) -> String {
        let mut methods: Vec<&str> = self.methods.iter().map(|(method, _)| *method).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_template() {
        for (path, template) in [
            ("/", Some("/")),
            ("/api/products", Some("/api/products")),
            ("/api/products/", Some("/api/products")),
            ("/api/products/17", Some("/api/products/{id}")),
            ("/api/products/17/x", None),
            ("/api/products//", None),
            ("//", None),
            ("", None),
            ("/assets/shop.css", Some("/assets/{name}")),
            ("/api/cart/checkout", Some("/api/cart/checkout")),
            ("/api/cart/items/3", Some("/api/cart/items/{id}")),
            ("/healthz", None),
        ] {
            assert_eq!(Endpoint::find(path).map(|e| e.template), template, "{path}");
        }
    }
}
