//! A kustomization file as read, every part with its place.

use std::collections::BTreeMap;

use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes};

use super::error::RenderError;
use super::field_spec::{FieldSpec, SpecPath};
use super::fields::{Fields, Located, invalid};
use super::generators::{Generator, GeneratorKind, GeneratorOptions};
use super::identity::KindFilter;
use super::images::Image;
use super::labels::Labels;
use super::replacements::{REPLACEMENT_FIELDS, Replacement};
use super::replicas::Replicas;
use super::resource::Source;
use super::selector::Selector;
use super::vars::Variable;

/// The names that a kustomization file may have.
pub(super) const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const KNOWN: [&str; 34] = [
    "apiVersion",
    "kind",
    "metadata",
    "openapi",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "commonAnnotations",
    "patchesStrategicMerge",
    "patchesJson6902",
    "patches",
    "images",
    "imageTags",
    "replacements",
    "replicas",
    "vars",
    "sortOptions",
    "resources",
    "components",
    "crds",
    "bases",
    "configMapGenerator",
    "secretGenerator",
    "helmGlobals",
    "helmCharts",
    "helmChartInflationGenerator",
    "generatorOptions",
    "configurations",
    "generators",
    "transformers",
    "validators",
    "buildMetadata",
];

/// One entry of `patches` or `patchesJson6902`.
#[derive(Debug, Clone)]
pub(super) struct PatchEntry {
    pub source: Source,
    pub patch: Option<Located>,
    pub path: Option<Located>,
    pub target: Option<Selector>,
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

/// The order of the rendered objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SortOrder {
    /// As loaded.
    Fifo,
    /// By kind; the two lists come first and last, kustomize's own where none is given.
    Legacy(Option<(Vec<String>, Vec<String>)>),
}

/// One entry of `replacements`: in place, or in a file.
#[derive(Debug, Clone)]
pub(super) enum ReplacementEntry {
    Inline(Box<Replacement>),
    File(Located),
}

/// The schema that a kustomization asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenApi {
    /// One that kustomize has built in.
    Version(Located),
    /// A file of the repository.
    Path(Located),
}

/// A kustomization file.
#[derive(Debug, Clone)]
pub(super) struct Kustomization {
    pub file: String,
    pub is_component: bool,
    pub resources: Vec<Located>,
    pub components: Vec<Located>,
    pub configurations: Vec<Located>,
    pub crds: Vec<Located>,
    pub openapi: Option<OpenApi>,
    pub plugin_generators: Vec<Located>,
    pub plugin_transformers: Vec<Located>,
    pub name_prefix: Option<Located>,
    pub name_suffix: Option<Located>,
    pub namespace: Option<Located>,
    pub labels: Vec<(Source, Labels)>,
    pub common_labels: BTreeMap<String, String>,
    pub common_annotations: BTreeMap<String, String>,
    pub patches_strategic: Vec<Located>,
    pub patches: Vec<PatchEntry>,
    pub patches_json: Vec<PatchEntry>,
    pub images: Vec<(Source, Image)>,
    pub replicas: Vec<(Source, Replicas)>,
    pub replacements: Vec<ReplacementEntry>,
    pub variables: Vec<Variable>,
    pub generators: Vec<Generator>,
    pub sort: Option<SortOrder>,
    pub build_metadata: Vec<String>,
    /// Where the fields stand that are one setting, or are looked at as one.
    lines: BTreeMap<String, usize>,
}

impl Kustomization {
    /// Where a field stands; the beginning of the file where it is not there.
    pub fn source_of(&self, field: &str) -> Source {
        Source::new(&self.file, self.lines.get(&field.to_ascii_lowercase()).copied().unwrap_or(1))
    }

