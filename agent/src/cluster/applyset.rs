//! Environments as ApplySet parents (KEP-3659): which objects are members is marked on the objects, and
//! where to look for them on the Environment. So an agent that starts knows its members without a list
//! of its own, and `kubectl` and others see what belongs together.
//!
//! <https://github.com/kubernetes/enhancements/tree/master/keps/sig-cli/3659-kubectl-apply-prune>

use std::collections::BTreeSet;

use engine::object::GroupKind;
use engine::plan::{APPLYSET_GROUP_KINDS, APPLYSET_ID, APPLYSET_TOOLING};
use serde_json::json;

use super::Cluster;
use super::environments::environment_kind;
use super::error::Error;
use super::request::{Call, Target};
use crate::api::Environment;

/// The namespaces of members besides the parent's own.
const ADDITIONAL_NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";

/// The group-kinds that an Environment's members have, as far as it is marked.
pub fn group_kinds(environment: &Environment) -> BTreeSet<GroupKind> {
    let marked = environment.annotation(APPLYSET_GROUP_KINDS).unwrap_or_default();
    let kinds = marked.split(',').map(str::trim).filter(|text| !text.is_empty());
    kinds
        .map(|text| {
            let (kind, group) = text.split_once('.').unwrap_or((text, ""));
            GroupKind::new(group, kind)
        })
        .collect()
}

impl Cluster {
    /// Marks an Environment as the parent of members of these kinds in these namespaces. This comes
    /// before the first member of a kind is written, so that none can be missed. Nothing is written if it
    /// is marked so already.
    ///
    /// # Errors
    /// When the cluster cannot be written to.
    pub async fn mark_parent(
        &self,
        environment: &Environment,
        kinds: &BTreeSet<GroupKind>,
        namespaces: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let id = environment.marks().part_of;
        let tooling = concat!("holdfast/v", env!("CARGO_PKG_VERSION"));
        let kinds = joined(kinds.iter().map(ToString::to_string));
        let namespaces = joined(namespaces.iter().filter(|name| *name != environment.namespace()).cloned());
        let labelled =
            environment.metadata.labels.as_ref().and_then(|labels| labels.get(APPLYSET_ID)) == Some(&id);
        if labelled
            && environment.annotation(APPLYSET_TOOLING) == Some(tooling)
            && environment.annotation(APPLYSET_GROUP_KINDS) == Some(&kinds)
            && environment.annotation(ADDITIONAL_NAMESPACES).unwrap_or_default() == namespaces
        {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "labels": {APPLYSET_ID: id},
            "annotations": {
                APPLYSET_TOOLING: tooling,
                APPLYSET_GROUP_KINDS: kinds,
                ADDITIONAL_NAMESPACES: if namespaces.is_empty() { None } else { Some(namespaces) },
            },
        }});
        let kind = environment_kind();
        let target = Target::object(&kind, Some(environment.namespace()), environment.name());
        self.call(Call::merge_patch(target, &patch, "holdfast")).await.map(drop)
    }
}

/// The values in ascending order, with commas between them.
fn joined(values: impl Iterator<Item = String>) -> String {
    let sorted: BTreeSet<String> = values.collect();
    sorted.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_kinds_are_read_as_they_are_written() {
        let mut environment = Environment::test("dev");
        let marked = " ConfigMap,Deployment.apps,,Ingress.networking.k8s.io ";
        environment.metadata.annotations =
            Some([(APPLYSET_GROUP_KINDS.to_owned(), marked.to_owned())].into());
        let kinds = group_kinds(&environment);
        assert_eq!(
            joined(kinds.iter().map(ToString::to_string)),
            "ConfigMap,Deployment.apps,Ingress.networking.k8s.io"
        );
        assert!(kinds.contains(&GroupKind::new("networking.k8s.io", "Ingress")));
    }
}
