//! From a tree to objects: accumulating kustomizations in kustomize's order.

use std::cell::RefCell;

use crate::object::{Bundle, Confidential, DuplicateObject, Object, schema};
use crate::sops::KeyRing;

use super::accumulator::Accumulator;
use super::build_metadata;
use super::cache::Cache;
use super::error::RenderError;
use super::explain::Step;
use super::fields::Located;
use super::generators::SourceFile;
use super::kustomization::Kustomization;
use super::merge_schema::Schemas;
use super::name_references;
use super::order;
use super::reads::{ReadSet, Reader};
use super::resource::{Origin, Resource, Source};
use super::resources::{self, Role};
use super::transform;
use super::transformer_config::TransformerConfig;
use super::tree::{EntryKind, Tree, join};
use super::vars;
use super::{hash, resource_map::ResourceMap};

/// How deep kustomizations and folders may nest.
const MAX_NESTING: usize = 64;
/// How many kustomizations a render may go through, each time it does.
const MAX_KUSTOMIZATIONS: usize = 5_000;

/// What a render gives.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The objects, in the order that `kustomize build` prints them.
    pub objects: Vec<Object>,
    /// Where each object, by its position, is from.
    pub sources: Vec<Source>,
    /// What was read, to know whether another tree gives the same.
    pub reads: ReadSet,
    /// What was decrypted, and must not be repeated in messages about the objects.
    pub confidential: Confidential,
    /// What made and changed each object, by its position, if that was asked for.
    pub steps: Vec<Vec<Step>>,
}

impl Rendered {
    /// The objects as a bundle.
    ///
    /// # Errors
    /// [`DuplicateObject`] names both files where two objects differ only in version.
    pub fn bundle(&self) -> Result<Bundle, DuplicateObject> {
        let source = |at: usize| self.sources.get(at).map(ToString::to_string).unwrap_or_default();
        Bundle::with_sources(self.objects.clone(), source)
    }
}

/// A render that failed, and what it had read by then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct FailedRender {
    /// Why it failed.
    #[source]
    pub error: RenderError,
    /// What was read: while that is unchanged, rendering again fails in the same way.
    pub reads: ReadSet,
}

/// Renders a path of a tree as `kustomize build` does; a folder without a kustomization is read as plain
/// YAML and JSON files, recursively, in the order of their paths.
///
/// Files may be anywhere in the tree; what leads out of it is refused.
///
/// # Errors
/// [`RenderError`] with the file, the line, and what to do.
///
/// ```
/// use engine::kustomize::{MapTree, render};
/// let tree = MapTree::new()
///     .with("dev/kustomization.yaml", "namespace: dev\nresources: [config.yaml]\n")
///     .with("dev/config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
/// let rendered = render(&tree, "dev")?;
/// assert_eq!(rendered.objects[0].namespace(), Some("dev"));
/// assert!(rendered.reads.unchanged(&tree.with("README.md", "elsewhere")));
/// # Ok::<(), engine::kustomize::RenderError>(())
/// ```
pub fn render(tree: &dyn Tree, path: &str) -> Result<Rendered, RenderError> {
    render_as(Options::default(), tree, path).map_err(|failed| failed.error)
}

/// As [`render`], but takes what included kustomizations gave from a cache, and keeps it there.
///
/// # Errors
/// As [`render`].
pub fn render_with(cache: &Cache, tree: &dyn Tree, path: &str) -> Result<Rendered, RenderError> {
    let options = Options { cache: Some(cache), ..Options::default() };
    render_as(options, tree, path).map_err(|failed| failed.error)
}

/// What a render may use.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Where results of included kustomizations are kept and found.
    pub cache: Option<&'a Cache>,
    /// What encrypted files are opened with.
    pub keys: Option<&'a dyn KeyRing>,
    /// Whether encrypted values stay as they are: for a look at everything else where no key is at hand.
    /// Without a cache.
    pub keep_encrypted: bool,
    /// Whether every object notes what made it and what changed it. Takes time, and no cache is used.
    pub explain: bool,
}

