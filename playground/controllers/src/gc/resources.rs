//! Every resource that the API server offers, watched for its metadata.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};
use tokio::task::{AbortHandle, JoinSet};

use super::graph::{Graph, Meta, Resource};
use crate::Error;
use crate::cache::{Store, follow};
use crate::error::Attempt;

/// A resource as discovery describes it.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
}

impl Kind {
    /// A client of this resource; `namespace` is ignored for cluster-wide kinds.
    pub fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) if self.namespaced => {
                Api::namespaced_with(client.clone(), namespace, &self.resource)
            }
            _ => Api::all_with(client.clone(), &self.resource),
        }
    }
}

struct Watched {
    kind: Resource,
    store: Arc<Store<Meta>>,
    task: AbortHandle,
}

/// Told about every change: its namespace, and whether an object came or went.
type OnChange = dyn Fn(&str, bool) + Send + Sync;

/// The resources with their objects' metadata.
pub(crate) struct Resources {
    pub client: Client,
    pub graph: Arc<Graph>,
    watched: RwLock<HashMap<(String, String), Watched>>,
    tasks: RwLock<JoinSet<()>>,
    on_change: Arc<OnChange>,
}

impl Resources {
    /// Nothing is watched until [`Resources::refresh`].
    pub fn new(client: Client, on_change: impl Fn(&str, bool) + Send + Sync + 'static) -> Resources {
        Resources {
            client,
            graph: Arc::default(),
            watched: RwLock::default(),
            tasks: RwLock::default(),
            on_change: Arc::new(on_change),
        }
    }

    /// Asks the server which resources there are, watches new ones and stops watching those that are gone.
    /// Returns when the new ones are completely listed.
    pub async fn refresh(&self) -> Result<(), Error> {
        let discovery = Discovery::new(self.client.clone())
            .run()
            .await
            .attempt(|| "discover the API's resources".to_owned())?;
        let mut present = HashMap::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.resources_by_stability() {
                let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
                // Events are many, short-lived, and own nothing.
                if resource.kind == "Event"
                    || !needed.iter().all(|verb| capabilities.supports_operation(verb))
                {
                    continue;
                }
                let key = (resource.group.clone(), resource.plural.clone());
                present.insert(key, Kind { resource, namespaced: capabilities.scope == Scope::Namespaced });
            }
        }
        let mut added = Vec::new();
        {
            let mut watched = self.watched.write().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|key, watch| {
                let keep = present
                    .get(key)
                    .is_some_and(|kind| kind.resource.api_version == watch.kind.resource.api_version);
                if !keep {
                    watch.task.abort();
                    watch.store.replace(Vec::new(), u64::MAX);
                }
                keep
            });
            for (key, kind) in present {
                watched.entry(key).or_insert_with(|| {
                    let watch = self.watch(Arc::new(kind));
                    added.push(Arc::clone(&watch.store));
                    watch
                });
            }
        }
        for store in added {
            store.wait_synced().await;
        }
        Ok(())
    }

    fn watch(&self, kind: Resource) -> Watched {
        let store = Arc::new(Store::<Meta>::default());
        let (graph, tell, resource) =
            (Arc::clone(&self.graph), Arc::clone(&self.on_change), Arc::clone(&kind));
        store.on_change(move |change| {
            graph.observe(&resource, change);
            if let Some(namespace) = change.last().and_then(|object| object.metadata.namespace.as_deref()) {
                tell(namespace, change.old.is_none() || change.new.is_none());
            }
        });
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &kind.resource);
        let (followed, plural) = (Arc::clone(&store), kind.resource.plural.clone());
        let task = self.tasks.write().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            if let Err(error) = follow(api, followed).await {
                tracing::error!(resource = plural, %error, "garbage collection cannot see a resource");
            }
        });
        Watched { kind, store, task }
    }

    /// All resources that live in namespaces, with what is known in one of them.
    pub fn in_namespace(&self, namespace: &str) -> Vec<(Resource, Vec<Arc<Meta>>)> {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        watched
            .values()
            .filter(|watch| watch.kind.namespaced)
            .map(|watch| (Arc::clone(&watch.kind), watch.store.in_namespace(namespace)))
            .collect()
    }

    /// The resource of a kind, at any version of its group.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        watched
            .values()
            .map(|watch| &watch.kind)
            .find(|known| known.resource.group == group && known.resource.kind == kind)
            .map(Arc::clone)
    }
}
