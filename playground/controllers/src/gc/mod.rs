//! Garbage collection by owner references (background, foreground, orphan), over every resource that the API
//! server offers, custom ones included.

mod decide;
mod graph;
mod resources;

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::json;

use decide::{
    Action, FOREGROUND, ORPHAN, Owner, Propagation, decide, orphans_dependents, waits_for_dependents,
};
pub(crate) use graph::Meta;
use graph::{Resource, Vertex};
pub(crate) use resources::{Kind, Resources};

use crate::Error;
use crate::error::Attempt;
use crate::queue::Outcome;
use crate::writer::FIELD_MANAGER;

/// Looks at one object.
pub(crate) async fn reconcile(resources: &Resources, uid: &str) -> Result<Outcome, Error> {
    let graph = &resources.graph;
    let Some(vertex) = graph.get(uid) else { return Ok(Outcome::Settled) };
    if orphans_dependents(vertex.meta()) {
        return orphan(resources, &vertex, uid).await;
    }
    if waits_for_dependents(vertex.meta()) {
        return wait_for_dependents(resources, &vertex, uid).await;
    }
    let mut owners = Vec::new();
    for reference in vertex.meta().owner_references.iter().flatten() {
        let state = match graph.get(&reference.uid) {
            Some(owner)
                if waits_for_dependents(owner.meta()) && reference.block_owner_deletion == Some(true) =>
            {
                Owner::Waiting
            }
            Some(_) => Owner::Solid,
            None => match look_up(resources, &vertex, reference).await? {
                Some(state) => state,
                // A kind that the server does not know now may be back later; nothing is deleted on a guess.
                None => return Ok(Outcome::Settled),
            },
        };
        owners.push((reference.clone(), state));
    }
    match decide(vertex.meta(), &owners, !graph.dependents(uid).is_empty()) {
        Action::Keep => {}
        Action::DropReferences(kept) => {
            let patch = json!({"metadata": {"uid": uid, "ownerReferences": kept}});
            patch_meta(resources, &vertex, patch).await?;
        }
        Action::Delete(propagation) => delete(resources, &vertex, propagation).await?,
    }
    Ok(Outcome::Settled)
}

/// Asks the server for an owner that the graph does not know.
async fn look_up(
    resources: &Resources,
    dependent: &Vertex,
    reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> Result<Option<Owner>, Error> {
    let Some(kind) = resources.by_kind(&reference.api_version, &reference.kind) else { return Ok(None) };
    let api = api(resources, &kind, dependent.meta().namespace.as_deref());
    let answer = api
        .get_metadata_opt(&reference.name)
        .await
        .attempt(|| format!("look up owner {}", reference.name))?;
    Ok(Some(match answer {
        Some(found) if found.metadata.uid.as_deref() == Some(&reference.uid) => {
            if waits_for_dependents(&found.metadata) { Owner::Waiting } else { Owner::Solid }
        }
        _ => Owner::Absent,
    }))
}

/// Lets the dependents of an object go, then the object.
async fn orphan(resources: &Resources, vertex: &Vertex, uid: &str) -> Result<Outcome, Error> {
    for dependent in resources.graph.dependents(uid) {
        let mut kept = dependent.meta().owner_references.clone().unwrap_or_default();
        kept.retain(|reference| reference.uid != uid);
        let patch = json!({"metadata": {"uid": dependent.meta().uid, "ownerReferences": kept}});
        patch_meta(resources, &dependent, patch).await?;
    }
    remove_finalizer(resources, vertex, ORPHAN).await?;
    Ok(Outcome::Settled)
}

/// Deletes what blocks the object's deletion; the last one gone, the object goes.
async fn wait_for_dependents(resources: &Resources, vertex: &Vertex, uid: &str) -> Result<Outcome, Error> {
    let blocking: Vec<Vertex> = resources
        .graph
        .dependents(uid)
        .into_iter()
        .filter(|dependent| {
            let owners = dependent.meta().owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
        .collect();
    if blocking.is_empty() {
        remove_finalizer(resources, vertex, FOREGROUND).await?;
        return Ok(Outcome::Settled);
    }
    for dependent in blocking.iter().filter(|dependent| dependent.meta().deletion_timestamp.is_none()) {
        resources.graph.queue.add(dependent.meta().uid.clone().unwrap_or_default());
    }
    Ok(Outcome::Settled)
}

async fn delete(resources: &Resources, vertex: &Vertex, propagation: Propagation) -> Result<(), Error> {
    let meta = vertex.meta();
    let params = match propagation {
        Propagation::Background => DeleteParams::background(),
        Propagation::Foreground => DeleteParams::foreground(),
        Propagation::Orphan => DeleteParams::orphan(),
    };
    let params = params.preconditions(Preconditions {
        uid: meta.uid.clone(),
        // New owner references in the meantime make the decision void.
        resource_version: meta.resource_version.clone(),
    });
    let name = meta.name.as_deref().unwrap_or_default();
    let api = api(resources, &vertex.resource, meta.namespace.as_deref());
    let answer = api.delete(name, &params).await;
    let result = answer.attempt(|| format!("collect {} {name}", vertex.resource.resource.kind));
    settle(result.map(drop))
}

async fn patch_meta(resources: &Resources, vertex: &Vertex, patch: serde_json::Value) -> Result<(), Error> {
    let meta = vertex.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api = api(resources, &vertex.resource, meta.namespace.as_deref());
    let answer = api.patch_metadata(name, &params, &Patch::Merge(&patch)).await;
    settle(
        answer.attempt(|| format!("patch the owners of {} {name}", vertex.resource.resource.kind)).map(drop),
    )
}

async fn remove_finalizer(resources: &Resources, vertex: &Vertex, finalizer: &str) -> Result<(), Error> {
    let meta = vertex.meta();
    let mut kept = meta.finalizers.clone().unwrap_or_default();
    kept.retain(|name| name != finalizer);
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": kept,
    }});
    patch_meta(resources, vertex, patch).await
}

/// What is gone needs no collection.
fn settle(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

fn api(resources: &Resources, kind: &Resource, namespace: Option<&str>) -> Api<DynamicObject> {
    kind.api(&resources.client, namespace)
}
