//! `holdfast diff`: what deploying a folder would change, as the API server says it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use engine::kustomize::render;
use engine::object::Bundle;

use super::ClusterArgs;
use crate::cluster::Cluster;
use crate::reconcile::Desired;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Name of the Environment
    name: String,
    /// Folder of the kustomization
    path: PathBuf,
    /// Folder that nothing may be read outside of; otherwise the Git work tree around PATH, or PATH
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn diff(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let (tree, path) = super::local::tree(&args.path, args.root.as_deref())?;
    let bundle = Bundle::new(render(&tree, &path)?.objects)?;
    super::remote::block_on(async {
        let environment = super::remote::environments(&args.cluster).await?.get(&args.name).await?;
        let cluster = Cluster::connect(args.cluster.kubeconfig.as_deref()).await?;
        let desired = Desired::prepare(&cluster, &environment, &bundle, None).await?;
        let (mut changed, mut failed) = (0, 0);
        for object in &desired.objects {
            match cluster.preview(&environment, object).await {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    changed += 1;
                    println!("{}", object.object_ref());
                    for change in changes {
                        println!("    {change}");
                    }
                }
                Err(error) => {
                    failed += 1;
                    println!("{}\n    ! {error}", object.object_ref());
                }
            }
        }
        println!("{changed} of {} objects would change", desired.objects.len());
        anyhow::ensure!(failed == 0, "{failed} objects cannot be applied");
        Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
