//! `patches`, `patchesStrategicMerge` and `patchesJson6902`.

use serde_json::Value;

use crate::object::yaml::{Dialect, read_documents_as};

use super::error::RenderError;
use super::fields::Located;
use super::kustomization::PatchEntry;
use super::merge_schema::Schemas;
use super::patch_json;
use super::patch_strategic;
use super::resource::{Resource, Source};
use super::resource_map::{ResourceMap, measure};
use super::resources::{self, Role};

/// A patch, understood.
pub(super) enum Patch {
    /// Nothing but comments, or an empty list or mapping. Kustomize passes over such entries of `patches` since 5.8.
    Empty(Source),
    /// Objects to merge in.
    Strategic(Vec<Resource>),
    /// JSON patch operations.
    Json(json_patch::Patch, Source),
}

/// How a patch was given.
pub(super) struct PatchText {
    pub text: String,
    /// The file that errors name: the patch's own, or the kustomization's.
    pub file: String,
    /// The line of the kustomization's entry, for patches that are written there.
    pub inline_at: Option<Source>,
}

impl PatchText {
    /// Where a line of the patch is. A patch of several lines in a kustomization is taken for a literal block.
    fn source(&self, line: usize) -> Source {
        match &self.inline_at {
            Some(at) => Source::new(&at.file, at.line + if self.text.contains('\n') { line - 1 } else { 0 }),
            None => Source::new(&self.file, line),
        }
    }

    fn invalid(&self, line: usize, problem: impl Into<String>) -> RenderError {
        RenderError::Invalid { source_at: self.source(line), problem: problem.into() }
    }
}

