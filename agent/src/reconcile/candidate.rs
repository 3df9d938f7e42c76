//! From a snapshot of the source to a candidate: the bundle, its policies, and where they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use engine::kustomize::{Cache, EntryKind, Options, ReadSet, Reader, RenderError, Tree, join, render_as};
use engine::object::{Bundle, Confidential, Object, yaml};
use engine::policy::{Operation, PolicySet, Violation};
use engine::rollout::{Release, SourceProblem};
use engine::sops::KeyRing;
use engine::substitute::substitute;

use super::materials::Materials;
use crate::api::EnvironmentSpec;
use crate::source::Snapshot;

/// A bundle that the source gives, with what it is judged by.
#[derive(Clone)]
pub struct Candidate {
    /// The release: digest, revision, images.
    pub release: Release,
    /// The objects.
    pub bundle: Arc<Bundle>,
    /// The policies of the same commit.
    pub policies: Arc<PolicySet>,
    /// The commit itself: what it means for other environments can be asked of it too.
    pub snapshot: Snapshot,
    /// What was decrypted or came from a Secret: no message about the objects may repeat it.
    pub confidential: Arc<Confidential>,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidate").field(&self.release.digest).finish()
    }
}

/// The last render, and what it read: a commit that touches none of it costs one comparison.
#[derive(Debug)]
pub struct Rendered {
    path: String,
    policies_path: Option<String>,
    variables: Option<String>,
    reads: ReadSet,
    policy_reads: ReadSet,
    candidate: Candidate,
}

impl Rendered {
    /// The candidate of the render.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }
}

/// Renders the folder that the specification names, or reuses the last render. Bases that it shares with
/// other environments come from the cache.
///
/// # Errors
/// A [`SourceProblem`] that names file and line; the commit is at fault.
pub fn candidate(
    snapshot: &Snapshot,
    spec: &EnvironmentSpec,
    materials: &Materials,
    last: Option<&Rendered>,
    cache: &Cache,
) -> Result<Rendered, SourceProblem> {
    let tree: &dyn Tree = &*snapshot.tree;
    let path = spec.source.path.clone();
    let policies_path = spec.policies.as_ref().map(|policies| policies.path.clone());
    let last = last.filter(|last| last.path == path && last.policies_path == policies_path);

    let variables = materials.variables_id();
    let keys = materials.keys.as_ref().map(|keys| keys as &dyn KeyRing);
    let same = |last: &&Rendered| last.variables == variables && last.reads.unchanged_with(tree, keys);
    let (bundle, confidential, reads) = match last.filter(same) {
        Some(last) => {
            let candidate = &last.candidate;
            (candidate.bundle.clone(), candidate.confidential.clone(), last.reads.clone())
        }
        None => {
            let options = Options { cache: Some(cache), keys, ..Options::default() };
            let mut rendered =
                render_as(options, tree, &path).map_err(|failed| render_problem(&path, &failed.error))?;
            if let Some(variables) = &materials.variables {
                rendered = substitute(rendered, variables)
                    .map_err(|error| problem("SubstitutionFailed", format!("{path}: {error}")))?;
            }
            let bundle = rendered.bundle().map_err(|error| problem("RenderFailed", error))?;
            (Arc::new(bundle), Arc::new(rendered.confidential), rendered.reads)
        }
    };
    let (policies, policy_reads) = match last.filter(|last| last.policy_reads.unchanged(tree)) {
        Some(last) => (last.candidate.policies.clone(), last.policy_reads.clone()),
        None => {
            let (policies, reads) = match &policies_path {
                Some(path) => read_policies(tree, path)?,
                None => (PolicySet::default(), ReadSet::default()),
            };
            (Arc::new(policies), reads)
        }
    };
    let release = Release {
        digest: bundle.digest(),
        revision: snapshot.revision.clone(),
        images: images(bundle.objects()),
        objects: u32::try_from(bundle.objects().len()).unwrap_or(u32::MAX),
    };
    let candidate = Candidate { release, bundle, policies, confidential, snapshot: snapshot.clone() };
    Ok(Rendered { path, policies_path, variables, reads, policy_reads, candidate })
}

fn problem(reason: &str, error: impl std::fmt::Display) -> SourceProblem {
    SourceProblem { reason: reason.to_owned(), message: error.to_string(), commit_at_fault: true }
}

fn render_problem(path: &str, error: &RenderError) -> SourceProblem {
    let reason = match error {
        RenderError::MissingPath { .. } => "PathNotFound",
        RenderError::Sops(error) if error.problem.lacks_keys() => "DecryptionFailed",
        _ => "RenderFailed",
    };
    problem(reason, format!("{path} does not render: {error}"))
}

/// Reads the policies of a folder: every YAML file but the examples in `pass` and `fail` folders.
///
/// # Errors
/// A [`SourceProblem`] that names the file and line.
pub fn read_policies(tree: &dyn Tree, path: &str) -> Result<(PolicySet, ReadSet), SourceProblem> {
    let reader = Reader::new(tree);
    let mut objects = Vec::new();
    for file in policy_files(&reader, path)? {
        let text = reader.text(&file).map_err(|error| problem("PolicyFailed", error))?;
        for document in yaml::read_documents(&text, &file).map_err(|error| problem("PolicyFailed", error))? {
            let line = document.line;
            let object = Object::new(document.value)
                .map_err(|error| problem("PolicyFailed", format!("{file}:{line}: {error}")))?;
            objects.push((object, file.clone()));
        }
    }
    let policies = PolicySet::parse(&objects).map_err(|error| problem("PolicyFailed", error))?;
    Ok((policies, reader.into_read_set()))
}

