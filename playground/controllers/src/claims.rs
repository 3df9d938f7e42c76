//! Volume claims: each gets a volume of its own, which the node keeps as a local folder.

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, PersistentVolumeSpec, PersistentVolumeStatus, Pod,
};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};

use crate::Error;
use crate::cluster::Cluster;
use crate::error::Attempt;
use crate::meta::{self, Key};
use crate::queue::Outcome;
use crate::writer::{FIELD_MANAGER, post};

/// Finalizers that the API server gives to claims and volumes.
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// Who made a volume, as its annotation says.
pub(crate) const PROVISIONED_BY: &str = "playground";

/// The volume made for a claim.
pub(crate) fn volume_for(claim: &PersistentVolumeClaim) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = format!("pvc-{}", meta::uid(claim));
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(
                [("pv.kubernetes.io/provisioned-by".to_owned(), PROVISIONED_BY.to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: spec.resources.and_then(|resources| resources.requests),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: claim.metadata.namespace.clone(),
                name: claim.metadata.name.clone(),
                uid: claim.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
            // The node maps it into its own state folder.
            host_path: Some(HostPathVolumeSource {
                path: format!("/var/lib/playground/volumes/{name}"),
                type_: None,
            }),
            persistent_volume_reclaim_policy: Some("Delete".to_owned()),
            storage_class_name: spec.storage_class_name,
            volume_mode: spec.volume_mode.or_else(|| Some("Filesystem".to_owned())),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// Binds one claim.
pub(crate) async fn reconcile(cluster: &Cluster, key: &Key) -> Result<Outcome, Error> {
    let Some(claim) = cluster.claims.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    if meta::is_deleting(claim.as_ref()) {
        return let_go(cluster, &claim).await;
    }
    let wanted = volume_for(&claim);
    let present =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    let name = present.clone().unwrap_or_else(|| meta::name(&wanted).to_owned());
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let volume = match cluster.volumes.get("", &name) {
        Some(volume) => volume.as_ref().clone(),
        None if present.is_some() => return Ok(Outcome::Settled),
        None => match volumes.create(&post(), &wanted).await.attempt(|| format!("create volume {name}")) {
            Ok(volume) => {
                cluster.volumes.assume(volume.clone());
                volume
            }
            Err(error) if error.is_already_exists() => {
                volumes.get(&name).await.attempt(|| format!("read volume {name}"))?
            }
            Err(error) => return Err(error),
        },
    };
    let mut claim = claim.as_ref().clone();
    if present.is_none() {
        let patch = serde_json::json!({
            "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": name},
        });
        claim = cluster.claims.merge(&claim, &patch).await?;
    }
    if volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        let mut volume = volume.clone();
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Bound".to_owned()),
            ..PersistentVolumeStatus::default()
        });
        let bound = volumes.replace_status(&name, &post(), &volume).await;
        cluster.volumes.assume(bound.attempt(|| format!("update the status of volume {name}"))?);
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        let spec = volume.spec.unwrap_or_default();
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Bound".to_owned()),
            access_modes: spec.access_modes,
            capacity: spec.capacity,
            ..PersistentVolumeClaimStatus::default()
        });
        cluster.claims.replace_status(&claim).await?;
    }
    Ok(Outcome::Settled)
}

/// The names of the claims that the pod mounts.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|source| source.claim_name.as_str())
}

/// Lets a deleted claim go as soon as no pod uses it (Kubernetes' protection of volumes in use).
async fn let_go(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Result<Outcome, Error> {
    let Some(kept) = without(claim.metadata.finalizers.as_ref(), CLAIM_PROTECTION) else {
        return Ok(Outcome::Settled);
    };
    let pods = cluster.pods.store.in_namespace(meta::namespace(claim));
    let used = pods
        .iter()
        .any(|pod| !meta::is_terminal(pod) && claims_of(pod).any(|name| name == meta::name(claim)));
    if !used {
        let patch = serde_json::json!({"metadata": {
            "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "finalizers": kept,
        }});
        match cluster.claims.merge(claim, &patch).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(Outcome::Settled)
}

/// The finalizers without that one; none if it is not among them.
fn without(finalizers: Option<&Vec<String>>, name: &str) -> Option<Vec<String>> {
    let all = finalizers.filter(|all| all.iter().any(|finalizer| finalizer == name))?;
    Some(all.iter().filter(|finalizer| *finalizer != name).cloned().collect())
}

/// Deletes a volume whose claim is gone, if it was made for that claim.
pub(crate) async fn reconcile_volume(cluster: &Cluster, name: &str) -> Result<Outcome, Error> {
    let Some(volume) = cluster.volumes.get("", name) else { return Ok(Outcome::Settled) };
    let spec = volume.spec.as_ref();
    let deletes = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    let Some(claim) = spec.and_then(|spec| spec.claim_ref.as_ref()).filter(|_| deletes) else {
        return Ok(Outcome::Settled);
    };
    let (namespace, claim_name) =
        (claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default());
    let claims = cluster.claims.api(namespace);
    let live = claims.get_metadata_opt(claim_name).await.attempt(|| format!("look up claim {claim_name}"))?;
    if live.is_some_and(|live| live.metadata.uid == claim.uid) {
        return Ok(Outcome::Settled);
    }
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    if meta::is_deleting(volume.as_ref()) {
        if let Some(kept) = without(volume.metadata.finalizers.as_ref(), VOLUME_PROTECTION) {
            let patch = serde_json::json!({"metadata": {
                "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version, "finalizers": kept,
            }});
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let answer = volumes.patch_metadata(name, &params, &Patch::Merge(&patch)).await;
            match answer.attempt(|| format!("let volume {name} go")) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        return Ok(Outcome::Settled);
    }
    let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
    let answer = volumes.delete(name, &DeleteParams::default().preconditions(preconditions)).await;
    match answer.attempt(|| format!("delete volume {name}")) {
        Ok(_) => Ok(Outcome::Settled),
        Err(error) if error.is_not_found() => Ok(Outcome::Settled),
        Err(error) => Err(error),
    }
}
