//! The other workloads: StatefulSets, DaemonSets, Jobs.

use crate::harness::Cluster;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

fn template(app: &str, version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [{
            "name": "main", "image": format!("shop:{version}"),
            "readinessProbe": {"httpGet": {"path": "/", "port": 5000}},
        }]},
    })
}

fn stateful_set(version: &str, replicas: i32) -> Value {
    json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", version),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    })
}

async fn rolled(cluster: &Cluster, replicas: i32) -> StatefulSet {
    let api = cluster.api::<StatefulSet>();
    cluster
        .until("the StatefulSet arrives", || async {
            let set = api.get("db").await.unwrap();
            let status = set.status.clone().unwrap_or_default();
            let arrived = status.observed_generation == set.metadata.generation
                && status.replicas == replicas
                && status.available_replicas == Some(replicas)
                && status.updated_replicas == Some(replicas)
                && status.current_revision == status.update_revision;
            (arrived.then_some(set), status)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_pods_keep_their_names_and_claims() {
    let cluster = Cluster::start("stateful").await;
    cluster.apply::<StatefulSet>(stateful_set("v1", 2)).await;
    rolled(&cluster, 2).await;
    let names = async || -> Vec<String> {
        cluster.pods("app=db").await.into_iter().filter_map(|pod| pod.metadata.name).collect()
    };
    assert_eq!(names().await, ["db-0", "db-1"]);
    let claims = cluster.api::<PersistentVolumeClaim>();
    let bound = || async {
        let all = claims.list(&ListParams::default()).await.unwrap().items;
        let names: Vec<_> = all
            .iter()
            .filter(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
            .filter_map(|claim| claim.metadata.name.clone())
            .collect();
        ((names == ["data-db-0", "data-db-1"]).then_some(()), names)
    };
    cluster.until("the claims are bound", bound).await;
    cluster.apply::<StatefulSet>(stateful_set("v2", 2)).await;
    rolled(&cluster, 2).await;
    cluster.apply::<StatefulSet>(stateful_set("v2", 1)).await;
    rolled(&cluster, 1).await;
    assert_eq!(names().await, ["db-0"]);
    cluster.until("claims outlive their pods", bound).await;
    claims.delete("data-db-1", &DeleteParams::default()).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    cluster
        .until("the claim's volume goes", || async {
            let left = volumes.list(&ListParams::default()).await.unwrap().items.len();
            ((left == 1).then_some(()), left)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_and_daemons_cover_the_nodes() {
    let cluster = Cluster::start("jobs").await;
    let job = |name: &str, script: &str| {
        json!({"metadata": {"name": name}, "spec": {"completions": 2, "parallelism": 2, "backoffLimit": 1,
            "template": {"spec": {"restartPolicy": "Never", "containers":
                [{"name": "main", "image": "once:1", "args": ["-c", script]}]}}}})
    };
    cluster.apply::<Job>(job("good", "exit 0")).await;
    cluster.apply::<Job>(job("bad", "exit 1")).await;
    cluster
        .apply::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "v1")}}))
        .await;
    let jobs = cluster.api::<Job>();
    for (name, kind) in [("good", "Complete"), ("bad", "Failed")] {
        cluster
            .until("the job ends", || async {
                let status = jobs.get(name).await.unwrap().status.unwrap_or_default();
                let ended = status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
                (ended.then_some(()), status)
            })
            .await;
    }
    assert_eq!(jobs.get("good").await.unwrap().status.unwrap().succeeded, Some(2));
    let sets = cluster.api::<DaemonSet>();
    cluster
        .until("the daemon is ready", || async {
            let status = sets.get("agent").await.unwrap().status.unwrap_or_default();
            let ready = (status.desired_number_scheduled, status.number_ready) == (1, 1);
            (ready.then_some(()), status)
        })
        .await;
    let daemon = cluster.pods("app=agent").await.remove(0);
    assert_eq!(daemon.spec.unwrap().node_name.as_deref(), Some("playground"));
    jobs.delete("good", &DeleteParams::background()).await.unwrap();
    cluster
        .until("the job's pods go", || async {
            let all =
                cluster.api::<Pod>().list(&ListParams::default().labels("job-name=good")).await.unwrap();
            (all.items.is_empty().then_some(()), all.items.len())
        })
        .await;
    cluster.stop().await;
}
