//! The transformers of one kustomization, in kustomize's order.

use std::collections::BTreeMap;

use super::accumulator::Accumulator;
use super::error::RenderError;
use super::explain::Step;
use super::fields::Located;
use super::kustomization::{Kustomization, PatchEntry, ReplacementEntry};
use super::labels::set_pairs;
use super::merge_schema::Schemas;
use super::names::{Affix, rename};
use super::namespace::{NamespaceOptions, set_namespace};
use super::patches::{self, Patch, PatchText};
use super::replacements::Replacement;
use super::resource::{Origin, Resource, Source};
use super::resources::Role;
use super::transformer_config::TransformerConfig;
use super::tree::{join, parent};

/// Reads a file that the kustomization names: its text and its path.
pub(super) type Load<'a> = &'a dyn Fn(&Located) -> Result<(String, String), RenderError>;
/// What to note about a transformer, if notes are asked for.
type Note<'a> = &'a dyn Fn(&str) -> Option<Origin>;

/// Runs every transformer of a kustomization over what it accumulated.
pub(super) fn run(
    kustomization: &Kustomization,
    accumulated: &mut Accumulator,
    load: Load<'_>,
    note: Note<'_>,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    let config = accumulated.config.clone().unwrap_or_else(TransformerConfig::builtin);
    accumulated.begin_steps();
    patch(kustomization, accumulated, load, note, schemas)?;
    if let Some(namespace) = &kustomization.namespace {
        for resource in accumulated.resources.iter_mut() {
            set_namespace(&namespace.text, resource, &config.namespace, NamespaceOptions::default())
                .map_err(at(&namespace.source))?;
        }
        accumulated.resources.check_identities()?;
        accumulated.step(note("NamespaceTransformer"), || Step::new("namespace", &namespace.source));
    }
    if let Some(prefix) = &kustomization.name_prefix {
        for resource in accumulated.resources.iter_mut() {
            rename(Affix::Prefix(&prefix.text), resource, &config.name_prefix).map_err(at(&prefix.source))?;
        }
        accumulated.step(note("PrefixTransformer"), || Step::new("namePrefix", &prefix.source));
    }
    if let Some(suffix) = &kustomization.name_suffix {
        for resource in accumulated.resources.iter_mut() {
            rename(Affix::Suffix(&suffix.text), resource, &config.name_suffix).map_err(at(&suffix.source))?;
        }
        accumulated.step(note("SuffixTransformer"), || Step::new("nameSuffix", &suffix.source));
    }
    label(kustomization, accumulated, &config, note)?;
    for entry in &kustomization.patches_json {
        let patch = read_patch(entry, &kustomization.file, load)?;
        patches::apply_json(entry, patch, &mut accumulated.resources)?;
        accumulated
            .step(note("PatchJson6902Transformer"), || patch_step("patchesJson6902", entry, kustomization));
    }
    for (source, replicas) in &kustomization.replicas {
        replicas.apply(accumulated.resources.as_mut_slice(), &config.replicas).map_err(at(source))?;
        accumulated.step(note("ReplicaCountTransformer"), || Step::new("replicas", source));
    }
    for (source, image) in &kustomization.images {
        image.apply(accumulated.resources.iter_mut(), &config.images).map_err(at(source))?;
        accumulated.step(note("ImageTagTransformer"), || Step::new("images", source));
    }
    if !kustomization.replacements.is_empty() {
        let source = kustomization.source_of("replacements");
        replace(&kustomization.replacements, &source, accumulated, load)?;
        accumulated.step(note("ReplacementTransformer"), || Step::new("replacements", &source));
    }
    Ok(())
}

fn patch(
    kustomization: &Kustomization,
    accumulated: &mut Accumulator,
    load: Load<'_>,
    note: Note<'_>,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    let mut strategic = Vec::new();
    for entry in &kustomization.patches_strategic {
        strategic.extend(strategic_patch(entry, &kustomization.file, load)?);
    }
    if !kustomization.patches_strategic.is_empty() {
        if strategic.is_empty() {
            let problem = "patchesStrategicMerge has only empty patches; write one or remove the field";
            return Err(RenderError::Invalid {
                source_at: kustomization.source_of("patchesStrategicMerge"),
                problem: problem.to_owned(),
            });
        }
        patches::apply_strategic(strategic, &mut accumulated.resources, schemas)?;
        accumulated.step(note("PatchStrategicMergeTransformer"), || {
            Step::new("patchesStrategicMerge", &kustomization.source_of("patchesStrategicMerge"))
        });
    }
    for entry in &kustomization.patches {
        let patch = read_patch(entry, &kustomization.file, load)?;
        patches::apply(entry, patch, &mut accumulated.resources, schemas)?;
        accumulated.step(note("PatchTransformer"), || patch_step("patches", entry, kustomization));
    }
    Ok(())
}

