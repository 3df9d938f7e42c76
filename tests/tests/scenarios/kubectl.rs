//! A stock kubectl, as the person on call uses it.

use anyhow::ensure;
use tests::{Kubectl, Options, Site, World, skipped};

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mine\ndata:\n  a: \"1\"\n";

pub async fn kubectl_reads_writes_and_waits(site: Site) -> anyhow::Result<()> {
    let world = World::with_folders(&site, &["app"], Options::default()).await?;
    let Some(kubectl) = world.kubectl() else {
        skipped("kubectl", "no kubectl on PATH");
        return Ok(());
    };
    let object = world.small_environment("app");
    let manifest = serde_json::to_string(&object)?;
    let said = kubectl.run_with(&["apply", "--server-side", "-f", "-"], Some(&manifest)).await?;
    ensure!(said.contains("environment.holdfast.dev/app serverside-applied"), "{said}");
    let said = kubectl
        .run(&[
            "-n",
            &world.namespace("holdfast-system"),
            "wait",
            "--for=condition=Ready",
            "environment/app",
            "--timeout=60s",
        ])
        .await?;
    ensure!(said.contains("condition met"), "{said}");
    reads(&world, &kubectl).await?;
    writes(&world, &kubectl).await?;
    world.stop().await;
    Ok(())
}

async fn reads(world: &World, kubectl: &Kubectl) -> anyhow::Result<()> {
    let table = kubectl.run(&["get", "environments", "-A"]).await?;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(header == ["NAMESPACE", "NAME", "READY", "REVISION", "PHASE", "AGE", "MESSAGE"], "{table}");
    let tip = world.repository.tip()?;
    ensure!(table.contains(&tip.id[..12]) && table.contains("Settled"), "{table}");
    ensure!(
        kubectl
            .run(&["get", "env", "-n", &world.namespace("holdfast-system"), "-o", "name"])
            .await?
            .contains("environment.holdfast.dev/app")
    );

    let described =
        kubectl.run(&["-n", &world.namespace("holdfast-system"), "describe", "environment", "app"]).await?;
    for word in ["Kind:", "Conditions:", "Ready", "Events:"] {
        ensure!(described.contains(word), "{word} is missing:\n{described}");
    }
    let pods = kubectl.run(&["get", "pods", "-A"]).await;
    ensure!(pods.is_ok(), "{pods:?}");
    let map = kubectl
        .run(&["-n", &world.namespace("app"), "get", "configmap", "app", "-o", "jsonpath={.data.value}"])
        .await?;
    ensure!(map == "1", "{map}");
    Ok(())
}

async fn writes(world: &World, kubectl: &Kubectl) -> anyhow::Result<()> {
    let namespace = world.namespace("app");
    kubectl.run_with(&["-n", &namespace, "apply", "--server-side", "-f", "-"], Some(CONFIG)).await?;
    let same = kubectl.say(&["-n", &namespace, "diff", "--server-side", "-f", "-"], Some(CONFIG)).await?;
    ensure!(same.code == 0, "no difference: {same:?}");
    let changed = CONFIG.replace("\"1\"", "\"2\"");
    let different =
        kubectl.say(&["-n", &namespace, "diff", "--server-side", "-f", "-"], Some(&changed)).await?;
    ensure!(different.code == 1 && different.out.contains("+  a: \"2\""), "{different:?}");
    kubectl.run(&["-n", &namespace, "delete", "configmap", "mine"]).await?;
    let gone = kubectl.say(&["-n", &namespace, "get", "configmap", "mine"], None).await?;
    ensure!(gone.code == 1 && gone.err.contains("NotFound"), "{gone:?}");
    Ok(())
}
