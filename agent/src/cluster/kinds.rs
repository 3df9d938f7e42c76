//! Which kinds the cluster has: a cache of the API server's discovery documents.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use engine::object::{GroupKind, GroupVersionKind, ObjectRef};
use http::Request;
use kube::core::ApiResource;
use serde_json::Value;

use super::Cluster;
use super::error::Error;
use super::request::{chain, segment};

/// A kind as the API server serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Group, version and kind.
    pub gvk: GroupVersionKind,
    /// The resource's name in paths: `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether its objects can be listed and watched. Reviews, for one, cannot.
    pub watchable: bool,
}

impl Kind {
    /// The kind for kube's own `Api`.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.gvk.group.clone(),
            version: self.gvk.version.clone(),
            api_version: self.gvk.api_version(),
            kind: self.gvk.kind.clone(),
            plural: self.plural.clone(),
        }
    }

    /// The path of the collection, in a namespace or everywhere.
    pub(crate) fn path(&self, namespace: Option<&str>) -> Result<String, Error> {
        let mut path = group_version_path(&self.gvk.group, &self.gvk.version)?;
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str("/namespaces/");
            path.push_str(&segment(namespace)?);
        }
        path.push('/');
        path.push_str(&self.plural);
        Ok(path)
    }

    /// The identity with the namespace that the kind asks for: none for a cluster-wide kind, `default`
    /// where a namespaced object names none.
    pub fn place(&self, object: &ObjectRef, default: &str) -> ObjectRef {
        let namespace =
            self.namespaced.then(|| object.namespace.clone().unwrap_or_else(|| default.to_owned()));
        ObjectRef { namespace, ..object.clone() }
    }
}

pub(crate) fn group_version_path(group: &str, version: &str) -> Result<String, Error> {
    let version = segment(version)?;
    Ok(if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{}/{version}", segment(group)?)
    })
}

/// The kinds of one version of a group.
type GroupVersion = HashMap<String, Arc<Kind>>;

/// The cache. Nothing is asked until a kind is needed; then the whole version of its group is read.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    versions: RwLock<HashMap<(String, String), GroupVersion>>,
    /// Held while asking, so that a hundred environments that need the same kind ask once.
    asking: tokio::sync::Mutex<()>,
}

impl Kinds {
    fn cached(&self, gvk: &GroupVersionKind) -> Option<Arc<Kind>> {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        versions.get(&(gvk.group.clone(), gvk.version.clone()))?.get(&gvk.kind).cloned()
    }

    fn cached_group_kind(&self, kind: &GroupKind) -> Option<Arc<Kind>> {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        let of_group = versions.iter().filter(|((group, _), _)| *group == kind.group);
        of_group.filter_map(|(_, kinds)| kinds.get(&kind.kind)).next().cloned()
    }

    fn put(&self, group: &str, version: &str, kinds: GroupVersion) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        versions.insert((group.to_owned(), version.to_owned()), kinds);
    }

    pub(crate) fn forget(&self, group: &str) {
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|(known, _), _| known != group);
    }
}

impl Cluster {
    /// The kind of that name, or nothing if the cluster has none. Discovery is read again once if the
    /// kind is not in what is known.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn kind(&self, gvk: &GroupVersionKind) -> Result<Option<Arc<Kind>>, Error> {
        let mut found = self.kinds_of([gvk]).await?;
        Ok(found.remove(gvk))
    }

    /// The kinds of these names, leaving out those that the cluster does not have. Each version of a
    /// group is read at most once.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn kinds_of<'a>(
        &self,
        gvks: impl IntoIterator<Item = &'a GroupVersionKind>,
    ) -> Result<HashMap<GroupVersionKind, Arc<Kind>>, Error> {
        let mut found = HashMap::new();
        let mut missing: Vec<&GroupVersionKind> = Vec::new();
        for gvk in gvks {
            match self.inner.kinds.cached(gvk) {
                Some(kind) => drop(found.insert(gvk.clone(), kind)),
                None => missing.push(gvk),
            }
        }
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return Ok(found);
        }
        let _asking = self.inner.kinds.asking.lock().await;
        let mut asked: Option<(&str, &str)> = None;
        for gvk in missing {
            let version = (gvk.group.as_str(), gvk.version.as_str());
            // The list is sorted by group and version, so one that was asked for is the last one.
            if asked != Some(version) && self.inner.kinds.cached(gvk).is_none() {
                let kinds = self.read_group_version(version.0, version.1).await?;
                self.inner.kinds.put(version.0, version.1, kinds);
                asked = Some(version);
            }
            if let Some(kind) = self.inner.kinds.cached(gvk) {
                found.insert(gvk.clone(), kind);
            }
        }
        Ok(found)
    }

    /// A kind by its group alone: at a version that is in use already, or else the preferred one.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn kind_of_group(&self, kind: &GroupKind) -> Result<Option<Arc<Kind>>, Error> {
        if let Some(kind) = self.inner.kinds.cached_group_kind(kind) {
            return Ok(Some(kind));
        }
        let version = if kind.group.is_empty() {
            Some("v1".to_owned())
        } else {
            let path = match segment(&kind.group) {
                Ok(group) => format!("/apis/{group}"),
                Err(_) => return Ok(None),
            };
            let group = self.discover(&path).await?;
            group.and_then(|group| Some(group["preferredVersion"]["version"].as_str()?.to_owned()))
        };
        let Some(version) = version else { return Ok(None) };
        let gvk = GroupVersionKind { group: kind.group.clone(), version, kind: kind.kind.clone() };
        self.kind(&gvk).await
    }

    /// Forgets what is known about a group: its CustomResourceDefinitions changed.
    pub fn forget_kinds(&self, group: &str) {
        self.inner.kinds.forget(group);
    }

    async fn read_group_version(&self, group: &str, version: &str) -> Result<GroupVersion, Error> {
        // A name that cannot be asked for is a kind that does not exist.
        let Ok(path) = group_version_path(group, version) else { return Ok(GroupVersion::new()) };
        let Some(list) = self.discover(&path).await? else { return Ok(GroupVersion::new()) };
        let resources = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(resources.iter().filter_map(|resource| parse_resource(group, version, resource)).collect())
    }

    /// Reads a discovery document; nothing if there is none.
    async fn discover(&self, path: &str) -> Result<Option<Value>, Error> {
        let unavailable = |message: String| Error::Unavailable {
            verb: "get".to_owned(),
            what: format!("discovery of {path}"),
            attempts: 1,
            message,
        };
        let request = Request::get(path).body(Vec::new()).map_err(|error| unavailable(error.to_string()))?;
        match self.client().request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(unavailable(chain(&error))),
        }
    }
}

fn parse_resource(group: &str, version: &str, resource: &Value) -> Option<(String, Arc<Kind>)> {
    let plural = resource["name"].as_str()?;
    // `deployments/scale` is a subresource, and its kind may be another group's.
    if plural.contains('/') {
        return None;
    }
    let kind = resource["kind"].as_str()?;
    let gvk =
        GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() };
    let namespaced = resource["namespaced"].as_bool().unwrap_or(false);
    let verbs = resource["verbs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let watchable = ["list", "watch"].iter().all(|verb| verbs.iter().any(|have| have == verb));
    Some((kind.to_owned(), Arc::new(Kind { gvk, plural: plural.to_owned(), namespaced, watchable })))
}
