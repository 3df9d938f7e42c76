//! Commands that need no cluster: what a folder renders to, and whether policies allow it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use engine::kustomize::render as render_tree;
use engine::object::{Bundle, yaml};
use engine::policy::Action;

use super::Output;
use crate::source::DirTree;

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    /// Folder of the kustomization, or a plain folder of manifests
    path: PathBuf,
    /// Folder that nothing may be read outside of; otherwise the Git work tree around PATH, or PATH
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Folders of kustomizations
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Folder of the policies
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Folder that nothing may be read outside of; otherwise the Git work tree around each path
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// The tree that a folder is in, and the folder's path in it.
pub(super) fn tree(path: &Path, root: Option<&Path>) -> anyhow::Result<(DirTree, String)> {
    let path = path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))?;
    let root = match root {
        Some(root) => root.canonicalize().with_context(|| format!("{} cannot be read", root.display()))?,
        None => path.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&path).to_owned(),
    };
    let inside = path
        .strip_prefix(&root)
        .with_context(|| format!("{} lies outside of {}", path.display(), root.display()))?;
    let inside = inside.to_str().context("the path is not UTF-8 text")?;
    let inside = if inside.is_empty() { "." } else { inside }.to_owned();
    Ok((DirTree::scan(&root, None)?, inside))
}

pub(super) fn render(args: RenderArgs) -> anyhow::Result<ExitCode> {
    let (tree, path) = tree(&args.path, args.root.as_deref())?;
    let rendered = render_tree(&tree, &path)?;
    let bundle = Bundle::new(rendered.objects)?;
    let objects = bundle.objects();
    match args.output {
        Output::Yaml => print!("{}", yaml::write_documents(objects.iter().map(|object| object.value()))),
        Output::Json => println!("{}", serde_json::to_string_pretty(objects)?),
        Output::Table => {
            for object in objects {
                println!("{}", object.object_ref());
            }
            println!("{} objects, {}", objects.len(), bundle.digest());
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let policies = match &args.policies {
        Some(folder) => {
            let (tree, path) = tree(folder, args.root.as_deref())?;
            let (policies, _) = crate::reconcile::read_policies(&tree, &path)
                .map_err(|problem| anyhow::anyhow!(problem.message))?;
            policies
        }
        None => engine::policy::PolicySet::default(),
    };
    let mut wrong = 0;
    for folder in &args.paths {
        let shown = folder.display();
        let bundle = tree(folder, args.root.as_deref()).and_then(|(tree, path)| {
            let rendered = render_tree(&tree, &path)?;
            Ok(Bundle::new(rendered.objects)?)
        });
        match bundle {
            Err(error) => {
                wrong += 1;
                println!("{shown}: FAILED: {error:#}");
            }
            Ok(bundle) => {
                let violations = crate::reconcile::violations(&policies, &bundle, &|_| None);
                let denied = violations.iter().filter(|violation| violation.action == Action::Deny).count();
                for violation in &violations {
                    println!("{shown}: {violation}");
                }
                wrong += denied;
                if denied == 0 {
                    println!("{shown}: ok, {} objects, {}", bundle.objects().len(), bundle.digest());
                }
            }
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
