//! The objects that a cluster has from the start.

use crate::Config;
use crate::app::App;
use crate::{decode, defaults, strategy};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Creates namespaces, roles and the API's own service.
pub fn run(app: &App) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(app, "", "v1", "namespaces", "", json!({"metadata": {"name": name}}));
    }
    let rbac = "rbac.authorization.k8s.io";
    for (name, rules) in roles() {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        let annotations = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
        let role =
            json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}, "rules": rules});
        create(app, rbac, "v1", "clusterroles", "", role);
    }
    let reference = |name: &str| json!({"apiGroup": rbac, "kind": "ClusterRole", "name": name});
    let group = |name: &str| json!([{"apiGroup": rbac, "kind": "Group", "name": name}]);
    for (name, role, subject) in [
        ("cluster-admin", "cluster-admin", "system:masters"),
        ("system:discovery", "system:discovery", "system:authenticated"),
        ("system:basic-user", "system:basic-user", "system:authenticated"),
        ("system:public-info-viewer", "system:public-info-viewer", "system:unauthenticated"),
        (
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            "system:serviceaccounts",
        ),
    ] {
        let mut subjects = group(subject);
        if name == "system:public-info-viewer"
            && let (Value::Array(all), Value::Array(more)) = (&mut subjects, group("system:authenticated"))
        {
            all.extend(more);
        }
        let binding = json!({"metadata": {"name": name}, "roleRef": reference(role), "subjects": subjects});
        create(app, rbac, "v1", "clusterrolebindings", "", binding);
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
    {
        let class = json!({"metadata": {"name": name}, "value": value});
        create(app, "scheduling.k8s.io", "v1", "priorityclasses", "", class);
    }
}

/// The Service `default/kubernetes` and its endpoint, which is this server. A restarted one may have another address.
///
/// Rules: Kubernetes `pkg/controlplane/controller/kubernetesservice/controller.go`.
pub fn own_service(app: &App) {
    let address = app.config.address;
    let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let first = service_address(&app.config).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {"clusterIP": first,
        "type": "ClusterIP", "ports": [{"name": "https", "port": 443, "targetPort": address.port()}]}});
    if app.store().get("services", KUBERNETES).is_none() {
        create(app, "", "v1", "services", "default", service);
    }
    let port = json!([{"name": "https", "port": address.port(), "protocol": "TCP"}]);
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let subsets = json!([{"addresses": [{"ip": ip.to_string()}], "ports": port}]);
    let endpoints = json!({"metadata": {"name": "kubernetes", "labels": labels}, "subsets": subsets});
    replace(app, "", "endpoints", endpoints);
    let slice = json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "ports": port,
        "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}]});
    replace(app, "discovery.k8s.io", "endpointslices", slice);
}

/// The address of the API's own Service: the first of the range.
pub fn service_address(config: &Config) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(config.service_range.0).wrapping_add(1))
}

/// Key of the API's own Service and what belongs to it.
const KUBERNETES: &str = "default/kubernetes";

/// Creates what belongs to the API's Service anew when it does not say `object` already.
fn replace(app: &App, group: &str, plural: &str, object: Value) {
    let Some(resource) = app.catalogue().get(group, "v1", plural) else { return };
    // On its own line, so that the store is not held while it is written.
    let found = app.store().get(&resource.table(), KUBERNETES);
    if let Some(old) = found {
        let same = |key: &str| object.get(key).is_none_or(|wanted| old.value[key] == *wanted);
        if ["subsets", "ports", "endpoints", "addressType"].into_iter().all(same) {
            return;
        }
        // Nobody else is served yet, so nothing can have come in between.
        let _ = app.store_mut().delete(&resource.table(), KUBERNETES, old.revision);
    }
    create(app, group, "v1", plural, "default", object);
}

