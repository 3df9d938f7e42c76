//! The ServiceAccount `default` that every namespace has.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::ObjectMeta;

use crate::Error;
use crate::cluster::Cluster;
use crate::error::Attempt;
use crate::meta;
use crate::queue::Outcome;
use crate::writer::post;

/// Creates the account of a namespace that lives.
pub(crate) async fn reconcile(cluster: &Cluster, namespace: &str) -> Result<Outcome, Error> {
    if cluster.namespaces.get("", namespace).is_none_or(|namespace| meta::is_deleting(namespace.as_ref())) {
        return Ok(Outcome::Settled);
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    let present = accounts.get_metadata_opt("default").await;
    if present.attempt(|| format!("look for the account of namespace {namespace}"))?.is_some() {
        return Ok(Outcome::Settled);
    }
    let created = accounts.create(&post(), &account).await;
    match created.attempt(|| format!("create the account of namespace {namespace}")) {
        Err(error)
            if !error.is_already_exists()
                && !error.is_not_found()
                && !crate::replicaset::is_namespace_terminating(&error) =>
        {
            Err(error)
        }
        _ => Ok(Outcome::Settled),
    }
}
