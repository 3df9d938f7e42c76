//! CronJobs.

use crate::harness::Cluster;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::ListParams;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_starts_jobs_again_and_again() {
    let cluster = Cluster::start("cron").await;
    cluster
        .apply::<CronJob>(json!({
            "metadata": {"name": "often"},
            "spec": {"schedule": "@every 1s", "successfulJobsHistoryLimit": 0, "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "once"}]}}}}},
        }))
        .await;
    let (cron_jobs, jobs) = (cluster.api::<CronJob>(), cluster.api::<Job>());
    cluster
        .until("a job has run and was removed", || async {
            let status = cron_jobs.get("often").await.unwrap().status.unwrap_or_default();
            let left = jobs.list(&ListParams::default()).await.unwrap().items;
            let done = status.last_successful_time.is_some() && status.last_schedule_time.is_some();
            ((done && left.is_empty()).then_some(()), (status, left.len()))
        })
        .await;
    cluster.stop().await;
}
