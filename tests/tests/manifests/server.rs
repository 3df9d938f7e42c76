//! An API server tries every object without keeping it (dry run), as strictly as it can: an unknown field is an error.
//!
//! `MANIFESTS_KUBECONFIG` is a kubeconfig of the server to ask in place of the embedded one. Definitions and namespaces
//! stay there, so it should be one that nobody else uses: `tests/control-plane/run.sh` starts one.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::{environments, fleet, named, render, repository};

/// A server that knows the custom resources, and what it serves.
struct World {
    // Dropping it ends the server.
    _embedded: Option<apiserver::Server>,
    kubeconfig: Kubeconfig,
    client: Client,
    discovery: Discovery,
}

/// A client with all rights, or with those of a ServiceAccount of the agent's namespace.
async fn client(kubeconfig: &Kubeconfig, account: Option<&str>) -> Client {
    let kubeconfig = kubeconfig.clone();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate =
        account.map(|account| format!("system:serviceaccount:holdfast-system:{account}"));
    Client::try_from(config).unwrap()
}

impl World {
    async fn new() -> Self {
        agent::tls::install();
        let (embedded, kubeconfig) = match std::env::var_os("MANIFESTS_KUBECONFIG") {
            Some(file) => (None, Kubeconfig::read_from(file).unwrap()),
            None => {
                let server = apiserver::Server::start(apiserver::Config::default()).await.unwrap();
                let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
                (Some(server), kubeconfig)
            }
        };
        let client = client(&kubeconfig, None).await;
        let text = std::fs::read_to_string(repository().join("tests/crds/definitions.json")).unwrap();
        let mut definitions: Vec<CustomResourceDefinition> = serde_json::from_str(&text).unwrap();
        definitions.push(agent::api::crd());
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in &definitions {
            match api.create(&PostParams::default(), definition).await {
                // By the test before this one, on a server that both ask.
                Err(kube::Error::Api(answer)) if answer.is_already_exists() => {}
                created => drop(created.unwrap()),
            }
        }
        for definition in &definitions {
            let name = definition.metadata.name.clone().unwrap();
            let established = kube::runtime::conditions::is_crd_established();
            let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
            tokio::time::timeout(Duration::from_secs(20), wait)
                .await
                .unwrap_or_else(|_| panic!("{name} is not served"))
                .unwrap();
        }
        let discovery = Discovery::new(client.clone()).run().await.unwrap();
        Self { _embedded: embedded, kubeconfig, client, discovery }
    }

    /// Makes a namespace for good: what is in it can then be tried.
    async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.apply(&self.client, &object, false).await.unwrap();
    }

    /// Tries an object, and says why the server does not want it.
    async fn try_out(&self, object: &Value) -> Result<(), String> {
        self.apply(&self.client, object, true).await
    }

    async fn apply(&self, client: &Client, object: &Value, dry_run: bool) -> Result<(), String> {
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let Some((resource, capabilities)) = self.discovery.resolve_gvk(&gvk) else {
            return Err(format!("the server knows no {kind} of {api_version}"));
        };
        let namespace = object["metadata"]["namespace"].as_str();
        let api: Api<DynamicObject> = match (capabilities.scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
            (Scope::Cluster, None) => Api::all_with(client.clone(), &resource),
            (Scope::Namespaced, None) => return Err("it has no namespace".to_owned()),
            (Scope::Cluster, Some(_)) => return Err("it is in a namespace, which its kind is not".to_owned()),
        };
        let params = PatchParams {
            dry_run,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("manifests")
        };
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &params, &Patch::Apply(object)).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn the_server_takes_every_object() {
    let world = World::new().await;
    let mut all = environments();
    all.extend(["fleet", "infrastructure/base", "monitoring/base"].map(render));
    let namespaces: BTreeSet<&str> = all
        .iter()
        .flat_map(|environment| &environment.objects)
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .collect();
    for namespace in namespaces {
        world.namespace(namespace).await;
    }
    let mut problems = Vec::new();
    let mut kinds = BTreeSet::new();
    for environment in &all {
        for object in &environment.objects {
            let mut object = object.clone();
            if let Err(why) = world.try_out(&object).await {
                problems.push(format!("{}: {}: {why}", environment.path, named(&object)));
            }
            // And it is not that the server takes anything.
            if object["spec"].is_object() && kinds.insert(object["kind"].to_string()) {
                object["spec"]["misspelt"] = json!(1);
                match world.try_out(&object).await {
                    Ok(()) => problems.push(format!("{} may have a misspelt field", named(&object))),
                    Err(why) => assert!(why.contains("misspelt"), "{}: {why}", named(&object)),
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(kinds.len() > 30, "{kinds:?}");
}

#[tokio::test]
async fn each_account_may_do_what_its_environment_needs_and_no_more() {
    let world = World::new().await;
    for namespace in ["holdfast-system", "ingress-nginx"] {
        world.namespace(namespace).await;
    }
    for object in render("fleet").objects.iter().filter(|object| object["kind"] != "Environment") {
        world
            .apply(&world.client, object, false)
            .await
            .unwrap_or_else(|why| panic!("{}: {why}", named(object)));
    }
    let fleet = fleet();
    let mut accounts = BTreeSet::new();
    for (name, environment) in &fleet {
        // Where no account is named, the agent writes as itself.
        let account = environment["spec"]["serviceAccountName"].as_str().unwrap_or("holdfast");
        accounts.insert(account);
        let client = client(&world.kubeconfig, Some(account)).await;
        for (other, wanted) in &fleet {
            let path = wanted["spec"]["source"]["path"].as_str().unwrap();
            let rendered = render(path.strip_prefix("environments/").unwrap());
            for object in &rendered.objects {
                match (name == other, world.apply(&client, object, true).await) {
                    (true, Err(why)) => panic!("{account} may not write {}: {why}", named(object)),
                    (false, Ok(())) => panic!("{account} may write {}, which is of {other}", named(object)),
                    (true, Ok(())) => {}
                    (false, Err(why)) => assert!(why.to_lowercase().contains("forbidden"), "{why}"),
                }
            }
        }
    }
    assert_eq!(accounts.len(), fleet.len(), "{accounts:?}");
}
