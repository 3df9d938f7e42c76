//! Tells the cluster that the node is there: a Lease that is renewed, and now and then the whole status. A node
//! that stays silent for 40 s counts as lost, and its pods with it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::Config;
use crate::node::Capacity;
use crate::register;

/// The namespace of nodes' Leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long a renewal holds: the kubelet's `nodeLeaseDurationSeconds`.
const DURATION: Duration = Duration::from_secs(40);
/// The kubelet renews four times in that.
const RENEWAL: Duration = Duration::from_secs(10);
/// How often a status that has not changed is written again: the kubelet's `nodeStatusReportFrequency`.
const REPORT: Duration = Duration::from_secs(300);

/// Renews the Lease until it is dropped. A server that cannot be reached is tried again at the next renewal.
pub(crate) async fn keep(client: Client, config: Config, capacity: Capacity) {
    let since = Timestamp::now();
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let mut ticks = tokio::time::interval(RENEWAL);
    let mut reported = Instant::now();
    loop {
        ticks.tick().await;
        let lease = lease(&config.name, Timestamp::now());
        let params = PatchParams::apply("kubelet").force();
        if let Err(error) = api.patch(&config.name, &params, &Patch::Apply(&lease)).await {
            tracing::warn!(%error, node = config.name, "the node's lease could not be renewed");
        }
        if reported.elapsed() >= REPORT {
            match register::report(&client, &config, &capacity, since).await {
                Ok(()) => reported = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, node = config.name, "the node's status could not be written");
                }
            }
        }
    }
}

fn lease(node: &str, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node, "namespace": NAMESPACE},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": DURATION.as_secs(),
            "renewTime": format!("{now:.6}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_one_that_the_api_server_reads() {
        let lease = lease("playground", Timestamp::UNIX_EPOCH);
        assert_eq!(lease["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
        let read: Lease = serde_json::from_value(lease).unwrap();
        assert_eq!(read.spec.unwrap().holder_identity.as_deref(), Some("playground"));
    }
}
