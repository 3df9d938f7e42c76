//! A broken merge: a commit that does not render changes nothing, and the error says where it is broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent::api::Environment;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

use super::{Error, Stage, refused, unexpected};
use crate::watch::{self, Check};
use crate::{environment, shop};

const DEADLINE: Duration = Duration::from_secs(30);
/// What the environment is made of.
const KINDS: [(&str, &str, &str); 7] = [
    ("apps", "v1", "Deployment"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "ServiceAccount"),
    ("", "v1", "PersistentVolumeClaim"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("policy", "v1", "PodDisruptionBudget"),
];

pub(super) async fn run(stage: &Stage<'_>) -> Result<(), Error> {
    let before = generations(stage).await?;
    stage.repository.edit(shop::KUSTOMIZATION, |text| shop::with_conflict(text, "v9.9.9"))?;
    stage.push("Merge branch 'feature'")?;
    let begin = Instant::now();
    let message = refused_at(stage).await?;
    stage.printer.done(begin.elapsed(), "refused, with the place named:");
    stage.printer.block(&message);
    let after = generations(stage).await?;
    if after != before {
        let changed: Vec<&String> =
            after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, _)| key).collect();
        return Err(unexpected("nothing to change in the cluster", format!("changes of {changed:?}")));
    }
    stage.printer.note(format!("none of the {} objects changed; the shop goes on", before.len()));

    reverted(stage).await
}

/// The team reverts the broken commit and the bad one before it: what serves is what Git says again.
async fn reverted(stage: &Stage<'_>) -> Result<(), Error> {
    let log = stage.repository.log(crate::repository::BRANCH, 3)?;
    let good = log.get(2).ok_or_else(|| unexpected("three commits", format!("{}", log.len())))?;
    let text = stage.repository.read_at(&good.id, shop::KUSTOMIZATION)?;
    stage.repository.write(shop::KUSTOMIZATION, &text)?;
    let commit = stage.push("Revert the last two merges")?;
    let begin = Instant::now();
    stage.follow(&commit.id, begin, DEADLINE).await?;
    stage.printer.done(
        begin.elapsed(),
        "Ready again: the commit renders to what already serves, so there was nothing to write",
    );
    Ok(())
}

/// Waits until the Environment names the file and a line of it.
async fn refused_at(stage: &Stage<'_>) -> Result<String, Error> {
    let expected = format!("Environment {} to name {} and a line", shop::NAME, shop::KUSTOMIZATION);
    let message = watch::until_one(
        &stage.environments(),
        shop::NAME,
        expected,
        DEADLINE,
        |seen: Option<&Environment>| match environment::message_where(seen, names_the_line) {
            Some(message) => Check::Met(message),
            None => Check::Not(environment::described(seen)),
        },
    )
    .await?;
    Ok(message)
}

/// Whether a message holds `kustomization.yaml:` and a number.
fn names_the_line(message: &str) -> bool {
    message
        .split_once(&format!("{}:", shop::KUSTOMIZATION))
        .is_some_and(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()))
}

/// The generation of every object, or what else tells that its specification changed.
async fn generations(stage: &Stage<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut all = BTreeMap::new();
    for (group, version, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(stage.client.clone(), shop::NAMESPACE, &resource);
        let list =
            api.list(&ListParams::default()).await.map_err(refused("a list of the environment's objects"))?;
        for object in list {
            let generation = match object.metadata.generation {
                Some(generation) => generation.to_string(),
                None => object.resource_version().unwrap_or_default(),
            };
            let uid = object.uid().unwrap_or_default();
            all.insert(format!("{kind} {}", object.name_any()), format!("{uid} {generation}"));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_and_a_line() {
        assert!(names_the_line("environments/dev/kustomization.yaml:14: this is not YAML"));
        assert!(names_the_line("cannot render: environments/dev/kustomization.yaml:14:1: x"));
        assert!(!names_the_line("environments/dev/kustomization.yaml: not YAML"));
        assert!(!names_the_line("line 14"));
    }
}
