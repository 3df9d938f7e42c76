//! Drift: a field is edited and an object deleted behind the agent's back.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{Error, Stage, refused, unexpected};
use crate::shop;
use crate::traffic::Traffic;
use crate::watch::{self, Check};

const DEADLINE: Duration = Duration::from_secs(15);
/// Good answers in a row that say that all is well: about half a second of traffic.
const ENOUGH: u64 = 40;

/// Returns the longest time that a drift lasted.
pub(super) async fn run(stage: &Stage<'_>, traffic: &Traffic) -> Result<Duration, Error> {
    let before = traffic.tally();
    let field = edited_field(stage).await?;
    let object = deleted_object(stage).await?;
    // Without its Service the shop is out of reach for a moment: the customers say when it is over.
    if !traffic.flows(ENOUGH, DEADLINE).await {
        let expected = format!("{ENOUGH} good answers in a row after the Service is back");
        return Err(unexpected(expected, traffic.tally().since(&before).to_string()));
    }
    stage.printer.note(format!("traffic meanwhile: {}", traffic.tally().since(&before)));
    Ok(field.max(object))
}

/// Somebody scales the shop up by hand.
async fn edited_field(stage: &Stage<'_>) -> Result<Duration, Error> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), shop::NAMESPACE);
    let replicas =
        |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let before = deployments.get(shop::DEPLOYMENT).await.map_err(refused("a read of the Deployment"))?;
    let wanted = replicas(&before);
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    let edit = Patch::Merge(json!({"spec": {"replicas": wanted + 1}}));
    let edited = deployments
        .patch(shop::DEPLOYMENT, &by_hand, &edit)
        .await
        .map_err(refused("an edit of the Deployment"))?;
    let begin = Instant::now();
    if replicas(&edited) == wanted {
        return Err(unexpected("an edit that takes effect", format!("replicas: {wanted}")));
    }
    stage.printer.note(format!(
        "kubectl edit: replicas of Deployment {} from {wanted} to {}",
        shop::DEPLOYMENT,
        wanted + 1
    ));
    let expected = format!("replicas of Deployment {} back at {wanted}", shop::DEPLOYMENT);
    let generation = edited.metadata.generation;
    watch::until_one(&deployments, shop::DEPLOYMENT, expected, DEADLINE, |seen| match seen {
        // A later generation than the edit's: not a stale answer from before it.
        Some(now) if replicas(now) == wanted && now.metadata.generation > generation => Check::Met(()),
        Some(now) => Check::Not(format!("replicas: {}", replicas(now))),
        None => Check::Not("no such Deployment".to_owned()),
    })
    .await?;
    let took = begin.elapsed();
    stage.printer.done(took, "the field is back");
    Ok(took)
}

/// Somebody deletes the Service.
async fn deleted_object(stage: &Stage<'_>) -> Result<Duration, Error> {
    let services: Api<Service> = Api::namespaced(stage.client.clone(), shop::NAMESPACE);
    let before = services.get(shop::SERVICE).await.map_err(refused("a read of the Service"))?;
    services
        .delete(shop::SERVICE, &DeleteParams::default())
        .await
        .map_err(refused("a deletion of the Service"))?;
    let begin = Instant::now();
    stage.printer.note(format!("kubectl delete: Service {}", shop::SERVICE));
    let expected = format!("Service {} to be there again", shop::SERVICE);
    watch::until_one(&services, shop::SERVICE, expected, DEADLINE, |seen| match seen {
        Some(now) if now.metadata.uid != before.metadata.uid => Check::Met(()),
        Some(_) => Check::Not("the old Service".to_owned()),
        None => Check::Not("no such Service".to_owned()),
    })
    .await?;
    let took = begin.elapsed();
    stage.printer.done(took, "the object is back");
    Ok(took)
}
