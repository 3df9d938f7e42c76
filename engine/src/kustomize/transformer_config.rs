//! Which fields each transformer touches: kustomize's defaults and what `configurations` add.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use crate::object::GroupVersionKind;

use super::field_spec::{FieldSpec, SpecPath, merge_specs};
use super::identity::KindFilter;

/// The fields that may refer to objects of a kind by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameReference {
    /// The kind that is referred to.
    pub target: KindFilter,
    /// The fields that refer.
    pub referrers: Vec<FieldSpec>,
}

/// The fields of every transformer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TransformerConfig {
    pub name_prefix: Vec<FieldSpec>,
    pub name_suffix: Vec<FieldSpec>,
    pub namespace: Vec<FieldSpec>,
    pub common_labels: Vec<FieldSpec>,
    pub labels: Vec<FieldSpec>,
    pub template_labels: Vec<FieldSpec>,
    pub common_annotations: Vec<FieldSpec>,
    pub name_reference: Vec<NameReference>,
    pub var_reference: Vec<FieldSpec>,
    pub images: Vec<FieldSpec>,
    pub replicas: Vec<FieldSpec>,
}

static DEFAULT: LazyLock<Arc<TransformerConfig>> =
    LazyLock::new(|| Arc::new(parse_table(include_str!("field_specs.txt"))));

impl TransformerConfig {
    /// Kustomize's own configuration.
    pub fn builtin() -> Arc<Self> {
        Arc::clone(&DEFAULT)
    }

    /// The list of a section, by its name in a configuration file.
    pub fn section(&mut self, name: &str) -> Option<&mut Vec<FieldSpec>> {
        Some(match name {
            "namePrefix" => &mut self.name_prefix,
            "nameSuffix" => &mut self.name_suffix,
            "namespace" => &mut self.namespace,
            "commonLabels" => &mut self.common_labels,
            "labels" => &mut self.labels,
            "templateLabels" => &mut self.template_labels,
            "commonAnnotations" => &mut self.common_annotations,
            "varReference" => &mut self.var_reference,
            "images" => &mut self.images,
            "replicas" => &mut self.replicas,
            _ => return None,
        })
    }

    /// The fields of a kind that may refer to objects by name, with the kinds that they refer to.
    pub fn referring<'c>(
        &'c self,
        gvk: &GroupVersionKind,
    ) -> impl Iterator<Item = (&'c FieldSpec, &'c KindFilter)> {
        self.name_reference.iter().flat_map(move |reference| {
            reference
                .referrers
                .iter()
                .filter(|spec| spec.kinds.selects(gvk))
                .map(|spec| (spec, &reference.target))
        })
    }

    /// Adds another configuration; the result is in kustomize's order of kinds.
    pub fn merged(this: &Arc<Self>, other: &Arc<Self>) -> Result<Arc<Self>, String> {
        if Arc::ptr_eq(this, other) || this == other {
            return Ok(Arc::clone(this));
        }
        let mut merged = Self::clone(this);
        let mut other = Self::clone(other);
        for name in SECTIONS {
            if let (Some(into), Some(more)) = (merged.section(name), other.section(name)) {
                merge_specs(into, more)?;
                into.sort_by(|a, b| compare_kinds(&a.kinds, &b.kinds));
            }
        }
        for reference in &other.name_reference {
            match merged.name_reference.iter_mut().find(|known| known.target == reference.target) {
                Some(known) => merge_specs(&mut known.referrers, &reference.referrers)?,
                None => merged.name_reference.push(reference.clone()),
            }
        }
        merged.name_reference.sort_by(|a, b| compare_kinds(&a.target, &b.target));
        Ok(Arc::new(merged))
    }
}

/// The sections that are plain lists of field specs.
pub(super) const SECTIONS: [&str; 10] = [
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "templateLabels",
    "commonAnnotations",
    "varReference",
    "images",
    "replicas",
];

/// Kustomize's order of kinds: what others need comes first, webhooks come last.
pub(super) const ORDER_FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

/// The kinds that come last.
pub(super) const ORDER_LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

fn compare_kinds(a: &KindFilter, b: &KindFilter) -> Ordering {
    let key = |k: &KindFilter| {
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let rank = ORDER_FIRST
            .iter()
            .position(|kind| *kind == k.kind)
            .map(|at| at as i32 - ORDER_FIRST.len() as i32)
            .or_else(|| ORDER_LAST.iter().position(|kind| *kind == k.kind).map(|at| at as i32 + 1))
            .unwrap_or(0);
        (rank, format!("{}_{}_{}", or(&k.group, "~G"), or(&k.version, "~V"), or(&k.kind, "~K")))
    };
    key(a).cmp(&key(b))
}

/// Reads the compact table of defaults.
fn parse_table(text: &str) -> TransformerConfig {
    let mut config = TransformerConfig::default();
    let mut section = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let mut spec = FieldSpec { kinds: KindFilter::default(), path: SpecPath::new(first), create: false };
        for word in words {
            match word.split_once('=') {
                Some(("kind", value)) => spec.kinds.kind = value.to_owned(),
                Some(("group", value)) => spec.kinds.group = value.to_owned(),
                Some(("version", value)) => spec.kinds.version = value.to_owned(),
                _ => spec.create |= word == "create",
            }
        }
        if first == "references" {
            section = first;
            config.name_reference.push(NameReference { target: spec.kinds, referrers: Vec::new() });
        } else if !line.starts_with(' ') {
            section = first;
        } else if section == "references" {
            if let Some(reference) = config.name_reference.last_mut() {
                reference.referrers.push(spec);
            }
        } else if let Some(specs) = config.section(section) {
            specs.push(spec);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_all_read() {
        let config = TransformerConfig::builtin();
        assert_eq!(config.name_prefix.len(), 1);
        assert_eq!(config.images.len(), 6);
        assert_eq!(config.replicas.len(), 4);
        assert_eq!(config.name_reference.len(), 16);
        assert!(config.common_labels.len() > 25 && config.var_reference.len() > 60);
        let lines = include_str!("field_specs.txt").lines().filter(|line| line.starts_with(' ')).count();
        let mut counted = TransformerConfig::clone(&config);
        let mut read: usize = config.name_reference.iter().map(|r| r.referrers.len()).sum();
        for name in SECTIONS {
            read += counted.section(name).unwrap().len();
        }
        assert_eq!(read, lines);
    }

    #[test]
    fn merging_the_same_changes_nothing() {
        let builtin = TransformerConfig::builtin();
        assert!(Arc::ptr_eq(&TransformerConfig::merged(&builtin, &builtin).unwrap(), &builtin));
    }
}
