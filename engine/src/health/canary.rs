//! A Deployment held at canary size.

use serde_json::Value;

use super::conditions::not_observed;
use super::workload::{deadline_exceeded, replicas, unseen};
use super::{Health, number};

/// Whether a Deployment that is held at `pods` new pods stands where it should: so many pods of the new
/// version are ready, and no pod of the old version has gone.
///
/// The number of new pods is bounded by the Deployment's own size: Kubernetes never makes more new pods
/// than `spec.replicas`. Readiness is counted, not availability: the hold itself keeps new pods from
/// becoming available. The status does not say which pods are ready, so all of them have to be, unless
/// old pods are unwell: then the pods that are ready and not available are the new ones, and a release
/// that mends a broken one is not held up by it.
pub fn canary_ready(deployment: &Value, pods: u32) -> Health {
    let early =
        not_observed(deployment).or_else(|| unseen(deployment)).or_else(|| deadline_exceeded(deployment));
    if let Some(health) = early {
        return health;
    }
    let size = replicas(deployment);
    let want = i64::from(pods).min(size);
    let status = |field: &str| number(&deployment["status"][field]);
    let (updated, ready) = (status("updatedReplicas"), status("readyReplicas"));
    if updated < want {
        return Health::progressing("CanaryStarting", format!("{updated} of {want} canary pods exist"));
    }
    // Where everything is new already there are no old pods to keep.
    let all = if updated >= size { size } else { size + want };
    let available = status("availableReplicas");
    let mends = available < size && (want..=updated).contains(&(ready - available));
    if ready < all && !mends {
        return Health::progressing(
            "CanaryNotReady",
            format!("{ready} of {all} pods are ready, {want} of them new"),
        );
    }
    Health::Ready
}
