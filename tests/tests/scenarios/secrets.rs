//! Secrets in Git and values from the cluster: what is missing is named, and what arrives or changes takes
//! effect by itself.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use playground::watch::{self, Check};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{Options, Site, World};

const PATIENCE: Duration = Duration::from_secs(30);

fn file(name: &str) -> anyhow::Result<String> {
    let path = format!("{}/../engine/tests/sops/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).with_context(|| path)
}

async fn create<T>(world: &World, object: Value) -> anyhow::Result<()>
where
    T: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + serde::Serialize,
    T: Clone + std::fmt::Debug,
    T::DynamicType: Default,
{
    let api: Api<T> =
        Api::namespaced(world.client().clone(), &world.namespace(playground::environment::NAMESPACE));
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

/// Waits until a value of the deployed ConfigMap is there.
async fn until_value(world: &World, wanted: &str) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> =
        Api::namespaced(world.client().clone(), &world.namespace(playground::environment::NAMESPACE));
    let expected = format!("ConfigMap settings with cluster {wanted}");
    watch::until_one(&maps, "settings", expected, PATIENCE, |seen| {
        let data = seen.and_then(|map| map.data.as_ref());
        match data.and_then(|data| data.get("cluster")) {
            Some(value) if value == wanted => Check::Met(()),
            value => Check::Not(format!("{value:?}")),
        }
    })
    .await?;
    Ok(())
}

pub async fn secrets_in_git_open_with_the_key_that_arrives_and_variables_follow_the_cluster(
    site: Site,
) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    world.repository.write("app/secret.yaml", &file("files/other-secret.yaml")?)?;
    world.repository.write(
        "app/settings.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {cluster: \"${CLUSTER}-${TIER:=small}\"}\n",
    )?;
    let commit = world.repository.commit_and_push("Add a secret and a setting")?;
    let mut environment = world.small_environment("app");
    environment["spec"]["decryption"] = json!({"secretRef": {"name": "sops-age"}});
    environment["spec"]["substitute"] = json!({"from": [{"kind": "ConfigMap", "name": "cluster-vars"}]});
    playground::environment::apply(world.client(), &environment).await?;
    let namespace = world.namespace(playground::environment::NAMESPACE);

    world
        .until_told(
            "app",
            &["spec.decryption.secretRef", &format!("Secret {namespace}/sops-age does not exist")],
        )
        .await?;

    let secret = |key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "sops-age", "namespace": namespace},
            "stringData": {"age.agekey": key}
        })
    };
    let (wrong, right) = (file("TEST-ONLY.agekey")?, file("TEST-ONLY-other.agekey")?);
    create::<Secret>(&world, secret(&wrong)).await?;
    world.until_told("app", &["spec.substitute.from[0]", "cluster-vars does not exist"]).await?;
    create::<ConfigMap>(
        &world,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "cluster-vars", "namespace": namespace},
            "data": {"CLUSTER": "east"}
        }),
    )
    .await?;
    let told = world
        .until_told(
            "app",
            &["app/secret.yaml", "this file is encrypted for age1", "keys that are given are age1"],
        )
        .await?;
    println!("{told}");

    // The key is replaced: nobody has to tell the agent.
    let secrets: Api<Secret> =
        Api::namespaced(world.client().clone(), &world.namespace(playground::environment::NAMESPACE));
    let change = json!({"stringData": {"age.agekey": right}});
    secrets.patch("sops-age", &PatchParams::default(), &Patch::Merge(change)).await?;
    world.until_ready("app", &commit.id).await?;
    let deployed = secrets.get("database").await?.data.unwrap_or_default();
    let password = deployed.get("password").map(|value| value.0.as_slice());
    ensure!(password == Some(b"correct horse battery staple"), "the Secret was deployed decrypted");
    until_value(&world, "east-small").await?;

    // So does a variable that changes.
    let maps: Api<ConfigMap> =
        Api::namespaced(world.client().clone(), &world.namespace(playground::environment::NAMESPACE));
    let change = json!({"data": {"CLUSTER": "west", "TIER": "large"}});
    maps.patch("cluster-vars", &PatchParams::default(), &Patch::Merge(change)).await?;
    until_value(&world, "west-large").await?;

    // What was decrypted is nowhere but in the Secret.
    let log = std::fs::read_to_string(world.log().path())?;
    for value in ["correct horse", "hunter2", "AGE-SECRET-KEY"] {
        ensure!(!log.contains(value), "the log tells {value}");
    }
    let status = serde_json::to_string(&world.environments().get("app").await?)?;
    ensure!(!status.contains("correct horse"), "the Environment tells a secret");
    world.stop().await;
    Ok(())
}
