//! A stock kubectl against the embedded cluster.

use anyhow::ensure;
use tests::{Kubectl, Options, World, skipped, small_environment};

const CONFIG: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mine\n  namespace: default\ndata:\n  a: \"1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_writes_and_waits() -> anyhow::Result<()> {
    let world = World::with_folders(&["app"], Options::default()).await?;
    let Some(kubectl) = world.kubectl() else {
        skipped("kubectl", "no kubectl on PATH");
        return Ok(());
    };
    let object = small_environment("app", &world.repository.url());
    let manifest = serde_json::to_string(&object)?;
    let said = kubectl.run_with(&["apply", "--server-side", "-f", "-"], Some(&manifest)).await?;
    ensure!(said.contains("environment.holdfast.dev/app serverside-applied"), "{said}");
    let said = kubectl
        .run(&["-n", "holdfast-system", "wait", "--for=condition=Ready", "environment/app", "--timeout=60s"])
        .await?;
    ensure!(said.contains("condition met"), "{said}");
    reads(&world, &kubectl).await?;
    writes(&kubectl).await?;
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
            .run(&["get", "env", "-n", "holdfast-system", "-o", "name"])
            .await?
            .contains("environment.holdfast.dev/app")
    );

    let described = kubectl.run(&["-n", "holdfast-system", "describe", "environment", "app"]).await?;
    for word in ["Kind:", "Conditions:", "Ready", "Events:"] {
        ensure!(described.contains(word), "{word} is missing:\n{described}");
    }
    let pods = kubectl.run(&["get", "pods", "-A"]).await;
    ensure!(pods.is_ok(), "{pods:?}");
    let map = kubectl.run(&["-n", "app", "get", "configmap", "app", "-o", "jsonpath={.data.value}"]).await?;
    ensure!(map == "1", "{map}");
    Ok(())
}

async fn writes(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run_with(&["apply", "--server-side", "-f", "-"], Some(CONFIG)).await?;
    let same = kubectl.say(&["diff", "--server-side", "-f", "-"], Some(CONFIG)).await?;
    ensure!(same.code == 0, "no difference: {same:?}");
    let changed = CONFIG.replace("\"1\"", "\"2\"");
    let different = kubectl.say(&["diff", "--server-side", "-f", "-"], Some(&changed)).await?;
    ensure!(different.code == 1 && different.out.contains("+  a: \"2\""), "{different:?}");
    kubectl.run(&["delete", "configmap", "mine"]).await?;
    let gone = kubectl.say(&["get", "configmap", "mine"], None).await?;
    ensure!(gone.code == 1 && gone.err.contains("NotFound"), "{gone:?}");
    Ok(())
}
