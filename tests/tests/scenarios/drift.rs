//! Changes behind the agent's back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use playground::watch::{self, Check};
use serde_json::json;
use tests::{Options, Site, World};

const PATIENCE: Duration = Duration::from_secs(20);

fn value(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("value").map(String::as_str)
}

async fn until_value(
    maps: &Api<ConfigMap>,
    wanted: &str,
    not_uid: Option<&str>,
) -> anyhow::Result<ConfigMap> {
    let expected = format!("ConfigMap app with value {wanted}");
    let map = watch::until_one(maps, "app", expected, PATIENCE, |seen| match seen {
        Some(map) if value(map) == Some(wanted) && map.metadata.uid.as_deref() != not_uid => {
            Check::Met(map.clone())
        }
        seen => Check::Not(format!("{:?}", seen.and_then(|map| map.data.clone()))),
    })
    .await?;
    Ok(map)
}

pub async fn what_the_environment_owns_comes_back_and_nothing_else(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let object = world.small_environment("app");
    playground::environment::apply(world.client(), &object).await?;
    world.until_ready("app", &world.repository.tip()?.id).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("app"));

    let by_hand = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    // A key of somebody else's is none of the environment's business.
    maps.patch("app", &by_hand, &Patch::Merge(json!({"data": {"foreign": "kept"}}))).await?;
    maps.patch("app", &by_hand, &Patch::Merge(json!({"data": {"value": "edited"}}))).await?;
    let begin = Instant::now();
    let map = until_value(&maps, "1", None).await?;
    println!("edited field corrected after {}", tests::took(begin));
    ensure!(map.data.as_ref().and_then(|data| data.get("foreign")).map(String::as_str) == Some("kept"));

    maps.delete("app", &DeleteParams::default()).await?;
    let begin = Instant::now();
    until_value(&maps, "1", map.metadata.uid.as_deref()).await?;
    println!("deleted object corrected after {}", tests::took(begin));
    world.until_event("app", &["app"]).await?;
    world.stop().await;
    Ok(())
}

pub async fn drift_is_left_alone_where_only_a_report_is_asked_for(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let mut object = world.small_environment("app");
    object["spec"]["drift"] = json!("Report");
    playground::environment::apply(world.client(), &object).await?;
    world.until_ready("app", &world.repository.tip()?.id).await?;
    let maps: Api<ConfigMap> = Api::namespaced(world.client().clone(), &world.namespace("app"));
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    maps.patch("app", &by_hand, &Patch::Merge(json!({"data": {"value": "edited"}}))).await?;
    world.until_event("app", &["ConfigMap", "app"]).await?;
    ensure!(value(&maps.get("app").await?) == Some("edited"));
    world.stop().await;
    Ok(())
}
