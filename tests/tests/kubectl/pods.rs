//! What needs a node: logs, usage, rollouts that are waited for, drains.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::harness::{Ground, IMAGE, Shell};

/// A ground with a node and a namespace on it; none where pods do not run or there is no kubectl.
pub async fn begin(namespace: &str) -> anyhow::Result<Option<(Ground, Shell)>> {
    let ground = Ground::start().await?;
    if !ground.runs_pods() {
        tests::skipped("kubectl with pods", "the given cluster may have no node");
        return Ok(None);
    }
    match Shell::open(ground.kubeconfig(), namespace).await? {
        Some(shell) => Ok(Some((ground, shell))),
        None => {
            tests::skipped("kubectl", "no kubectl on PATH");
            Ok(None)
        }
    }
}

/// A pod that runs a shell script.
pub fn pod(name: &str, labels: &str, script: &str) -> String {
    let script = script.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    \
         command: [/bin/sh, -c, \"{script}\"]\n---\n"
    )
}

/// A Deployment of such pods.
fn deployment(name: &str, replicas: u32, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: \
         {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: {IMAGE}\n        command: \
         [/bin/sh, -c, \"echo version {version}; exec sleep 1000\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_shown_in_every_way() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("logs").await? else { return Ok(()) };
    let talks = "echo one; echo two >&2; echo three; exec sleep 1000";
    let dies = "echo last words; exit 3";
    shell.write("pods.yaml", &(pod("talks", "app: a", talks) + &pod("dies", "app: a", dies)))?;
    shell.expect("kubectl apply -f pods.yaml").await?;
    shell.expect("kubectl wait pod/talks --for=condition=Ready --timeout=60s").await?;
    let mut follow = shell.start("kubectl logs -f talks")?;
    follow.line_with("three").await?;
    ensure!(shell.expect("kubectl logs talks").await? == "one\ntwo\nthree\n");
    ensure!(shell.expect("kubectl logs talks --tail=1").await? == "three\n");
    ensure!(shell.expect("kubectl logs talks --limit-bytes=5").await? == "one\nt");
    ensure!(shell.expect("kubectl logs talks --since=1h --tail=2").await? == "two\nthree\n");
    ensure!(shell.expect("kubectl logs talks --since-time=2999-01-01T00:00:00Z").await?.is_empty());
    let stamped = shell.expect("kubectl logs talks --timestamps --tail=1").await?;
    let (time, text) = stamped.split_once(' ').unwrap();
    ensure!(time.parse::<jiff::Timestamp>().is_ok() && text == "three\n", "{stamped}");

    shell.expect("kubectl wait pod/dies --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 --timeout=60s").await?;
    ensure!(shell.expect("kubectl logs dies --previous").await? == "last words\n");
    let both = shell.expect("kubectl logs -l app=a --prefix --tail=1").await?;
    ensure!(both.contains("[pod/talks/main] three") && both.contains("[pod/dies/main] last words"), "{both}");
    let (code, said) = shell.say("kubectl logs talks --previous").await?;
    let expected = "previous terminated container \"main\" in pod \"talks\" not found";
    ensure!(code == 1 && said.contains(expected), "{said}");
    let (code, said) = shell.say("kubectl logs talks -c nosuch").await?;
    ensure!(code == 1 && said.contains("container nosuch is not valid for pod talks"), "{said}");
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_what_does_not_start_says_why() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("waiting").await? else { return Ok(()) };
    shell.expect("kubectl run lost --image=registry.example.com/no-such-image:1").await?;
    let waits = "kubectl wait pod/lost --timeout=60s \
                 --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=ImagePullBackOff";
    shell.expect(waits).await?;
    let (code, said) = shell.say("kubectl logs lost").await?;
    let expected = "container \"lost\" in pod \"lost\" is waiting to start: trying and failing to pull image";
    ensure!(code == 1 && said.contains(expected), "{said}");
    let table = shell.expect("kubectl get pod lost").await?;
    ensure!(table.contains("ImagePullBackOff") && table.contains("0/1"), "{table}");
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_waited_for_watched_and_undone() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("rollouts").await? else { return Ok(()) };
    shell.write("web.yaml", &deployment("web", 2, "1"))?;
    shell.expect("kubectl apply -f web.yaml").await?;
    let mut watch = shell.start("kubectl get deployment web -w --no-headers")?;
    let status = shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;
    ensure!(status.ends_with("deployment \"web\" successfully rolled out\n"), "{status}");
    watch.line_with("2/2").await?;
    shell.write("web.yaml", &deployment("web", 2, "2"))?;
    shell.expect("kubectl apply -f web.yaml").await?;
    shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;
    let said = shell.expect("kubectl logs deployment/web").await?;
    ensure!(said.ends_with("version 2\n"), "{said}");
    let undone = shell.expect("kubectl rollout undo deployment/web").await?;
    ensure!(undone.ends_with("deployment.apps/web rolled back\n"), "{undone}");
    shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;
    let said = shell.expect("kubectl logs -l app=web --tail=1 --prefix=false").await?;
    ensure!(said.lines().filter(|line| *line == "version 1").count() >= 2, "{said}");
    shell.expect("kubectl rollout restart deployment/web").await?;
    shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;

    shell.expect("kubectl scale deployment/web --replicas=0 --timeout=60s").await?;
    shell.expect("kubectl wait pod -l app=web --for=delete --timeout=60s").await?;
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_shown_per_pod_and_node() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("usage").await? else { return Ok(()) };
    shell.write("pod.yaml", &pod("sleeps", "app: a", "exec sleep 1000"))?;
    shell.expect("kubectl apply -f pod.yaml").await?;
    shell.expect("kubectl wait pod/sleeps --for=condition=Ready --timeout=60s").await?;
    // metrics-server measures every fifteen seconds; so does the node.
    let end = Instant::now() + Duration::from_secs(90);
    let table = loop {
        let (code, said) = shell.say("kubectl top pods").await?;
        if code == 0 && said.contains("sleeps") {
            break said;
        }
        ensure!(Instant::now() < end, "no usage after 90 s: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(header == ["NAME", "CPU(cores)", "MEMORY(bytes)"], "{table}");
    let nodes = shell.expect("kubectl top nodes").await?;
    ensure!(nodes.contains("playground") && nodes.contains("CPU(%)"), "{nodes}");
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_respects_disruption_budgets() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("drains").await? else { return Ok(()) };
    shell.write("web.yaml", &deployment("web", 2, "1"))?;
    shell.expect("kubectl apply -f web.yaml").await?;
    shell.expect("kubectl create poddisruptionbudget web --selector=app=web --min-available=2").await?;
    shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;
    shell.expect("kubectl taint nodes playground maintenance=soon:PreferNoSchedule").await?;
    let cordoned = shell.expect("kubectl cordon playground").await?;
    ensure!(cordoned == "node/playground cordoned\n", "{cordoned}");
    let node = shell.expect("kubectl get nodes").await?;
    ensure!(node.contains("Ready,SchedulingDisabled"), "{node}");
    let drain = "kubectl drain playground --pod-selector=app=web --timeout=3s";
    let (code, said) = shell.say(drain).await?;
    let expected = "Cannot evict pod as it would violate the pod's disruption budget.";
    ensure!(code == 1 && said.contains(expected), "{said}");
    shell
        .expect("kubectl patch poddisruptionbudget web --type=merge -p '{\"spec\":{\"minAvailable\":0}}'")
        .await?;
    let said = shell.expect("kubectl drain playground --pod-selector=app=web --timeout=60s").await?;
    ensure!(said.contains("node/playground drained"), "{said}");
    let pods = shell.expect("kubectl get pods -l app=web --no-headers").await?;
    ensure!(pods.lines().all(|line| line.contains("Pending")), "{pods}");
    shell.expect("kubectl uncordon playground").await?;
    shell.expect("kubectl rollout status deployment/web --timeout=60s").await?;
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_finds_the_api_server_as_in_a_real_cluster() -> anyhow::Result<()> {
    let Some((ground, shell)) = begin("inside").await? else { return Ok(()) };
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let volume = "  volumes:\n  - name: api\n    projected:\n      sources:\n      - serviceAccountToken: {path: token}\n      \
                  - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}\n      - downwardAPI: {items: \
                  [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}\n";
    let mount = format!("    volumeMounts: [{{name: api, mountPath: {folder}}}]\n");
    let manifest = pod("target", "app: a", "exec sleep 1000").replace("---\n", &(mount + volume));
    shell.write("pod.yaml", &manifest)?;
    shell.expect("kubectl apply -f pod.yaml").await?;
    shell.expect("kubectl wait pod/target --for=condition=Ready --timeout=60s").await?;
    for file in ["token", "ca.crt", "namespace"] {
        shell.expect(&format!("kubectl exec target -- cat {folder}/{file} >{file}")).await?;
    }
    ensure!(shell.expect("cat namespace").await? == "inside");
    let address =
        "kubectl exec target -- sh -c 'echo https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT'";
    let address = shell.expect(address).await?.trim().to_owned();
    ensure!(address.ends_with(":443"), "{address}");
    let own = format!(
        "command \"$KUBECTL\" --kubeconfig /dev/null --server={address} --certificate-authority=ca.crt \
         --token=\"$(cat token)\""
    );
    let (code, said) =
        shell.say(&format!("{own} auth whoami -o jsonpath='{{.status.userInfo.username}}'")).await?;
    if said.contains("connection refused") {
        tests::skipped("the Service kubernetes", "this user may not listen on port 443");
        return Ok(());
    }
    ensure!(code == 0 && said == "system:serviceaccount:inside:default", "{said}");
    let (code, said) = shell.say(&format!("{own} --namespace inside get pods")).await?;
    ensure!(code == 1 && said.contains("cannot list resource \"pods\""), "{said}");
    // Nobody else's certificate will do.
    let (code, said) =
        shell.say(&own.replace("--certificate-authority=ca.crt", "get --raw /healthz")).await?;
    ensure!(code == 1 && said.contains("certificate"), "{said}");
    ground.stop().await;
    Ok(())
}
