//! Whom pods are: their service accounts, and the tokens that they find.
//!
//! Rules: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ and Kubernetes
//! `plugin/pkg/admission/serviceaccount`.

use crate::app::App;
use crate::status::{About, Refusal};
use serde_json::{Value, json};

/// Where containers find the token.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Mirrors of pods that a node runs by itself are nobody.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Gives a new pod its account, and what comes with that. The account has to be there.
pub fn set(app: &App, namespace: &str, pod: &mut Value) -> Result<(), Refusal> {
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return Ok(());
    }
    let wanted = pod["spec"]["serviceAccountName"].as_str().filter(|n| !n.is_empty()).unwrap_or("default");
    let wanted = wanted.to_owned();
    let found = app.store().get("serviceaccounts", &format!("{namespace}/{wanted}"));
    let Some(account) = found else {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!(
            "error looking up service account {namespace}/{wanted}: serviceaccount {wanted:?} not found"
        );
        return Err(Refusal::forbidden(About::new("", "pods", name), &why));
    };
    let Value::Object(spec) = &mut pod["spec"] else { return Ok(()) };
    for key in ["serviceAccountName", "serviceAccount"] {
        spec.insert(key.into(), wanted.clone().into());
    }
    let is_empty = |v: Option<&Value>| v.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if is_empty(spec.get("imagePullSecrets")) && !is_empty(account.value.get("imagePullSecrets")) {
        spec.insert("imagePullSecrets".into(), account.value["imagePullSecrets"].clone());
    }
    let choice = |v: Option<&Value>| v.and_then(Value::as_bool);
    let key = "automountServiceAccountToken";
    if choice(spec.get(key)).or(choice(account.value.get(key))).unwrap_or(true) {
        mount(app, pod);
    }
    Ok(())
}

/// Mounts a token, the certificate authority and the namespace into containers that have nothing there.
fn mount(app: &App, pod: &mut Value) {
    let name = format!("kube-api-access-{}", app.suffix());
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            let Value::Array(mounts) = &mut container["volumeMounts"] else { continue };
            if mounts.iter().all(|m| m["mountPath"] != PLACE) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": PLACE}));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    if !pod["spec"]["volumes"].is_array() {
        pod["spec"]["volumes"] = json!([]);
    }
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}
    ]);
    if let Value::Array(volumes) = &mut pod["spec"]["volumes"] {
        volumes.push(json!({"name": name, "projected": {"sources": sources, "defaultMode": 420}}));
    }
}
