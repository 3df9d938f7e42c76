//! Volumes for claims of one class in a cluster that has controllers of its own: what such a cluster leaves to an
//! external provisioner. Binding, and the protection of what is in use, stay with the cluster's controllers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

use crate::Error;
use crate::cache::{Store, follow_all};
use crate::claims::{PROVISIONED_BY, volume_for};
use crate::error::Attempt;
use crate::meta::{self, Key};
use crate::queue::{Outcome, Queue};
use crate::writer::post;

/// The `provisioner` of the StorageClass.
pub const PROVISIONER: &str = "holdfast.dev/playground";

/// Makes a volume for each claim of the StorageClass `class`, and deletes it after its claim. Runs until it is
/// dropped.
///
/// # Errors
/// [`Error::Refused`] if the API server denies the client to see claims or volumes.
pub async fn run(client: Client, class: String) -> Result<(), Error> {
    let claims = Arc::<Store<PersistentVolumeClaim>>::default();
    let volumes = Arc::<Store<PersistentVolume>>::default();
    let (wanted, released) = (Arc::<Queue<Key>>::default(), Arc::<Queue<String>>::default());
    let queue = Arc::clone(&wanted);
    let (copies, leftovers) = (Arc::clone(&volumes), Arc::clone(&released));
    claims.on_change(move |change| match (&change.old, &change.new) {
        (_, Some(claim)) => queue.add(Key::of(claim.as_ref())),
        (Some(gone), None) => {
            let uid = meta::uid(gone.as_ref());
            let made = copies.all().into_iter().filter(|volume| claim_of(volume).is_some_and(|of| of == uid));
            made.for_each(|volume| leftovers.add(volume.name_any()));
        }
        (None, None) => {}
    });
    let leftovers = Arc::clone(&released);
    volumes.on_change(move |change| {
        if let Some(volume) = &change.new {
            leftovers.add(volume.name_any());
        }
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(follow_all(client.clone(), Arc::clone(&claims)));
    tasks.spawn(follow_all(client.clone(), Arc::clone(&volumes)));
    let maker = (client.clone(), Arc::clone(&claims), Arc::clone(&volumes), class);
    tasks.spawn(async move {
        maker.1.wait_synced().await;
        maker.2.wait_synced().await;
        wanted.work(|key| provision(maker.clone(), key)).await;
        Ok(())
    });
    let cleaner = (client, claims, volumes);
    tasks.spawn(async move {
        cleaner.1.wait_synced().await;
        cleaner.2.wait_synced().await;
        released.work(|name| release(cleaner.clone(), name)).await;
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(error)) = ended {
            return Err(error);
        }
    }
    Ok(())
}

type Claims = Arc<Store<PersistentVolumeClaim>>;
type Volumes = Arc<Store<PersistentVolume>>;

async fn provision(
    (client, claims, volumes, class): (Client, Claims, Volumes, String),
    key: Key,
) -> Result<Outcome, Error> {
    let Some(claim) = claims.get(&key.namespace, &key.name) else { return Ok(Outcome::Settled) };
    let spec = claim.spec.as_ref();
    let ours = spec.and_then(|spec| spec.storage_class_name.as_deref()) == Some(class.as_str());
    let bound = spec.and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
    if !ours || bound || meta::is_deleting(claim.as_ref()) {
        return Ok(Outcome::Settled);
    }
    let volume = volume_for(&claim);
    let name = volume.name_any();
    if volumes.get("", &name).is_some() {
        return Ok(Outcome::Settled);
    }
    let api: Api<PersistentVolume> = Api::all(client);
    match api.create(&post(), &volume).await.attempt(|| format!("create volume {name}")) {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(Outcome::Settled),
    }
}

async fn release(
    (client, claims, volumes): (Client, Claims, Volumes),
    name: String,
) -> Result<Outcome, Error> {
    let Some(volume) = volumes.get("", &name) else { return Ok(Outcome::Settled) };
    let Some(uid) = claim_of(&volume) else { return Ok(Outcome::Settled) };
    let used = claims.all().iter().any(|claim| meta::uid(claim.as_ref()) == uid);
    if used || meta::is_deleting(volume.as_ref()) {
        return Ok(Outcome::Settled);
    }
    let api: Api<PersistentVolume> = Api::all(client);
    let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
    let answer = api.delete(&name, &DeleteParams::default().preconditions(preconditions)).await;
    match answer.attempt(|| format!("delete volume {name}")) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Settled),
    }
}

/// The uid of the claim that the volume was made for here; none if somebody else made it.
fn claim_of(volume: &PersistentVolume) -> Option<&str> {
    let maker = volume.annotations().get("pv.kubernetes.io/provisioned-by");
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    claim.uid.as_deref().filter(|_| maker.map(String::as_str) == Some(PROVISIONED_BY))
}
