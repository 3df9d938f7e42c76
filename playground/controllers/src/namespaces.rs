//! The end of a namespace: everything in it is deleted, then its finalizer goes.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace, NamespaceCondition};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use std::sync::Arc;

use crate::Error;
use crate::cluster::Cluster;
use crate::error::Attempt;
use crate::gc::{Kind, Meta, Resources};
use crate::meta;
use crate::queue::Outcome;
use crate::writer::post;

/// The finalizer in `spec.finalizers` of every namespace.
const FINALIZER: &str = "kubernetes";

/// Empties a namespace that is being deleted; looks again whenever an object in it changes.
pub(crate) async fn reconcile(
    cluster: &Cluster,
    resources: &Resources,
    name: &str,
) -> Result<Outcome, Error> {
    let Some(namespace) = cluster.namespaces.get("", name) else { return Ok(Outcome::Settled) };
    if !meta::is_deleting(namespace.as_ref())
        || finalizers(&namespace).all(|finalizer| finalizer != FINALIZER)
    {
        return Ok(Outcome::Settled);
    }
    let content = resources.in_namespace(name);
    let mut known = 0;
    for (kind, objects) in &content {
        known += objects.len();
        let doomed = objects.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
        for result in join_all(doomed.map(|object| delete(cluster, kind, name, object))).await {
            result?;
        }
    }
    if known > 0 {
        report(cluster, &namespace, &content).await?;
        return Ok(Outcome::Settled);
    }
    // The copies may be behind: only the server's own lists prove that nothing is left.
    let remains = join_all(content.iter().map(|(kind, _)| remains(cluster, kind, name))).await;
    for remains in remains {
        if remains? {
            return Ok(Outcome::Again(std::time::Duration::from_millis(20)));
        }
    }
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), name);
    settle(
        events
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .attempt(|| format!("delete the events of namespace {name}"))
            .map(drop),
    )?;
    finalize(cluster, &namespace).await?;
    Ok(Outcome::Settled)
}

fn finalizers(namespace: &Namespace) -> impl Iterator<Item = &str> {
    namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).map(String::as_str)
}

async fn delete(cluster: &Cluster, kind: &Kind, namespace: &str, object: &Arc<Meta>) -> Result<(), Error> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(preconditions);
    let answer = kind.api(&cluster.client, Some(namespace)).delete(name, &params).await;
    let result = answer.attempt(|| format!("delete {} {namespace}/{name}", kind.resource.kind)).map(drop);
    match result {
        // Replaced by another object of that name: the next change brings it here.
        Err(error) if error.is_conflict() => Ok(()),
        result => settle(result),
    }
}

async fn remains(cluster: &Cluster, kind: &Kind, namespace: &str) -> Result<bool, Error> {
    let api = kind.api(&cluster.client, Some(namespace));
    let answer = api.list_metadata(&ListParams::default().limit(1)).await;
    match answer.attempt(|| format!("list {} of namespace {namespace}", kind.resource.plural)) {
        Ok(list) => Ok(!list.items.is_empty()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn finalize(cluster: &Cluster, namespace: &Namespace) -> Result<(), Error> {
    let name = meta::name(namespace);
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let Some(mut latest) = api.get_opt(name).await.attempt(|| format!("read namespace {name}"))? else {
        return Ok(());
    };
    if latest.metadata.uid != namespace.metadata.uid {
        return Ok(());
    }
    if let Some(list) = latest.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        list.retain(|finalizer| finalizer != FINALIZER);
    }
    let answer = api.replace_subresource("finalize", name, &post(), &latest).await;
    settle(answer.attempt(|| format!("finalize namespace {name}")).map(drop))
}

/// Says in the namespace's conditions what its deletion waits for.
async fn report(
    cluster: &Cluster,
    namespace: &Namespace,
    content: &[(Arc<Kind>, Vec<Arc<Meta>>)],
) -> Result<(), Error> {
    let held: Vec<String> = content
        .iter()
        .flat_map(|(kind, objects)| objects.iter().map(move |object| (kind, object)))
        .filter(|(_, object)| object.metadata.deletion_timestamp.is_some())
        .flat_map(|(kind, object)| {
            let finalizers = object.metadata.finalizers.iter().flatten();
            finalizers.map(move |finalizer| format!("{finalizer} in {}", kind.resource.plural))
        })
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let message = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
    let present = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if present.clone().any(|condition| condition.message.as_ref() == Some(&message)) {
        return Ok(());
    }
    let mut next = namespace.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "NamespaceFinalizersRemaining");
    conditions.push(NamespaceCondition {
        type_: "NamespaceFinalizersRemaining".to_owned(),
        status: "True".to_owned(),
        reason: Some("SomeFinalizersRemain".to_owned()),
        message: Some(message),
        last_transition_time: Some(meta::seconds(Timestamp::now())),
    });
    let name = meta::name(namespace);
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let answer = api.replace_status(name, &post(), &next).await;
    settle(answer.attempt(|| format!("report on namespace {name}")).map(drop))
}

fn settle(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}