/// A patch as a step, with its file.
fn patch_step(field: &str, entry: &PatchEntry, kustomization: &Kustomization) -> Step {
    let directory = parent(&kustomization.file);
    let file = entry.path.as_ref().and_then(|path| join(directory, &path.text));
    Step::new(field, &entry.source).with(file.as_deref())
}

fn label(
    kustomization: &Kustomization,
    accumulated: &mut Accumulator,
    config: &TransformerConfig,
    note: Note<'_>,
) -> Result<(), RenderError> {
    for (source, labels) in &kustomization.labels {
        let specs = labels.field_specs(config).map_err(at(source))?;
        grow_by_pairs(&labels.pairs, accumulated, source)?;
        set_pairs(&labels.pairs, accumulated.resources.iter_mut(), &specs).map_err(at(source))?;
        accumulated.step(note("LabelTransformer"), || Step::new("labels", source));
    }
    let source = Source::new(&kustomization.file, 1);
    grow_by_pairs(&kustomization.common_labels, accumulated, &source)?;
    grow_by_pairs(&kustomization.common_annotations, accumulated, &source)?;
    if !kustomization.labels.is_empty() || !kustomization.common_labels.is_empty() {
        set_pairs(&kustomization.common_labels, accumulated.resources.iter_mut(), &config.common_labels)
            .map_err(at(&source))?;
        accumulated.step(note("LabelTransformer"), || {
            Step::new("commonLabels", &kustomization.source_of("commonLabels"))
        });
    }
    if !kustomization.common_annotations.is_empty() {
        set_pairs(
            &kustomization.common_annotations,
            accumulated.resources.iter_mut(),
            &config.common_annotations,
        )
        .map_err(at(&source))?;
        accumulated.step(note("AnnotationsTransformer"), || {
            Step::new("commonAnnotations", &kustomization.source_of("commonAnnotations"))
        });
    }
    Ok(())
}

/// Counts what labels or annotations add, taking two places in every object as the usual number.
pub(super) fn grow_by_pairs(
    pairs: &BTreeMap<String, String>,
    accumulated: &mut Accumulator,
    source: &Source,
) -> Result<(), RenderError> {
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    let objects = accumulated.resources.iter().count();
    accumulated.resources.grow(bytes, 2 * objects, source)
}

/// Reads an entry of strategic merge patches.
pub(super) fn strategic_patch(
    entry: &Located,
    file: &str,
    load: Load<'_>,
) -> Result<Vec<Resource>, RenderError> {
    // For historical reasons an entry is the patch itself, or else the path of its file.
    let text = if patches::is_inline(&entry.text) {
        patches::inline(entry, file)
    } else {
        let (text, file) = load(entry)?;
        PatchText { text, file, inline_at: None }
    };
    patches::strategic(&text, Role::Patch)
}

/// Makes replacements.
pub(super) fn replace(
    entries: &[ReplacementEntry],
    source: &Source,
    accumulated: &mut Accumulator,
    load: Load<'_>,
) -> Result<(), RenderError> {
    let mut run = |replacement: &Replacement| {
        let limit = accumulated.resources.growth_left();
        let written = replacement.apply(accumulated.resources.as_mut_slice(), limit)?;
        accumulated.resources.grow(written, 1, source)
    };
    for entry in entries {
        match entry {
            ReplacementEntry::Inline(replacement) => run(replacement)?,
            ReplacementEntry::File(path) => {
                let (text, file) = load(path)?;
                Replacement::read_file(&text, &file)?.iter().try_for_each(&mut run)?;
            }
        }
    }
    Ok(())
}

/// Reads the patch of an entry.
pub(super) fn read_patch(entry: &PatchEntry, file: &str, load: Load<'_>) -> Result<Patch, RenderError> {
    let invalid =
        |problem: &str| RenderError::Invalid { source_at: entry.source.clone(), problem: problem.to_owned() };
    let text = match (&entry.patch, &entry.path) {
        (Some(_), Some(_)) => {
            return Err(invalid("a patch is given either in place or by path; remove one of the two"));
        }
        (None, None) => return Err(invalid("a patch needs patch or path; add one")),
        (Some(patch), None) => patches::inline(patch, file),
        (None, Some(path)) => {
            let (text, file) = load(path)?;
            PatchText { text, file, inline_at: None }
        }
    };
    patches::read(&text, entry.target.is_some())
}

fn at(source: &Source) -> impl Fn(String) -> RenderError + '_ {
    move |problem| RenderError::Invalid { source_at: source.clone(), problem }
}