    /// Reads a kustomization file.
    pub fn read(text: &str, file: &str) -> Result<Self, RenderError> {
        let documents = read_nodes(text, file, Dialect::Settings)?;
        let node = match documents.as_slice() {
            [node] => node,
            [] => {
                return Err(invalid(
                    file,
                    1,
                    "the kustomization is empty; name at least one of its resources",
                ));
            }
            [_, second, ..] => {
                return Err(invalid(file, second.line, "a kustomization is one document; remove the others"));
            }
        };
        let fields = Fields::new(node, file, "a kustomization", &KNOWN)?;
        refuse(&fields, file)?;
        let is_component = match fields.text("kind")?.as_str() {
            "" | "Kustomization" => false,
            "Component" => true,
            other => {
                return Err(
                    fields.invalid(format!("kind {other:?} is not Kustomization or Component; correct it"))
                );
            }
        };
        let version = fields.text("apiVersion")?;
        let expected =
            if is_component { "kustomize.config.k8s.io/v1alpha1" } else { "kustomize.config.k8s.io/v1beta1" };
        if !version.is_empty() && version != expected {
            return Err(fields.invalid(format!("apiVersion {version:?} must be {expected}")));
        }
        let mut resources = fields.texts("resources")?;
        resources.extend(fields.texts("bases")?);
        let options = fields.get("generatorOptions").map(|(_, n)| generator_options(n, file)).transpose()?;
        let mut generators = Vec::new();
        for (name, kind) in
            [("configMapGenerator", GeneratorKind::ConfigMap), ("secretGenerator", GeneratorKind::Secret)]
        {
            for item in fields.items(name)? {
                generators.push(generator(item, file, kind, options.as_ref())?);
            }
        }
        let mut images = Vec::new();
        for item in fields.items("images")?.iter().chain(fields.items("imageTags")?) {
            images.push(image(item, file)?);
        }
        Ok(Self {
            file: file.to_owned(),
            is_component,
            resources,
            components: fields.texts("components")?,
            configurations: fields.texts("configurations")?,
            crds: fields.texts("crds")?,
            openapi: fields.get("openapi").map(|(_, node)| openapi(node, file)).transpose()?.flatten(),
            plugin_generators: fields.texts("generators")?,
            plugin_transformers: fields.texts("transformers")?,
            name_prefix: fields.short("namePrefix")?,
            name_suffix: fields.short("nameSuffix")?,
            namespace: fields.short("namespace")?,
            labels: each(fields.items("labels")?, |item| labels(item, file))?,
            common_labels: fields.pairs("commonLabels")?,
            common_annotations: fields.pairs("commonAnnotations")?,
            patches_strategic: fields.texts("patchesStrategicMerge")?,
            patches: each(fields.items("patches")?, |item| patch(item, file))?,
            patches_json: each(fields.items("patchesJson6902")?, |item| patch(item, file))?,
            images,
            replicas: each(fields.items("replicas")?, |item| replicas(item, file))?,
            replacements: each(fields.items("replacements")?, |item| replacement(item, file))?,
            variables: each(fields.items("vars")?, |item| Variable::read(item, file))?,
            generators,
            sort: fields.get("sortOptions").map(|(_, n)| sort_order(n, file)).transpose()?,
            build_metadata: build_metadata(&fields)?,
            lines: fields.lines(),
        })
    }
}

fn each<T>(items: &[Node], read: impl Fn(&Node) -> Result<T, RenderError>) -> Result<Vec<T>, RenderError> {
    items.iter().map(read).collect()
}

/// Refuses what needs the network, runs programs, or is not rendered here.
fn refuse(fields: &Fields<'_>, file: &str) -> Result<(), RenderError> {
    let helm = "run helm template in CI and commit what it writes";
    for (name, instead) in [
        ("helmCharts", helm),
        ("helmGlobals", helm),
        ("helmChartInflationGenerator", helm),
        ("validators", "check with admission policies instead"),
    ] {
        if let Some((key, node)) = fields.get(name)
            && node.kind != NodeKind::List(Vec::new())
        {
            return Err(RenderError::Refused {
                source_at: Source::new(file, key.line),
                what: name.to_owned(),
                instead: instead.to_owned(),
            });
        }
    }
    Ok(())
}

fn build_metadata(fields: &Fields<'_>) -> Result<Vec<String>, RenderError> {
    let known = ["originAnnotations", "transformerAnnotations", "managedByLabel"];
    let options = fields.texts("buildMetadata")?;
    for option in &options {
        if !known.contains(&option.text.as_str()) {
            return Err(RenderError::UnknownField {
                source_at: option.source.clone(),
                field: option.text.clone(),
                suggestion: Some(known.join(", ")),
            });
        }
    }
    Ok(options.into_iter().map(|option| option.text).collect())
}