/// Reads a patch of either kind.
pub(super) fn read(patch: &PatchText, has_target: bool) -> Result<Patch, RenderError> {
    // A list is a JSON patch, whose values follow the other dialect of YAML.
    let documents = read_documents_as(&patch.text, &patch.file, Dialect::Settings).map_err(|mut error| {
        error.line = patch.source(error.line).line;
        error
    })?;
    match documents.as_slice() {
        documents if documents.iter().all(|document| says_nothing(&document.value)) => {
            Ok(Patch::Empty(patch.source(documents.first().map_or(1, |document| document.line))))
        }
        [document] if document.value.is_array() => {
            let operations =
                patch_json::read(&document.value).map_err(|problem| patch.invalid(document.line, problem))?;
            Ok(Patch::Json(operations, patch.source(document.line)))
        }
        _ => {
            let role = if has_target { Role::TargetedPatch } else { Role::Patch };
            Ok(Patch::Strategic(strategic(patch, role)?))
        }
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Reads strategic merge patches.
pub(super) fn strategic(patch: &PatchText, role: Role) -> Result<Vec<Resource>, RenderError> {
    let mut resources = resources::read(&patch.text, &patch.file, role)?;
    for resource in &mut resources {
        resource.source = patch.source(resource.source.line);
    }
    Ok(resources)
}

/// Applies an entry of `patches`.
pub(super) fn apply(
    entry: &PatchEntry,
    patch: Patch,
    resources: &mut ResourceMap,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    let fail =
        |source_at: &Source, problem: String| RenderError::Invalid { source_at: source_at.clone(), problem };
    match (patch, &entry.target) {
        (Patch::Empty(_), _) => Ok(()),
        (Patch::Json(_, at), None) => Err(fail(&at, "a JSON patch needs a target; add one".to_owned())),
        (Patch::Json(operations, at), Some(target)) => {
            let matcher = target.compile().map_err(|problem| fail(&entry.source, problem))?;
            let size = operations.0.iter().map(|operation| operation.to_string().len()).sum();
            let matches = resources.iter().filter(|resource| matcher.matches(resource)).count();
            resources.grow(size, matches, &at)?;
            for resource in resources.iter_mut().filter(|resource| matcher.matches(resource)) {
                resource.remember_id();
                patch_json::apply(resource, &operations).map_err(|problem| fail(&at, problem))?;
            }
            Ok(())
        }
        (Patch::Strategic(patches), Some(target)) => {
            let [patch] = patches.as_slice() else {
                return Err(fail(
                    &entry.source,
                    "a target goes with a single patch; split the patch or remove the target".to_owned(),
                ));
            };
            let matcher = target.compile().map_err(|problem| fail(&entry.source, problem))?;
            let size = measure(patch.value()).map_err(|problem| fail(&entry.source, problem))?;
            let matches = resources.iter().filter(|resource| matcher.matches(resource)).count();
            resources.grow(size, matches, &entry.source)?;
            for resource in resources.iter_mut().filter(|resource| matcher.matches(resource)) {
                let mut patch = patch.clone();
                patch.edit()["apiVersion"] = resource.value()["apiVersion"].clone();
                merge(resource, patch, entry.allow_name_change, entry.allow_kind_change, schemas)?;
            }
            resources.drop_deleted();
            resources.check_identities()
        }
        (Patch::Strategic(patches), None) => {
            for patch in patches {
                let (rename, rekind) = (entry.allow_name_change, entry.allow_kind_change);
                merge_into_only(resources, patch, rename, rekind, schemas)?;
            }
            Ok(())
        }
    }
}

/// Applies the entries of `patchesStrategicMerge`.
pub(super) fn apply_strategic(
    patches: Vec<Resource>,
    resources: &mut ResourceMap,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    for patch in patches {
        merge_into_only(resources, patch, false, false, schemas)?;
    }
    Ok(())
}

/// What an entry of `patchesJson6902` does to an object.
pub(super) fn json(
    entry: &PatchEntry,
    patch: Patch,
) -> Result<impl Fn(&mut Resource) -> Result<(), RenderError>, RenderError> {
    let fail =
        |source_at: &Source, problem: String| RenderError::Invalid { source_at: source_at.clone(), problem };
    let (operations, at) = match patch {
        Patch::Json(operations, at) => (operations, at),
        Patch::Empty(at) => {
            return Err(fail(&at, "the patch is empty; write it or remove the entry".to_owned()));
        }
        Patch::Strategic(_) => {
            return Err(fail(
                &entry.source,
                "patchesJson6902 takes lists of operations; move this patch to patches".to_owned(),
            ));
        }
    };
    let Some(target) = entry.target.as_ref().filter(|target| !target.name.is_empty()) else {
        return Err(fail(&entry.source, "patchesJson6902 needs a target with a name; add one".to_owned()));
    };
    let matcher = target.compile().map_err(|problem| fail(&entry.source, problem))?;
    Ok(move |resource: &mut Resource| {
        if matcher.matches(resource) {
            patch_json::apply(resource, &operations).map_err(|problem| fail(&at, problem))?;
        }
        Ok(())
    })
}

/// Whether an entry that may be a path or YAML is YAML.
pub(super) fn is_inline(text: &str) -> bool {
    text.contains('\n') || text.contains(": ")
}

/// The text of an entry: its own, or its file's.
pub(super) fn inline(patch: &Located, file: &str) -> PatchText {
    PatchText { text: patch.text.clone(), file: file.to_owned(), inline_at: Some(patch.source.clone()) }
}

fn merge(
    resource: &mut Resource,
    patch: Resource,
    rename: bool,
    rekind: bool,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    let (name, namespace, kind) =
        (resource.name().to_owned(), resource.namespace().to_owned(), resource.kind().to_owned());
    if rename || rekind {
        resource.remember_id();
    }
    let value = resource.take_value();
    let source_at = patch.source.clone();
    let merged = patch_strategic::apply(value, patch.into_value(), schemas)
        .map_err(|problem| RenderError::Invalid { source_at, problem })?;
    let Some(merged) = merged else {
        *resource.edit() = Value::Null;
        return Ok(());
    };
    *resource.edit() = merged;
    resource.drop_empty_fields();
    if !rekind {
        resource.set_kind(&kind);
    }
    if !rename {
        resource.set_name(&name);
    }
    resource.set_namespace(&namespace);
    Ok(())
}

/// Merges a patch into the object whose identity it says.
fn merge_into_only(
    resources: &mut ResourceMap,
    patch: Resource,
    rename: bool,
    rekind: bool,
    schemas: &Schemas,
) -> Result<(), RenderError> {
    let at = resources
        .only(&patch.original_id())
        .map_err(|problem| RenderError::Invalid { source_at: patch.source.clone(), problem })?;
    let is_gone = resources.change(at, |resource| {
        merge(resource, patch, rename, rekind, schemas).map(|()| resource.value().is_null())
    });
    if is_gone.transpose()? == Some(true) {
        resources.drop_deleted();
    }
    Ok(())
}
