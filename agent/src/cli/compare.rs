//! `holdfast diff`: what deploying a folder would change, as the API server says it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use engine::object::Confidential;

use super::ClusterArgs;
use super::local::HowArgs;
use crate::api::Environment;
use crate::cluster::Cluster;
use crate::reconcile::{Desired, Materials, Supplies};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Name of the Environment
    name: String,
    /// Folder of the kustomization
    path: PathBuf,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn diff(args: DiffArgs) -> anyhow::Result<ExitCode> {
    super::remote::block_on(async {
        let environment = super::remote::environments(&args.cluster).await?.get(&args.name).await?;
        let cluster = Cluster::connect(args.cluster.kubeconfig.as_deref()).await?;
        let rendered = args.how.render(&args.path, &materials(&cluster, &environment, &args.how).await?)?;
        let (bundle, mut confidential) = (rendered.bundle()?, rendered.confidential);
        confidential.extend(&Confidential::of_secrets(bundle.objects()));
        let desired = Desired::prepare(&cluster, &environment, &bundle, None).await?;
        let (mut changed, mut failed) = (0, 0);
        for object in &desired.objects {
            match cluster.preview(&environment, object).await {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    changed += 1;
                    println!("{}", object.object_ref());
                    for change in changes {
                        println!("    {}", confidential.mask(&change.to_string()));
                    }
                }
                Err(error) => {
                    failed += 1;
                    println!("{}\n    ! {}", object.object_ref(), confidential.mask(&error.to_string()));
                }
            }
        }
        println!("{changed} of {} objects would change", desired.objects.len());
        anyhow::ensure!(failed == 0, "{failed} objects cannot be applied");
        Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// What the agent would render with, as far as this user may read it; keys of this machine and variables of
/// the command line win.
async fn materials(cluster: &Cluster, environment: &Environment, how: &HowArgs) -> anyhow::Result<Materials> {
    let mut materials = how.materials()?;
    let mut spec = environment.spec.clone();
    if materials.keys.is_some() {
        spec.decryption = None;
    }
    let mut supplies = Supplies::follow(cluster, &Environment { spec: spec.clone(), ..environment.clone() });
    let supplied = loop {
        match supplies.materials(&spec).map_err(|problem| anyhow::anyhow!(problem.message))? {
            Some(supplied) => break supplied,
            None => supplies.changed().await,
        }
    };
    materials.keys = materials.keys.or(supplied.keys);
    materials.variables = supplied.variables;
    how.set_variables(&mut materials)?;
    Ok(materials)
}