/// As [`render`], with a cache and with keys. Gives what was read also where rendering fails, so that a
/// failure need not be repeated until something that it read changes.
///
/// # Errors
/// As [`render`], with what was read. Nothing that was decrypted is repeated in the message.
pub fn render_as(options: Options<'_>, tree: &dyn Tree, path: &str) -> Result<Rendered, Box<FailedRender>> {
    let mut renderer = Renderer {
        cache: options.cache.filter(|_| !options.explain && !options.keep_encrypted),
        keeps_encrypted: options.keep_encrypted,
        explains: options.explain,
        keys: options.keys,
        confidential: RefCell::default(),
        deepest: 0,
        reader: Reader::with_keys(tree, options.keys),
        stack: Vec::new(),
        visited: 0,
        tracks_origin: false,
        schemas: Schemas::default(),
        schema_is_set: false,
        builtin_uses: 0,
    };
    let result = renderer.render(path).and_then(finish);
    let (reads, mut confidential) = (renderer.reader.into_read_set(), renderer.confidential.into_inner());
    match result {
        Ok(Finished { objects, sources, steps }) => {
            confidential.reveal_names(&objects);
            Ok(Rendered { objects, sources, reads, confidential, steps })
        }
        Err(error) => Err(Box::new(FailedRender { error: error.mask(&confidential), reads })),
    }
}

/// Objects, with where each is from and what changed it.
struct Finished {
    objects: Vec<Object>,
    sources: Vec<Source>,
    steps: Vec<Vec<Step>>,
}

/// Turns resources into objects and checks that each identity is there once.
fn finish(resources: Vec<Resource>) -> Result<Finished, RenderError> {
    let mut objects = Vec::with_capacity(resources.len());
    let mut sources = Vec::with_capacity(resources.len());
    let mut steps = Vec::with_capacity(resources.len());
    let mut identities = Vec::with_capacity(resources.len());
    for mut resource in resources {
        resource.settle_annotations();
        resource.settle_empty_fields();
        let identity = (resource.id().clone(), resource.shared_namespace());
        let (source, of_object) = (std::mem::take(&mut resource.source), std::mem::take(&mut resource.steps));
        let object = Object::new(resource.into_value())
            .map_err(|problem| RenderError::Object { source_at: source.clone(), problem })?;
        objects.push(object);
        identities.push(identity);
        sources.push(source);
        steps.push(of_object);
    }
    let mut seen = std::collections::HashMap::with_capacity(objects.len());
    for (at, (id, namespace)) in identities.iter().enumerate() {
        // As the identity of an object in a cluster: the version does not count, the namespace as it is written does.
        let gvk = id.gvk();
        if let Some(first) = seen.insert((&id.name, namespace, &gvk.kind, &gvk.group), at) {
            let source = |at: usize| sources.get(at).cloned().unwrap_or_default();
            return Err(RenderError::Duplicate {
                object: objects.get(at).map(|object| object.object_ref().to_string()).unwrap_or_default(),
                first: source(first),
                second: source(at),
            });
        }
    }
    Ok(Finished { objects, sources, steps })
}

pub(super) struct Renderer<'t> {
    pub(super) cache: Option<&'t Cache>,
    pub(super) keys: Option<&'t dyn KeyRing>,
    /// What was decrypted.
    pub(super) confidential: RefCell<Confidential>,
    /// Whether encrypted values stay as they are.
    pub(super) keeps_encrypted: bool,
    /// Whether objects note what changed them.
    pub(super) explains: bool,
    /// How deep kustomizations nested where they nested deepest.
    pub(super) deepest: usize,
    pub(super) reader: Reader<'t>,
    /// The folders that are being accumulated, from the outermost.
    pub(super) stack: Vec<String>,
    pub(super) visited: usize,
    pub(super) tracks_origin: bool,
    pub(super) schemas: Schemas,
    pub(super) schema_is_set: bool,
    /// How often the built-in schemas were needed.
    pub(super) builtin_uses: usize,
}

