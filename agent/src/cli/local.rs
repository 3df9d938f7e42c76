//! Commands that need no cluster: what a folder renders to, and whether policies allow it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use engine::kustomize::{Options as RenderOptions, Rendered, render_as};
use engine::object::{Confidential, yaml};
use engine::policy::Action;
use engine::sops::KeyRing;
use engine::substitute::substitute;

use super::Output;
use super::explain::{self, Wanted};
use crate::age::AgeKeys;
use crate::reconcile::Materials;
use crate::source::DirTree;

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    /// Folder of the kustomization, or a plain folder of manifests
    path: PathBuf,
    #[command(flatten)]
    how: HowArgs,
    /// How to print: objects as YAML or as a List in JSON, or a table of their names
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
    /// Tell which files and settings made an object what it is, such as deployment/web or deployment.apps/web
    #[arg(long, value_name = "OBJECT")]
    explain: Option<Wanted>,
    /// Namespace of the object to explain
    #[arg(short, long, requires = "explain")]
    namespace: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Folders of kustomizations
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Folder of the policies
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a folder is rendered on this machine. Encrypted files are opened with the keys that sops would take:
/// from SOPS_AGE_KEY, SOPS_AGE_KEY_FILE and the user's sops/age/keys.txt.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Folder that nothing may be read outside of; otherwise the Git work tree around each path
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Put VALUE where ${NAME} stands in the rendered objects, as spec.substitute.vars does; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(super) substitute: Vec<(String, String)>,
    /// Leave encrypted values as they are: for checks where no key is at hand
    #[arg(long)]
    pub(super) keep_encrypted: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write NAME=VALUE".to_owned()),
    }
}

impl HowArgs {
    /// The keys of this machine, and the variables of the command line.
    pub(super) fn materials(&self) -> anyhow::Result<Materials> {
        let keys = match self.keep_encrypted {
            true => None,
            false => AgeKeys::from_environment(|name| std::env::var(name).ok())?,
        };
        let mut materials = Materials { keys, variables: None };
        self.set_variables(&mut materials)?;
        Ok(materials)
    }

    /// Sets the variables of the command line, over what is known.
    pub(super) fn set_variables(&self, materials: &mut Materials) -> anyhow::Result<()> {
        for (name, value) in &self.substitute {
            materials.variables.get_or_insert_default().set(name, value, false)?;
        }
        Ok(())
    }

    /// Renders a folder.
    pub(super) fn render(&self, folder: &Path, materials: &Materials) -> anyhow::Result<Rendered> {
        self.render_as(folder, materials, false)
    }

    /// Renders a folder; with `explain` every object knows what made it what it is.
    fn render_as(&self, folder: &Path, materials: &Materials, explain: bool) -> anyhow::Result<Rendered> {
        let (tree, path) = tree(folder, self.root.as_deref())?;
        let keys = materials.keys.as_ref().map(|keys| keys as &dyn KeyRing);
        let rendered = render_as(
            RenderOptions { cache: None, keys, explain, keep_encrypted: self.keep_encrypted },
            &tree,
            &path,
        );
        let rendered = rendered.map_err(|failed| failed.error)?;
        match &materials.variables {
            Some(variables) => Ok(substitute(rendered, variables)?),
            None => Ok(rendered),
        }
    }
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
    let materials = args.how.materials()?;
    if let Some(wanted) = &args.explain {
        let rendered = args.how.render_as(&args.path, &materials, true)?;
        print!("{}", explain::explain(&rendered, wanted, args.namespace.as_deref())?);
        return Ok(ExitCode::SUCCESS);
    }
    let bundle = args.how.render(&args.path, &materials)?.bundle()?;
    let objects = bundle.objects();
    match args.output {
        Output::Yaml => print!("{}", yaml::write_documents(objects.iter().map(|object| object.value()))),
        Output::Json => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
            println!("{}", serde_json::to_string_pretty(&list)?);
        }
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
            let (tree, path) = tree(folder, args.how.root.as_deref())?;
            let (policies, _) = crate::reconcile::read_policies(&tree, &path)
                .map_err(|problem| anyhow::anyhow!(problem.message))?;
            policies
        }
        None => engine::policy::PolicySet::default(),
    };
    let materials = args.how.materials()?;
    let mut wrong = 0;
    for folder in &args.paths {
        let shown = folder.display();
        let rendered = args.how.render(folder, &materials);
        match rendered.and_then(|rendered| Ok((rendered.bundle()?, rendered.confidential))) {
            Err(error) => {
                wrong += 1;
                println!("{shown}: FAILED: {error:#}");
            }
            Ok((bundle, mut confidential)) => {
                confidential.extend(&Confidential::of_secrets(bundle.objects()));
                let violations = crate::reconcile::violations(&policies, &bundle, &|_| None);
                let denied = violations.iter().filter(|violation| violation.action == Action::Deny).count();
                for violation in &violations {
                    println!("{}", confidential.mask(&format!("{shown}: {violation}")));
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/sops/");

    #[test]
    fn encrypted_folders_render_with_a_key_and_are_checked_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let secret = std::fs::read(format!("{FILES}files/regex-secret.yaml")).unwrap();
        std::fs::write(folder.path().join("secret.yaml"), secret).unwrap();
        std::fs::write(
            folder.path().join("config.yaml"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"${NAME}\"}\n",
        )
        .unwrap();
        let how = |keep_encrypted, name: &str| HowArgs {
            root: None,
            substitute: vec![assignment(name).unwrap()],
            keep_encrypted,
        };
        let key = std::fs::read_to_string(format!("{FILES}TEST-ONLY.agekey")).unwrap();
        let keys = AgeKeys::from_environment(|name| (name == "SOPS_AGE_KEY").then(|| key.clone())).unwrap();
        let mut with_key = Materials { keys, variables: None };
        how(false, "NAME=settings").set_variables(&mut with_key).unwrap();
        let rendered = how(false, "NAME=settings").render(folder.path(), &with_key).unwrap();
        assert_eq!(rendered.objects[0].name(), "settings");
        assert_eq!(rendered.objects[1].value()["stringData"]["password"], "correct horse battery staple");

        let none = Materials::default();
        let error = how(false, "NAME=x").render(folder.path(), &none).unwrap_err().to_string();
        assert!(error.starts_with("secret.yaml:") && error.contains("no key is given"), "{error}");
        let rendered = how(true, "NAME=x").render(folder.path(), &none).unwrap();
        let object = rendered.objects[1].value();
        assert!(object["stringData"]["password"].as_str().unwrap().starts_with("ENC["), "{object}");
        assert_eq!((object.get("sops"), &object["metadata"]["name"]), (None, &"database".into()));
        assert!(assignment("no value").is_err());
    }
}
