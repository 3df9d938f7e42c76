//! Commits whose content is wrong: nothing of them reaches the cluster, and the place is named.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use playground::shop;
use serde_json::json;
use tests::{Options, Site, World};

const PATIENCE: Duration = Duration::from_secs(30);

/// What is committed, and words that the team must read.
struct Case {
    name: &'static str,
    file: &'static str,
    text: &'static str,
    words: &'static [&'static str],
}

const CASES: [Case; 6] = [
    Case {
        name: "YAML that does not parse",
        file: "app/broken.yaml",
        text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [\n",
        words: &["app/broken.yaml:"],
    },
    Case {
        name: "a duplicate key",
        file: "app/twice.yaml",
        text: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  name: b\n",
        words: &["app/twice.yaml:5", "name"],
    },
    Case {
        name: "two objects with one identity",
        file: "app/same.yaml",
        text: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\n  namespace: app\ndata: {value: \"9\"}\n",
        words: &["ConfigMap", "app/same.yaml"],
    },
    Case {
        name: "an unknown kind",
        file: "app/gadget.yaml",
        text: "apiVersion: example.dev/v1\nkind: Gadget\nmetadata:\n  name: a\n  namespace: app\n",
        words: &["Gadget"],
    },
    Case {
        name: "an object that the API server refuses",
        file: "app/invalid.yaml",
        text: "apiVersion: v1\nkind: Service\nmetadata:\n  name: invalid\n  namespace: app\nspec:\n  ports: [{port: 70000}]\n",
        words: &["Service", "invalid", "port"],
    },
    Case {
        name: "a field that does not exist",
        file: "app/field.yaml",
        text: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: field\n  namespace: app\ndatta: {a: b}\n",
        words: &["ConfigMap", "field", "datta"],
    },
];

pub async fn a_wrong_commit_changes_nothing_and_is_named(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app", "other"], Options::default()).await?;
    for name in ["app", "other"] {
        let object = world.small_environment(name);
        playground::environment::apply(world.client(), &object).await?;
        world.until_ready(name, &world.repository.tip()?.id).await?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("app"));
    let good = maps.get("app").await?;
    let config = world.repository.read("app/config.yaml")?;
    for (number, case) in CASES.iter().enumerate() {
        // The wrong file comes with a right change beside it: all of a commit, or nothing.
        world.repository.write("app/config.yaml", &config.replace("\"1\"", &format!("\"9{number}\"")))?;
        let text = case.text.replace("namespace: app\n", &format!("namespace: {}\n", world.namespace("app")));
        world.repository.write(case.file, &text)?;
        world.repository.commit_and_push(case.name)?;
        let context = || format!("case: {}", case.name);
        let message = world.until_told("app", case.words).await.with_context(context)?;
        println!("{}: {message}", case.name);
        world.until_event("app", case.words).await.with_context(context)?;
        world.log().line_with(case.words, PATIENCE).await.with_context(context)?;
        let now = maps.get("app").await?;
        ensure!(
            now.data == good.data && now.metadata.resource_version == good.metadata.resource_version,
            "{}",
            case.name
        );

        // Another environment of the same repository goes on.
        let other = world.repository.read("other/config.yaml")?;
        world.repository.write("other/config.yaml", &format!("{other}  number{number}: \"{number}\"\n"))?;
        let commit = world.repository.commit_and_push("Change other")?;
        world.until_ready("other", &commit.id).await.with_context(context)?;

        world.repository.remove(case.file)?;
        world.repository.write("app/config.yaml", &config)?;
        world.repository.commit_and_push("Fix app")?;
        world.until_well("app").await.with_context(context)?;
    }
    world.stop().await;
    Ok(())
}

pub async fn an_environment_without_rights_writes_nothing(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let mut object = world.small_environment("app");
    object["spec"]["serviceAccountName"] = json!("nobody");
    playground::environment::apply(world.client(), &object).await?;
    let words = ["nobody", "forbidden"];
    let message = world.until_told("app", &words).await?;
    println!("{message}");
    world.until_event("app", &words).await?;
    world.log().line_with(&words, PATIENCE).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("app"));
    ensure!(maps.get_opt("app").await?.is_none());
    world.stop().await;
    Ok(())
}

pub async fn a_policy_keeps_a_release_out(site: Site) -> anyhow::Result<()> {
    let world = World::with_shop(&site).await?;
    let _traffic = world.deploy_shop().await?;
    world.repository.edit(shop::KUSTOMIZATION, |text| {
        let version = shop::version(text).ok_or("no version")?;
        Ok(text.replace(&format!("newTag: {version}"), "newTag: latest"))
    })?;
    world.repository.commit_and_push("Always the newest")?;
    let message = world.until_told(shop::NAME, &["latest", shop::DEPLOYMENT]).await?;
    println!("{message}");
    world.stop().await;
    Ok(())
}

pub async fn a_specification_that_makes_no_sense_is_refused_at_the_door(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let mut object = world.small_environment("app");
    object["spec"]["source"]["interval"] = json!("soon");
    let params = PatchParams::apply("test");
    let refused = world.environments().patch("app", &params, &Patch::Apply(&object)).await;
    let error = refused.err().context("the API server refuses it")?;
    ensure!(error.to_string().contains("interval"), "{error}");
    world.stop().await;
    Ok(())
}