impl Renderer<'_> {
    fn render(&mut self, path: &str) -> Result<Vec<Resource>, RenderError> {
        let missing = || RenderError::MissingPath { path: path.to_owned() };
        let normal = join("", path).ok_or_else(missing)?;
        match self.reader.resolve(&normal)?.ok_or_else(missing)? {
            (directory, EntryKind::Directory) => match self.kustomization_file(&directory)? {
                Some(file) => self.render_kustomization(&directory, &file),
                None => self.render_folder(&directory),
            },
            (file, _) => self.read_objects(&file, &file),
        }
    }

    fn render_kustomization(&mut self, directory: &str, file: &str) -> Result<Vec<Resource>, RenderError> {
        let root = Kustomization::read(&self.text(file)?, file)?;
        self.tracks_origin = !root.build_metadata.is_empty();
        let mut accumulated = self.accumulate(directory, "", &root, self.nothing_yet())?;
        accumulated.begin_steps();
        hash::rename_by_content(&mut accumulated.resources);
        let config = accumulated.config.clone().unwrap_or_else(TransformerConfig::builtin);
        let end = Source::new(file, 1);
        accumulated.step(None, || Step::new("name suffix from the content", &end));
        name_references::follow(&mut accumulated.resources, &config)?;
        accumulated.step(None, || Step::new("references to names", &end));
        vars::resolve(&accumulated.variables, accumulated.resources.as_mut_slice(), &config.var_reference)?;
        accumulated.step(None, || Step::new("vars", &root.source_of("vars")));
        let mut list = accumulated.resources.into_list();
        list.retain(|resource| !resources::is_for_other_tools(resource.value()));
        order::sort(&mut list, root.sort.as_ref());
        for resource in &mut list {
            build_metadata::write_annotations(resource, &root.build_metadata);
        }
        Ok(list)
    }

    /// Reads a folder without a kustomization; folders in it that have one are rendered by it.
    fn render_folder(&mut self, directory: &str) -> Result<Vec<Resource>, RenderError> {
        let mut map = ResourceMap::default();
        self.read_folder(directory, &mut map)?;
        Ok(map.into_list())
    }

    fn read_folder(&mut self, directory: &str, map: &mut ResourceMap) -> Result<(), RenderError> {
        self.enter(directory, &Source::new(directory, 1))?;
        for (name, _) in self.reader.list(directory)? {
            if name.starts_with('.') {
                continue;
            }
            let path = join(directory, &name).unwrap_or_default();
            match self.reader.resolve(&path)? {
                Some((inner, EntryKind::Directory)) => match self.kustomization_file(&inner)? {
                    Some(file) => {
                        let nested = Kustomization::read(&self.text(&file)?, &file)?;
                        if !nested.is_component {
                            for resource in self.render_kustomization(&inner, &file)? {
                                map.append(resource)?;
                            }
                        }
                    }
                    None => self.read_folder(&inner, map)?,
                },
                Some((file, EntryKind::File)) if is_manifest(&name) => {
                    for resource in self.read_objects(&file, &path)? {
                        map.append(resource)?;
                    }
                }
                _ => {}
            }
        }
        self.stack.pop();
        Ok(())
    }

    /// The objects of a file; errors name it by `shown`.
    fn read_objects(&self, file: &str, shown: &str) -> Result<Vec<Resource>, RenderError> {
        let mut resources = resources::read(&self.text(file)?, shown, Role::Object)?;
        resources.iter_mut().try_for_each(|resource| self.open_entries(resource))?;
        if self.explains {
            for resource in &mut resources {
                let source = resource.source.clone();
                resource.steps.push(Step::new("resources", &source));
            }
        }
        Ok(resources)
    }

    /// An accumulator with nothing in it.
    pub(super) fn nothing_yet(&self) -> Accumulator {
        Accumulator { explains: self.explains, ..Accumulator::default() }
    }

    /// Notes that a folder is being accumulated; refuses cycles and endless nesting.
    fn enter(&mut self, directory: &str, from: &Source) -> Result<(), RenderError> {
        if let Some(at) = self.stack.iter().position(|known| known == directory) {
            let mut chain: Vec<String> = self.stack[at..].to_vec();
            chain.push(directory.to_owned());
            for folder in chain.iter_mut().filter(|folder| folder.is_empty()) {
                *folder = ".".to_owned();
            }
            return Err(RenderError::Cycle { chain });
        }
        self.check_limits(1, 1, from)?;
        self.visited += 1;
        self.stack.push(directory.to_owned());
        self.deepest = self.deepest.max(self.stack.len());
        Ok(())
    }

    /// Refuses more kustomizations than a render may go through.
    pub(super) fn check_limits(&self, more: usize, deeper: usize, from: &Source) -> Result<(), RenderError> {
        let too_many = |what, limit| Err(RenderError::TooMany { source_at: from.clone(), what, limit });
        if self.stack.len() + deeper > MAX_NESTING {
            return too_many("levels of kustomizations", MAX_NESTING);
        }
        if self.visited + more > MAX_KUSTOMIZATIONS {
            return too_many("kustomizations", MAX_KUSTOMIZATIONS);
        }
        Ok(())
    }

    /// Goes through one kustomization: resources, generators, components, transformers.
    pub(super) fn accumulate(
        &mut self,
        directory: &str,
        origin: &str,
        kustomization: &Kustomization,
        mut accumulated: Accumulator,
    ) -> Result<Accumulator, RenderError> {
        self.enter(directory, &Source::new(&kustomization.file, 1))?;
        self.use_schema(directory, kustomization)?;
        for entry in &kustomization.resources {
            self.add_resource(directory, origin, entry, &mut accumulated)?;
        }
        self.add_config(directory, kustomization, &mut accumulated)?;
        for generator in &kustomization.generators {
            let load = |file: &SourceFile<'_>| self.load(directory, file);
            let mut generated = if self.keeps_encrypted {
                generator.without_encrypted().generate(&load)?
            } else {
                generator.generate(&load)?
            };
            if self.explains {
                generated.steps.push(Step::new(generator.kind.field(), &generator.source));
            }
            if self.tracks_origin {
                generated.origin =
                    Some(configured(origin, &kustomization.file, generator.kind.plugin_name()));
            }
            accumulated.resources.absorb(generated)?;
        }
        self.run_generators(directory, origin, kustomization, &mut accumulated)?;
        for entry in &kustomization.components {
            let (inner, nested) = self.nested(directory, entry, true)?;
            let inner_origin = join_origin(origin, &entry.text);
            accumulated = self.accumulate(&inner, &inner_origin, &nested, accumulated)?;
        }
        let load = |path: &Located| {
            let file = self.find(directory, path)?;
            Ok((self.text(&file)?, file))
        };
        let note = |name: &str| self.tracks_origin.then(|| configured(origin, &kustomization.file, name));
        transform::run(kustomization, &mut accumulated, &load, &note, &self.schemas)?;
        self.builtin_uses += kustomization.patches.len() + kustomization.patches_strategic.len();
        self.run_transformers(directory, origin, kustomization, &mut accumulated)?;
        accumulated.bind_variables(&kustomization.variables)?;
        self.stack.pop();
        Ok(accumulated)
    }

    /// Adds a file's objects, or what a folder's kustomization makes.
    pub(super) fn add_resource(
        &mut self,
        directory: &str,
        origin: &str,
        entry: &Located,
        accumulated: &mut Accumulator,
    ) -> Result<(), RenderError> {
        match self.locate(directory, entry)? {
            (_, EntryKind::Directory) => {
                let child = self.included(directory, origin, entry)?;
                accumulated.merge(child, &entry.source)
            }
            (file, _) => {
                for mut resource in self.read_objects(&file, &file)? {
                    self.builtin_uses += usize::from(schema::scope(resource.gvk()).is_none());
                    if self.tracks_origin {
                        resource.origin =
                            Some(Origin { path: join_origin(origin, &entry.text), ..Origin::default() });
                    }
                    accumulated.resources.append(resource)?;
                }
                Ok(())
            }
        }
    }
}

fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|extension| name.ends_with(extension))
}

/// What `buildMetadata` says of a generator or transformer.
fn configured(origin: &str, file: &str, kind: &str) -> Origin {
    let name = file.rsplit('/').next().unwrap_or(file);
    Origin { configured_in: join_origin(origin, name), configured_by: kind.to_owned(), ..Origin::default() }
}

/// Joins paths that may lead upwards from the rendered folder, as Go's `filepath.Join` does.
pub(super) fn join_origin(origin: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in origin.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
