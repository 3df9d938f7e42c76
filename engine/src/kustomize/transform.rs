//! The transformers of one kustomization, in kustomize's order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::accumulator::Accumulator;
use super::error::RenderError;
use super::explain::Step;
use super::fields::Located;
use super::identity::ResId;
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

/// What a transformer does to an object.
type Apply<'a> = Box<dyn Fn(&mut Resource) -> Result<(), RenderError> + 'a>;

/// A transformer that looks at one object at a time.
struct Change<'a> {
    origin: Option<Origin>,
    step: Box<dyn Fn() -> Step + 'a>,
    apply: Apply<'a>,
}

impl<'a> Change<'a> {
    /// A change whose problems are those of a place in the kustomization.
    fn new(
        source: &'a Source,
        origin: Option<Origin>,
        step: impl Fn() -> Step + 'a,
        apply: impl Fn(&mut Resource) -> Result<(), String> + 'a,
    ) -> Self {
        let apply = move |resource: &mut Resource| apply(resource).map_err(at(source));
        Self { origin, step: Box::new(step), apply: Box::new(apply) }
    }
}

/// How many changes are prepared before they are made: what they were read into is kept until then.
const BATCH: usize = 32;

/// Changes to the objects of an accumulator, in their order.
///
/// They are made object by object: an object that one change has loaded into the cache is still there for the next,
/// where a pass over all objects for each change would load every object once for each. Where notes are kept, each
/// change has its own pass, to tell what it changed. The objects come out the same in both ways; of several problems
/// another may be told.
struct Changes<'a, 'm> {
    accumulated: &'m mut Accumulator,
    waiting: Vec<Change<'a>>,
}

impl<'a> Changes<'a, '_> {
    fn push(&mut self, change: Change<'a>) -> Result<(), RenderError> {
        self.waiting.push(change);
        if self.waiting.len() < BATCH { Ok(()) } else { self.make() }
    }

    /// Makes what waits.
    fn make(&mut self) -> Result<(), RenderError> {
        let changes = std::mem::take(&mut self.waiting);
        if changes.is_empty() {
            return Ok(());
        }
        if !self.accumulated.explains && changes.iter().all(|change| change.origin.is_none()) {
            let mut resources = self.accumulated.resources.iter_mut();
            return resources
                .try_for_each(|resource| changes.iter().try_for_each(|change| (change.apply)(resource)));
        }
        for Change { origin, step, apply } in changes {
            self.accumulated.resources.iter_mut().try_for_each(apply)?;
            self.accumulated.step(origin, step);
        }
        Ok(())
    }
}

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
    let top = Source::new(&kustomization.file, 1);
    let found: Vec<Cell<bool>> = vec![Cell::new(false); kustomization.replicas.len()];
    let in_namespace: RefCell<Vec<ResId>> = RefCell::default();
    let mut changes = Changes { accumulated, waiting: Vec::new() };
    if let Some(namespace) = &kustomization.namespace {
        changes.push(Change::new(
            &namespace.source,
            note("NamespaceTransformer"),
            || Step::new("namespace", &namespace.source),
            |resource| {
                set_namespace(&namespace.text, resource, &config.namespace, NamespaceOptions::default())?;
                in_namespace.borrow_mut().push(resource.id().clone());
                Ok(())
            },
        ))?;
    }
    if let Some(Located { text, source }) = &kustomization.name_prefix {
        let (prefix, specs) = (Arc::from(text.as_str()), &config.name_prefix);
        changes.push(Change::new(
            source,
            note("PrefixTransformer"),
            || Step::new("namePrefix", source),
            move |resource| rename(Affix::Prefix(&prefix), resource, specs),
        ))?;
    }
    if let Some(Located { text, source }) = &kustomization.name_suffix {
        let (suffix, specs) = (Arc::from(text.as_str()), &config.name_suffix);
        changes.push(Change::new(
            source,
            note("SuffixTransformer"),
            || Step::new("nameSuffix", source),
            move |resource| rename(Affix::Suffix(&suffix), resource, specs),
        ))?;
    }
    label(kustomization, &config, note, &top, &mut changes)?;
    for entry in &kustomization.patches_json {
        let patch = read_patch(entry, &kustomization.file, load)?;
        changes.push(Change {
            origin: note("PatchJson6902Transformer"),
            step: Box::new(|| patch_step("patchesJson6902", entry, kustomization)),
            apply: Box::new(patches::json(entry, patch)?),
        })?;
    }
    for ((source, replicas), found) in kustomization.replicas.iter().zip(&found) {
        changes.push(Change::new(
            source,
            note("ReplicaCountTransformer"),
            || Step::new("replicas", source),
            |resource| {
                found.set(replicas.apply(resource, &config.replicas)? || found.get());
                Ok(())
            },
        ))?;
    }
    for (source, image) in &kustomization.images {
        let (pattern, specs) = (image.pattern().map_err(at(source))?, &config.images);
        changes.push(Change::new(
            source,
            note("ImageTagTransformer"),
            || Step::new("images", source),
            move |resource| image.apply(&pattern, resource, specs),
        ))?;
    }
    changes.make()?;
    accumulated.resources.check_distinct(in_namespace.borrow().iter())?;
    if let Some(((source, replicas), _)) =
        kustomization.replicas.iter().zip(&found).find(|(_, found)| !found.get())
    {
        return Err(at(source)(replicas.without_object()));
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

/// The changes that `labels`, `commonLabels` and `commonAnnotations` ask for.
fn label<'a>(
    kustomization: &'a Kustomization,
    config: &'a TransformerConfig,
    note: Note<'_>,
    top: &'a Source,
    changes: &mut Changes<'a, '_>,
) -> Result<(), RenderError> {
    for (source, labels) in &kustomization.labels {
        let specs = labels.field_specs(config).map_err(at(source))?;
        grow_by_pairs(&labels.pairs, changes.accumulated, source)?;
        changes.push(Change::new(
            source,
            note("LabelTransformer"),
            || Step::new("labels", source),
            move |resource| set_pairs(&labels.pairs, resource, &specs),
        ))?;
    }
    grow_by_pairs(&kustomization.common_labels, changes.accumulated, top)?;
    grow_by_pairs(&kustomization.common_annotations, changes.accumulated, top)?;
    if !kustomization.labels.is_empty() || !kustomization.common_labels.is_empty() {
        changes.push(Change::new(
            top,
            note("LabelTransformer"),
            || Step::new("commonLabels", &kustomization.source_of("commonLabels")),
            |resource| set_pairs(&kustomization.common_labels, resource, &config.common_labels),
        ))?;
    }
    if !kustomization.common_annotations.is_empty() {
        changes.push(Change::new(
            top,
            note("AnnotationsTransformer"),
            || Step::new("commonAnnotations", &kustomization.source_of("commonAnnotations")),
            |resource| set_pairs(&kustomization.common_annotations, resource, &config.common_annotations),
        ))?;
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
