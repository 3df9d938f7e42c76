//! The Deployment controller: one ReplicaSet per template, moved between by a rolling update.

pub(crate) mod math;
mod plan;
mod revision;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub(crate) use math::share;
use plan::{Write, plan, same_template};

use crate::Error;
use crate::cluster::Cluster;
use crate::meta::{self, Claim, Key};
use crate::queue::Outcome;

/// Brings one Deployment a step further.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(deployment) = cluster.deployments.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let Some(spec) = &deployment.spec else { return Ok(Outcome::Settled) };
    let selector = meta::selector_of(deployment.as_ref(), &spec.selector)?;
    let mut sets = Vec::new();
    for set in cluster.replica_sets.store.in_namespace(&key.namespace) {
        match meta::claim(deployment.as_ref(), selector.as_ref(), &set.metadata) {
            Claim::Own => sets.push(set.as_ref().clone()),
            Claim::Adopt => {
                let patch = meta::adoption(deployment.as_ref(), &set.metadata);
                sets.push(cluster.replica_sets.merge(&set, &patch).await?);
            }
            Claim::Release => {
                let patch = meta::release(deployment.as_ref(), &set.metadata);
                cluster.replica_sets.merge(&set, &patch).await?;
            }
            Claim::Foreign => {}
        }
    }
    let pods = cluster.pods.store.in_namespace(&key.namespace);
    let plan = plan(&deployment, sets, &pods, Timestamp::now());
    let mut next = deployment.as_ref().clone();
    for write in plan.writes {
        match write {
            Write::Create(set) => {
                if !create(cluster, &next, &set).await? {
                    return Ok(Outcome::Settled);
                }
            }
            Write::Update(set) => {
                cluster.replica_sets.replace(&set).await?;
            }
            Write::Delete(set) => cluster.replica_sets.delete(&set).await?,
            Write::Revision(number) => {
                let patch = serde_json::json!({"metadata": {"annotations": {revision::REVISION: number}}});
                next = cluster.deployments.merge_status(&next, &patch).await?;
            }
        }
    }
    for message in plan.events {
        cluster.events.normal(deployment.as_ref(), "ScalingReplicaSet", message);
    }
    if Some(&plan.status) != deployment.status.as_ref() {
        next.status = Some(plan.status);
        cluster.deployments.replace_status(&next).await?;
    }
    Ok(Outcome::Settled.or_after(plan.again))
}

/// Creates a ReplicaSet; false if its name is taken by another one, whereupon the next hash is tried.
async fn create(cluster: &Cluster, deployment: &Deployment, set: &ReplicaSet) -> Result<bool, Error> {
    let namespace = meta::namespace(set);
    let error = match cluster.replica_sets.create(namespace, set).await {
        Ok(_) => return Ok(true),
        Err(error) if error.is_already_exists() => error,
        Err(error) => return Err(error),
    };
    let present = cluster.replica_sets.api(namespace).get(meta::name(set)).await;
    let Ok(present) = present else { return Err(error) };
    let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone());
    let same = match (template(&present), template(set)) {
        (Some(a), Some(b)) => same_template(&a, &b),
        _ => false,
    };
    if meta::is_controlled_by(&present.metadata, deployment) && same {
        // Created before by a request whose answer was lost.
        cluster.replica_sets.store.assume(present);
        return Ok(true);
    }
    let mut next = deployment.clone();
    let status = next.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
    cluster.deployments.replace_status(&next).await?;
    Ok(false)
}

/// Whether the Deployment's old pods must be gone before new ones come.
pub(crate) fn is_recreate(deployment: &Deployment) -> bool {
    math::Strategy::of(deployment) == math::Strategy::Recreate
}