fn policy_files(reader: &Reader, path: &str) -> Result<Vec<String>, SourceProblem> {
    const DEPTH: usize = 8;
    let mut files = Vec::new();
    let leads_out = || problem("PolicyFailed", format!("{path} leads out of the repository"));
    let mut folders = vec![(join("", path).ok_or_else(leads_out)?, 0)];
    while let Some((folder, depth)) = folders.pop() {
        for (name, kind) in reader.list(&folder).map_err(|error| problem("PolicyFailed", error))? {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let example = name == "pass" || name == "fail";
            match kind {
                EntryKind::Directory if !example && depth < DEPTH => folders.push((path, depth + 1)),
                EntryKind::File if [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)) => {
                    files.push(path)
                }
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The container images of a bundle, sorted, without repetition.
fn images(objects: &[Object]) -> Vec<String> {
    let mut images = BTreeSet::new();
    for object in objects {
        let spec = &object.value()["spec"];
        for pod in [&spec["template"]["spec"], &spec["jobTemplate"]["spec"]["template"]["spec"], spec] {
            for field in ["containers", "initContainers"] {
                let containers = pod[field].as_array().into_iter().flatten();
                images.extend(containers.filter_map(|c| c["image"].as_str()).map(str::to_owned));
            }
        }
    }
    images.into_iter().collect()
}

/// Every violation of the policies by the objects of a bundle.
pub fn violations(
    policies: &PolicySet,
    bundle: &Bundle,
    namespace_labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>,
) -> Vec<Violation> {
    bundle
        .objects()
        .iter()
        .flat_map(|object| {
            let labels = object.namespace().and_then(namespace_labels);
            policies.evaluate(object, Operation::Create, labels.as_ref())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::install;
    use crate::source::DirTree;

    #[test]
    fn the_agent_s_own_installation_passes_the_repository_s_policies() {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"));
        let tree = DirTree::scan(root, None).unwrap();
        let (policies, reads) = read_policies(&tree, ".").unwrap();
        assert!(policies.enforced() >= 2, "the policies were read: {:?}", reads.files().collect::<Vec<_>>());
        let manifests = install::manifests("ghcr.io/dhakacart/holdfast:v0.1.0").unwrap();
        let objects = manifests.into_iter().map(|value| Object::new(value).unwrap()).collect();
        let bundle = Bundle::new(objects).unwrap();
        let violations = violations(&policies, &bundle, &|_| None);
        assert!(violations.is_empty(), "{violations:?}");
        assert_eq!(images(bundle.objects()), ["ghcr.io/dhakacart/holdfast:v0.1.0"]);
    }

    #[test]
    fn a_render_is_repeated_only_where_files_keys_or_variables_changed() {
        use engine::kustomize::MapTree;
        use engine::rollout::Revision;

        const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/sops/");
        let tree = MapTree::new()
            .with("dev/secret.yaml", std::fs::read(format!("{FILES}files/regex-secret.yaml")).unwrap())
            .with("dev/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: '${B}'}\n");
        let snapshot = |tree: MapTree| Snapshot {
            revision: Revision { commit: "1".into(), ..Revision::default() },
            tree: Arc::new(tree),
        };
        let spec: EnvironmentSpec = serde_json::from_value(serde_json::json!({
            "source": {"url": "https://example.org/r.git", "branch": "main", "path": "dev"}
        }))
        .unwrap();
        let materials = |keys: &str, value: &str| {
            let key = std::fs::read(format!("{FILES}{keys}")).unwrap();
            let keys = crate::age::AgeKeys::from_secret(&[("a.agekey".to_owned(), key)].into()).unwrap();
            let mut variables = engine::substitute::Variables::default();
            variables.set("B", value, true).unwrap();
            Materials { keys: Some(keys), variables: Some(variables) }
        };
        let cache = Cache::new();
        let render = |tree: &MapTree, materials: &Materials, last: Option<&Rendered>| {
            candidate(&snapshot(tree.clone()), &spec, materials, last, &cache)
        };
        let one = materials("TEST-ONLY.agekey", "secret-one");
        let first = render(&tree, &one, None).unwrap();
        let same = |other: &Rendered| Arc::ptr_eq(&first.candidate.bundle, &other.candidate.bundle);
        assert!(same(&render(&tree.clone().with("README.md", "x"), &one, Some(&first)).unwrap()));
        // Another key opens this file too, and what it holds is the same: but that was looked at.
        let other_key =
            render(&tree, &materials("TEST-ONLY-other.agekey", "secret-one"), Some(&first)).unwrap();
        assert!(!same(&other_key) && other_key.candidate.release.digest == first.candidate.release.digest);
        let other_value = render(&tree, &materials("TEST-ONLY.agekey", "secret-two"), Some(&first)).unwrap();
        assert_ne!(other_value.candidate.release.digest, first.candidate.release.digest);
        let masked = first.candidate.confidential.mask("secret-one and correct horse battery staple");
        assert_eq!(masked, "[secret] and [secret]");
        let none = Materials { keys: None, variables: None };
        let problem = render(&tree, &none, Some(&first)).unwrap_err();
        assert_eq!((problem.reason.as_str(), problem.commit_at_fault), ("DecryptionFailed", true));
        let unset = Materials { variables: Some(engine::substitute::Variables::default()), ..one };
        let problem = render(&tree, &unset, Some(&first)).unwrap_err();
        assert_eq!(problem.reason, "SubstitutionFailed");
        assert!(problem.message.contains("ConfigMap a (dev/a.yaml:1), /data/b: the variable B is not set"));
    }
}
