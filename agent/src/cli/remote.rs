//! Commands that ask a running agent for something, through the Kubernetes API: so Kubernetes' own access
//! rules and audit cover them.

use std::process::ExitCode;

use clap::Args;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{ClusterArgs, Output};
use crate::api::{Environment, annotation};

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Name of the Environment
    name: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Digest of the bundle; otherwise the one that waits now
    digest: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Name of the Environment; all of the namespace otherwise
    name: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

pub(super) async fn environments(cluster: &ClusterArgs) -> anyhow::Result<Api<Environment>> {
    let client = crate::cluster::client(cluster.kubeconfig.as_deref()).await?;
    Ok(Api::namespaced(client, &cluster.namespace))
}

fn patch(target: &TargetArgs, patch: serde_json::Value, done: &str) -> anyhow::Result<ExitCode> {
    block_on(async {
        let api = environments(&target.cluster).await?;
        let params = PatchParams { field_manager: Some("holdfast-cli".to_owned()), ..PatchParams::default() };
        api.patch(&target.name, &params, &Patch::Merge(patch)).await?;
        println!("environment/{} {done}", target.name);
        Ok(ExitCode::SUCCESS)
    })
}

fn annotate(target: &TargetArgs, key: &str, value: &str, done: &str) -> anyhow::Result<ExitCode> {
    patch(target, json!({"metadata": {"annotations": {key: value}}}), done)
}

fn request(target: &TargetArgs, key: &str, done: &str) -> anyhow::Result<ExitCode> {
    annotate(target, key, &jiff::Timestamp::now().to_string(), done)
}

pub(super) fn sync(args: TargetArgs) -> anyhow::Result<ExitCode> {
    request(&args, annotation::RECONCILE, "asked to reconcile")
}

pub(super) fn retry(args: TargetArgs) -> anyhow::Result<ExitCode> {
    request(&args, annotation::RETRY, "asked to retry")
}

pub(super) fn rollback(args: TargetArgs) -> anyhow::Result<ExitCode> {
    request(&args, annotation::ROLLBACK, "asked to roll back")
}

pub(super) fn suspend(args: TargetArgs, suspend: bool) -> anyhow::Result<ExitCode> {
    patch(&args, json!({"spec": {"suspend": suspend}}), if suspend { "suspended" } else { "resumed" })
}

pub(super) fn approve(args: ApproveArgs) -> anyhow::Result<ExitCode> {
    let digest = match args.digest {
        Some(digest) => digest,
        None => block_on(async {
            let environment = environments(&args.target.cluster).await?.get(&args.target.name).await?;
            let rollout = environment.status.map(|status| status.rollout()).transpose()?.flatten();
            rollout
                .and_then(|rollout| rollout.held)
                .map(|held| held.release.digest.to_string())
                .ok_or_else(|| anyhow::anyhow!("environment/{} has no release that waits", args.target.name))
        })?,
    };
    digest.parse::<engine::object::Digest>()?;
    let once = format!("{digest}@{}", jiff::Timestamp::now());
    annotate(&args.target, annotation::APPROVE, &once, &format!("approved {digest}"))
}

pub(super) fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let api = environments(&args.cluster).await?;
        let items = match &args.name {
            Some(name) => vec![api.get(name).await?],
            None => api.list(&ListParams::default()).await?.items,
        };
        match args.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&items)?),
            Output::Yaml => {
                for item in &items {
                    println!("---\n{}", engine::object::yaml::write(&serde_json::to_value(item)?));
                }
            }
            Output::Table if items.is_empty() => {
                println!("No Environments in namespace {}.", args.cluster.namespace);
            }
            Output::Table => print!("{}", table(&items)),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(items: &[Environment]) -> String {
    let mut rows = vec![["NAME", "READY", "PHASE", "REVISION", "MESSAGE"].map(str::to_owned)];
    for item in items {
        let status = item.status.clone().unwrap_or_default();
        rows.push([
            item.metadata.name.clone().unwrap_or_default(),
            status.condition("Ready").map_or("Unknown".to_owned(), |ready| ready.status.clone()),
            status.phase.unwrap_or_default(),
            status.revision.unwrap_or_default(),
            status.message.unwrap_or_default(),
        ]);
    }
    super::table(&rows)
}