fn labels(node: &Node, file: &str) -> Result<(Source, Labels), RenderError> {
    let fields = Fields::new(
        node,
        file,
        "an entry of labels",
        &["pairs", "includeSelectors", "includeTemplates", "fields"],
    )?;
    let labels = Labels {
        pairs: fields.pairs("pairs")?,
        include_selectors: fields.flag("includeSelectors")?,
        include_templates: fields.flag("includeTemplates")?,
        fields: each(fields.items("fields")?, |item| field_spec(item, file))?,
    };
    Ok((fields.source(), labels))
}

/// The fields of a field spec.
pub(super) const FIELD_SPEC_FIELDS: [&str; 5] = ["group", "version", "kind", "path", "create"];

/// Reads a field spec, as in `configurations` and `labels`.
pub(super) fn field_spec(node: &Node, file: &str) -> Result<FieldSpec, RenderError> {
    let fields = Fields::new(node, file, "a field spec", &FIELD_SPEC_FIELDS)?;
    Ok(FieldSpec {
        kinds: KindFilter {
            group: fields.text("group")?,
            version: fields.text("version")?,
            kind: fields.text("kind")?,
        },
        path: SpecPath::read(&fields.text("path")?).map_err(|problem| fields.invalid(problem))?,
        create: fields.flag("create")?,
    })
}

fn openapi(node: &Node, file: &str) -> Result<Option<OpenApi>, RenderError> {
    let fields = Fields::new(node, file, "openapi", &["path", "version"])?;
    match (fields.located("path")?, fields.located("version")?) {
        (Some(_), Some(_)) => {
            Err(fields.invalid("openapi is given either by path or by version; remove one"))
        }
        (path, version) => Ok(path.map(OpenApi::Path).or(version.map(OpenApi::Version))),
    }
}

/// Reads an entry of `images`.
pub(super) fn image(node: &Node, file: &str) -> Result<(Source, Image), RenderError> {
    let fields =
        Fields::new(node, file, "an entry of images", &["name", "newName", "newTag", "digest", "tagSuffix"])?;
    let short =
        |name| Ok::<_, RenderError>(fields.short(name)?.map(|located| located.text).unwrap_or_default());
    let image = Image {
        name: fields.text("name")?,
        new_name: short("newName")?,
        new_tag: short("newTag")?,
        digest: short("digest")?,
        tag_suffix: short("tagSuffix")?,
    };
    Ok((fields.source(), image))
}

/// Reads an entry of `replicas`.
pub(super) fn replicas(node: &Node, file: &str) -> Result<(Source, Replicas), RenderError> {
    let fields = Fields::new(node, file, "an entry of replicas", &["name", "count"])?;
    Ok((
        fields.source(),
        Replicas { name: fields.text("name")?, count: fields.integer("count")?.unwrap_or(0) },
    ))
}

fn patch(node: &Node, file: &str) -> Result<PatchEntry, RenderError> {
    let fields = Fields::new(node, file, "an entry of patches", &["path", "patch", "target", "options"])?;
    patch_entry(&fields, file, "patch")
}

/// Reads a patch; `inline` is the field that holds one in place.
pub(super) fn patch_entry(fields: &Fields<'_>, file: &str, inline: &str) -> Result<PatchEntry, RenderError> {
    let options = match fields.get("options") {
        Some((_, node)) => Some(Fields::new(node, file, "options", &["allowNameChange", "allowKindChange"])?),
        None => None,
    };
    let option = |name| options.as_ref().map_or(Ok(false), |options| options.flag(name));
    Ok(PatchEntry {
        source: fields.source(),
        patch: fields.located(inline)?.filter(|patch| !patch.text.trim().is_empty()),
        path: fields.located("path")?.filter(|path| !path.text.is_empty()),
        target: fields.get("target").map(|(_, node)| selector(node, file)).transpose()?,
        allow_name_change: option("allowNameChange")?,
        allow_kind_change: option("allowKindChange")?,
    })
}

