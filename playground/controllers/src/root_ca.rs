//! The ConfigMap by which the pods of a namespace trust the API server.
//!
//! Rules: Kubernetes' `pkg/controller/certificates/rootcacertpublisher`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use crate::Error;
use crate::cluster::Cluster;
use crate::meta;
use crate::queue::Outcome;

/// Its name in every namespace.
pub(crate) const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";

/// Brings the ConfigMap of a namespace about, and back when somebody changed it.
pub(crate) async fn reconcile(cluster: &Cluster, namespace: &str) -> Result<Outcome, Error> {
    let Some(authority) = cluster.settings.root_ca.as_deref() else { return Ok(Outcome::Settled) };
    if cluster.namespaces.get("", namespace).is_none_or(|namespace| meta::is_deleting(namespace.as_ref())) {
        return Ok(Outcome::Settled);
    }
    let wanted = Some(BTreeMap::from([(KEY.to_owned(), authority.to_owned())]));
    let written = match cluster.config_maps.store.get(namespace, NAME) {
        Some(present) if present.data == wanted => return Ok(Outcome::Settled),
        Some(present) => {
            let mut next = present.as_ref().clone();
            next.data = wanted;
            cluster.config_maps.replace(&next).await
        }
        None => {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: wanted, ..ConfigMap::default() };
            cluster.config_maps.create(namespace, &map).await
        }
    };
    match written {
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
