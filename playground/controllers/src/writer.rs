//! Writes of namespaced objects whose answers go into the store at once.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::cache::Store;
use crate::error::Attempt;

/// The field manager of all controllers, the name that Kubernetes' own ones use.
pub(crate) const FIELD_MANAGER: &str = "kube-controller-manager";

/// A store together with the client that writes its objects.
pub(crate) struct Writer<K> {
    client: Client,
    /// The local copy.
    pub store: Arc<Store<K>>,
}

impl<K> Clone for Writer<K> {
    fn clone(&self) -> Self {
        Writer { client: self.client.clone(), store: Arc::clone(&self.store) }
    }
}

impl<K> Writer<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static,
{
    pub fn new(client: Client) -> Self {
        Writer { client, store: Arc::new(Store::default()) }
    }

    pub fn api(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn create(&self, namespace: &str, object: &K) -> Result<K, Error> {
        let created = self.api(namespace).create(&post(), object).await.attempt(|| {
            let meta = object.meta();
            let name = meta.name.as_ref().or(meta.generate_name.as_ref()).map_or("", String::as_str);
            format!("create {} {namespace}/{name}", K::kind(&()))
        })?;
        self.store.assume(created.clone());
        Ok(created)
    }

    /// Replaces the object if it is still the version that `object` was made from.
    pub async fn replace(&self, object: &K) -> Result<K, Error> {
        let (namespace, name) = address(object);
        let answer = self.api(namespace).replace(name, &post(), object).await;
        let replaced = self.settle(object, answer, "update")?;
        self.store.assume(replaced.clone());
        Ok(replaced)
    }

    /// Replaces the status if the object is still the version that `object` was made from.
    pub async fn replace_status(&self, object: &K) -> Result<K, Error> {
        let (namespace, name) = address(object);
        let answer = self.api(namespace).replace_status(name, &post(), object).await;
        let replaced = self.settle(object, answer, "update the status of")?;
        self.store.assume(replaced.clone());
        Ok(replaced)
    }

    /// Merges `patch` (RFC 7396) into the object.
    pub async fn merge(&self, object: &K, patch: &serde_json::Value) -> Result<K, Error> {
        let (namespace, name) = address(object);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let answer = self.api(namespace).patch(name, &params, &Patch::Merge(patch)).await;
        let patched = self.settle(object, answer, "patch")?;
        self.store.assume(patched.clone());
        Ok(patched)
    }

    /// Merges `patch` through the status, which leaves the generation as it is.
    pub async fn merge_status(&self, object: &K, patch: &serde_json::Value) -> Result<K, Error> {
        let (namespace, name) = address(object);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let answer = self.api(namespace).patch_status(name, &params, &Patch::Merge(patch)).await;
        let patched = self.settle(object, answer, "patch the status of")?;
        self.store.assume(patched.clone());
        Ok(patched)
    }

    /// Deletes the object if it is still the one with the same uid; a missing one is fine.
    pub async fn delete(&self, object: &K) -> Result<(), Error> {
        let (namespace, name) = address(object);
        let uid = object.meta().uid.clone();
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: uid.clone(), resource_version: None });
        let answer = self.api(namespace).delete(name, &params).await;
        match self.settle(object, answer.map(|answer| answer.left()), "delete") {
            // A pod in its grace period is still there, marked.
            Ok(Some(deleting)) if deleting.meta().deletion_timestamp.is_some() && waits(&deleting) => {
                self.store.assume(deleting);
                Ok(())
            }
            Ok(_) => {
                self.store.forget(namespace, name, uid.as_deref());
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn settle<T>(&self, object: &K, answer: Result<T, kube::Error>, verb: &str) -> Result<T, Error> {
        let (namespace, name) = address(object);
        let result = answer.attempt(|| format!("{verb} {} {namespace}/{name}", K::kind(&())));
        if result.as_ref().is_err_and(Error::is_not_found) {
            self.store.forget(namespace, name, object.meta().uid.as_deref());
        }
        result
    }
}

fn waits<K: Resource>(object: &K) -> bool {
    let meta = object.meta();
    meta.deletion_grace_period_seconds.is_some_and(|seconds| seconds > 0)
        || meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

fn address<K: Resource>(object: &K) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The parameters of every create and update.
pub(crate) fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