/// Reads a selector, as in patch targets and replacements.
pub(super) fn selector(node: &Node, file: &str) -> Result<Selector, RenderError> {
    let known = ["group", "version", "kind", "name", "namespace", "labelSelector", "annotationSelector"];
    let fields = Fields::new(node, file, "a target", &known)?;
    Ok(Selector {
        group: fields.text("group")?,
        version: fields.text("version")?,
        kind: fields.text("kind")?,
        name: fields.text("name")?,
        namespace: fields.text("namespace")?,
        labels: fields.text("labelSelector")?,
        annotations: fields.text("annotationSelector")?,
    })
}

/// Reads an entry of `replacements`.
pub(super) fn replacement(node: &Node, file: &str) -> Result<ReplacementEntry, RenderError> {
    let mut known = REPLACEMENT_FIELDS.to_vec();
    known.push("path");
    let fields = Fields::new(node, file, "an entry of replacements", &known)?;
    match fields.located("path")?.filter(|path| !path.text.is_empty()) {
        Some(_) if REPLACEMENT_FIELDS.iter().any(|field| fields.get(field).is_some()) => {
            Err(fields.invalid("a replacement is given either by path or in place; remove one of the two"))
        }
        Some(path) => Ok(ReplacementEntry::File(path)),
        None => Ok(ReplacementEntry::Inline(Box::new(Replacement::read(node, file)?))),
    }
}

fn generator_options(node: &Node, file: &str) -> Result<GeneratorOptions, RenderError> {
    let known = ["labels", "annotations", "disableNameSuffixHash", "immutable"];
    let fields = Fields::new(node, file, "generator options", &known)?;
    Ok(GeneratorOptions {
        labels: fields.pairs("labels")?,
        annotations: fields.pairs("annotations")?,
        disable_hash: fields.flag("disableNameSuffixHash")?,
        immutable: fields.flag("immutable")?,
    })
}

/// The fields of an entry of a generator list.
pub(super) fn generator_fields(kind: GeneratorKind) -> Vec<&'static str> {
    let mut known = vec!["namespace", "name", "behavior", "literals", "files", "envs", "env", "options"];
    if kind == GeneratorKind::Secret {
        known.push("type");
    }
    known
}

/// Reads an entry of a generator list.
pub(super) fn generator(
    node: &Node,
    file: &str,
    kind: GeneratorKind,
    global: Option<&GeneratorOptions>,
) -> Result<Generator, RenderError> {
    let fields = Fields::new(node, file, "a generator", &generator_fields(kind))?;
    let mut options =
        fields.get("options").map(|(_, node)| generator_options(node, file)).transpose()?.unwrap_or_default();
    if let Some(global) = global {
        options.add_global(global);
    }
    let mut envs = fields.texts("envs")?;
    envs.extend(fields.located("env")?.filter(|env| !env.text.is_empty()));
    let name = fields.text("name")?;
    if name.is_empty() {
        return Err(fields.invalid("a generator needs a name"));
    }
    Ok(Generator {
        kind,
        source: fields.source(),
        name,
        namespace: fields.text("namespace")?,
        behavior: fields.located("behavior")?,
        secret_type: if kind == GeneratorKind::Secret { fields.text("type")? } else { String::new() },
        literals: fields.texts("literals")?,
        files: fields.texts("files")?,
        envs,
        options,
    })
}

fn sort_order(node: &Node, file: &str) -> Result<SortOrder, RenderError> {
    let fields = Fields::new(node, file, "sortOptions", &["order", "legacySortOptions"])?;
    let legacy = fields.get("legacySortOptions");
    match fields.text("order")?.as_str() {
        "fifo" if legacy.is_some() => {
            Err(fields.invalid("legacySortOptions go with order: legacy; remove them or change the order"))
        }
        "fifo" => Ok(SortOrder::Fifo),
        "legacy" => {
            let Some((_, node)) = legacy else { return Ok(SortOrder::Legacy(None)) };
            let fields = Fields::new(node, file, "legacySortOptions", &["orderFirst", "orderLast"])?;
            let names =
                |name| Ok::<_, RenderError>(fields.texts(name)?.into_iter().map(|l| l.text).collect());
            Ok(SortOrder::Legacy(Some((names("orderFirst")?, names("orderLast")?))))
        }
        other => Err(fields.invalid(format!("order {other:?} must be fifo or legacy"))),
    }
}