fn create(app: &App, group: &str, version: &str, plural: &str, namespace: &str, mut object: Value) {
    let Some(resource) = app.catalogue().get(group, version, plural) else { return };
    object["apiVersion"] = resource.group_version().into();
    object["kind"] = resource.kind.clone().into();
    let made = (|| {
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        let mut object = decode::canonical(object, &resource.ty).map_err(|e| e.to_string())?;
        defaults::apply(&mut object, &resource.ty);
        strategy::before_create(app, &resource, &mut object).map_err(|e| e.to_string())?;
        let object = decode::canonical(object, &resource.ty).map_err(|e| e.to_string())?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        app.store_mut().create(&resource.table(), &key, object).map_err(|e| e.to_string())
    })();
    if let Err(error) = made {
        tracing::error!(%error, plural, "a bootstrap object could not be created");
    }
}

/// Verbs that read.
const READ: [&str; 3] = ["get", "list", "watch"];
/// Verbs that write.
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// The default cluster roles.
///
/// Rules: Kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`, without the API groups that this server
/// does not have.
fn roles() -> Vec<(&'static str, Value)> {
    let core = json!([
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
        "services/status"
    ]);
    let observe = json!([
        "bindings",
        "events",
        "limitranges",
        "namespaces/status",
        "pods/log",
        "pods/status",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status"
    ]);
    let apps = json!([
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status"
    ]);
    let rule = |groups: &str, resources: Value, verbs: &[&str]| json!({"apiGroups": [groups], "resources": resources, "verbs": verbs});
    let others = |verbs: &[&str]| {
        vec![
            rule("apps", apps.clone(), verbs),
            rule(
                "autoscaling",
                json!(["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
                verbs,
            ),
            rule("batch", json!(["cronjobs", "cronjobs/status", "jobs", "jobs/status"]), verbs),
            rule("policy", json!(["poddisruptionbudgets", "poddisruptionbudgets/status"]), verbs),
            rule("networking.k8s.io", json!(["ingresses", "ingresses/status", "networkpolicies"]), verbs),
        ]
    };
    let mut view = vec![
        rule("", core.clone(), &READ),
        rule("", observe, &READ),
        rule("", json!(["namespaces"]), &READ),
        rule("discovery.k8s.io", json!(["endpointslices"]), &READ),
    ];
    view.extend(others(&READ));
    let mut edit = view.clone();
    edit.extend([
        rule(
            "",
            json!([
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "secrets",
                "services/proxy"
            ]),
            &READ,
        ),
        rule("", json!(["serviceaccounts"]), &["impersonate"]),
        rule("", json!(["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]), &WRITE),
        rule("", json!(["pods/eviction", "serviceaccounts/token"]), &["create"]),
        rule("", core, &WRITE),
        rule("", json!(["events", "secrets"]), &WRITE),
        rule("coordination.k8s.io", json!(["leases"]), &[&READ[..], &WRITE[..]].concat()),
    ]);
    edit.extend(others(&WRITE));
    let mut admin = edit.clone();
    admin.extend([
        rule(
            "rbac.authorization.k8s.io",
            json!(["rolebindings", "roles"]),
            &[&READ[..], &WRITE[..]].concat(),
        ),
        rule("authorization.k8s.io", json!(["localsubjectaccessreviews"]), &["create"]),
    ]);
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let paths = |urls: Value| json!([{"nonResourceURLs": urls, "verbs": ["get"]}]);
    vec![
        ("cluster-admin", all),
        ("admin", admin.into()),
        ("edit", edit.into()),
        ("view", view.into()),
        (
            "system:discovery",
            paths(json!([
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/"
            ])),
        ),
        (
            "system:service-account-issuer-discovery",
            paths(json!([
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/"
            ])),
        ),
        (
            "system:public-info-viewer",
            paths(json!(["/healthz", "/livez", "/readyz", "/version", "/version/"])),
        ),
        (
            "system:basic-user",
            json!([
                rule(
                    "authorization.k8s.io",
                    json!(["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                    &["create"]
                ),
                rule("authentication.k8s.io", json!(["selfsubjectreviews"]), &["create"])
            ]),
        ),
    ]
}
