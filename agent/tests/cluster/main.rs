//! The cluster module against an API server.

// All of this is test code, its helpers too: what is unexpected ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod inputs;
mod install;
mod keep;
mod lead;
mod look;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agent::api::{Environment, crd};
use agent::cluster::{Cluster, ObjectError, Subscription};
use engine::object::{GroupKind, Object, ObjectRef};
use engine::plan::{Input, Plan, lint, plan};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Client, Config};
use serde_json::{Value, json};

/// Longer than anything here takes, shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of its own for one test.
struct World {
    server: apiserver::Server,
    cluster: Cluster,
    client: Client,
}

impl World {
    /// An empty cluster that knows Environments.
    async fn new() -> Self {
        let server = apiserver::Server::start(apiserver::Config::default()).await.unwrap();
        let client = client(&server).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        definitions.create(&PostParams::default(), &crd()).await.unwrap();
        eventually("Environments are served", || async {
            Api::<Environment>::all(client.clone()).list(&ListParams::default()).await.is_ok()
        })
        .await;
        let world = Self { cluster: Cluster::new(client.clone()), server, client };
        for name in ["holdfast-system", "shop"] {
            world.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        }
        world
    }

    /// The same API server as another agent sees it that starts now.
    async fn another_agent(&self) -> Cluster {
        Cluster::new(client(&self.server).await)
    }

    /// Stores an Environment and reads it back.
    async fn environment(&self, environment: Environment) -> Environment {
        let environments: Api<Environment> = Api::namespaced(self.client.clone(), environment.namespace());
        environments.create(&PostParams::default(), &environment).await.unwrap()
    }

    /// An Environment as it is stored now.
    async fn fresh(&self, environment: &Environment) -> Environment {
        let environments: Api<Environment> = Api::namespaced(self.client.clone(), environment.namespace());
        environments.get(environment.name()).await.unwrap()
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let object = Object::new(object.clone()).unwrap();
        let gvk = object.gvk();
        let plural = match gvk.kind.as_str() {
            kind if kind.ends_with("y") => format!("{}ies", kind[..kind.len() - 1].to_lowercase()),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource {
            api_version: gvk.api_version(),
            group: gvk.group,
            version: gvk.version,
            kind: gvk.kind,
            plural,
        };
        match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Creates an object as somebody else.
    async fn create(&self, object: Value) -> Value {
        let typed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let params = PostParams { field_manager: Some("somebody".into()), ..PostParams::default() };
        serde_json::to_value(self.api(&object).create(&params, &typed).await.unwrap()).unwrap()
    }

    /// Changes an object as somebody else.
    async fn edit(&self, object: &Value, change: impl FnOnce(&mut Value)) {
        let mut value = self.read(object).await.unwrap();
        change(&mut value);
        let typed: DynamicObject = serde_json::from_value(value).unwrap();
        let params = PostParams { field_manager: Some("somebody".into()), ..PostParams::default() };
        self.api(object)
            .replace(object["metadata"]["name"].as_str().unwrap(), &params, &typed)
            .await
            .unwrap();
    }

    /// Deletes an object as somebody else.
    async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api(object).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// An object as it is now.
    async fn read(&self, object: &Value) -> Option<Value> {
        let found = self.api(object).get_opt(object["metadata"]["name"].as_str().unwrap()).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }
}

async fn client(server: &apiserver::Server) -> Client {
    agent::tls::install();
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Waits for a condition.
async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn objects(values: &[Value]) -> Vec<Object> {
    values.iter().map(|value| Object::new(value.clone()).unwrap()).collect()
}

fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "shop"},
        "data": {"key": value}
    })
}

fn reference(value: &Value) -> ObjectRef {
    Object::new(value.clone()).unwrap().object_ref()
}

/// Lists the members of the kinds of these objects, and of those that the Environment is marked with.
async fn follow(cluster: &Cluster, environment: &Environment, wanted: &[Object]) {
    let mut kinds: BTreeSet<GroupKind> = wanted.iter().map(|object| object.gvk().group_kind()).collect();
    kinds.extend(agent::cluster::group_kinds(environment));
    cluster.watch_group_kinds(&kinds).await.unwrap();
    cluster.synced(&kinds, PATIENCE).await.unwrap();
}

/// What has to be done so that the cluster holds these objects.
fn planned(cluster: &Cluster, environment: &Environment, wanted: &[Object]) -> Plan {
    let marks = environment.marks();
    let plan = cluster.members(|index| {
        let live = |object: &ObjectRef| index.get(object).map(|member| &member.live);
        let members = index.of(&marks.part_of).map(|member| &member.live).collect();
        plan(&Input::new(wanted, &marks, &live, members))
    });
    assert_eq!(lint(&plan), [""; 0]);
    plan
}

/// Plans, checks, applies and prunes. The answer is how many objects were written and deleted.
async fn deploy(
    cluster: &Cluster,
    environment: &Environment,
    wanted: &[Value],
) -> Result<(u32, u32), Vec<ObjectError>> {
    let wanted = objects(wanted);
    follow(cluster, environment, &wanted).await;
    let plan = planned(cluster, environment, &wanted);
    let marks = environment.marks();
    let owned = cluster.check(environment, &marks, &wanted, &plan).await?;
    let written = cluster.apply(environment, &marks, &wanted, &plan, &owned).await?;
    let deleted = cluster.prune(environment, &plan.prune).await?;
    Ok((written, deleted))
}

/// Writes only what drifted, with nothing known from a door.
async fn correct(cluster: &Cluster, environment: &Environment, wanted: &[Value]) -> u32 {
    let wanted = objects(wanted);
    let plan = planned(cluster, environment, &wanted);
    cluster.apply(environment, &environment.marks(), &wanted, &plan, &HashMap::new()).await.unwrap()
}

/// The next changes, as `(kind, name)`.
async fn next(subscription: &mut Subscription) -> Vec<(agent::cluster::ChangeKind, String)> {
    let changes = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("no change in time");
    changes.into_iter().map(|(object, kind)| (kind, object.name)).collect()
}
