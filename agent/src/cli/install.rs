//! `holdfast install`: the manifests, for `kubectl apply` or for Git.

use std::process::ExitCode;

use clap::Args;
use engine::object::yaml;

use crate::api;

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// Only the CustomResourceDefinition
    #[arg(long)]
    crds: bool,
    /// Image of the agent
    #[arg(long, default_value = concat!("ghcr.io/dhakacart/holdfast:v", env!("CARGO_PKG_VERSION")))]
    image: String,
}

pub(super) fn run(args: InstallArgs) -> anyhow::Result<ExitCode> {
    let objects = if args.crds {
        vec![serde_json::to_value(api::crd())?]
    } else {
        api::install::manifests(&args.image)?
    };
    print!("{}", yaml::write_documents(objects.iter()));
    Ok(ExitCode::SUCCESS)
}
