//! Generators and transformers that are given as objects, in files or in place.
//!
//! Kustomize's own (`apiVersion: builtin`) are run; programs and containers are refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::object::yaml::{Key, Node, NodeKind};

use super::accumulator::Accumulator;
use super::error::RenderError;
use super::field_spec::FieldSpec;
use super::fields::{Fields, Located};
use super::generators::{GeneratorKind, LoadFile};
use super::hash;
use super::images::Image;
use super::kustomization::{self, PatchEntry, ReplacementEntry};
use super::labels::set_pairs;
use super::merge_schema::Schemas;
use super::names::{Affix, rename};
use super::namespace::{NamespaceOptions, Subjects, set_namespace};
use super::patches::{self, PatchText};
use super::replicas::Replicas;
use super::resource::{Origin, Resource, Source};
use super::resources::Role;
use super::transform::{self, Load};
use super::value_add;

/// Says where an object that configures a generator or transformer is from.
pub(super) fn origin(resource: &Resource) -> Option<Origin> {
    resource.origin.as_ref().map(|origin| Origin {
        path: String::new(),
        configured_in: origin.path.clone(),
        configured_by: resource.kind().to_owned(),
        name: resource.name().to_owned(),
        namespace: resource.namespace().to_owned(),
    })
}

/// Runs a generator.
pub(super) fn generate(resource: &Resource, load: LoadFile<'_>) -> Result<Resource, RenderError> {
    let kind = match builtin_kind(resource)? {
        "ConfigMapGenerator" => GeneratorKind::ConfigMap,
        "SecretGenerator" => GeneratorKind::Secret,
        "IAMPolicyGenerator" => return service_account(resource),
        kind => {
            return Err(unknown(resource, kind, "ConfigMapGenerator, SecretGenerator or IAMPolicyGenerator"));
        }
    };
    let (file, line) = (resource.source.file.as_str(), resource.source.line);
    let known = kustomization::generator_fields(kind);
    let mut node = settings(resource, &known);
    if let NodeKind::Map(entries) = &mut node.kind {
        // A name of its own wins over that of the object.
        for (name, text) in [("name", resource.name()), ("namespace", resource.namespace())] {
            if !text.is_empty() && !entries.iter().any(|(key, _)| key.text == name) {
                entries.push((key_of(name, line), node_of(&Value::from(text), line)));
            }
        }
    }
    kustomization::generator(&node, file, kind, None)?.generate(load)
}

/// A service account that is bound to one of Google's.
fn service_account(resource: &Resource) -> Result<Resource, RenderError> {
    let settings = resource.value();
    if settings["cloud"] != "gke" {
        return Err(RenderError::Invalid {
            source_at: resource.source.clone(),
            problem: "cloud must be gke; write the service account itself for others".to_owned(),
        });
    }
    let text = |object: &str, field: &str| settings[object][field].as_str().unwrap_or_default().to_owned();
    let (account, project) = (text("serviceAccount", "name"), text("serviceAccount", "projectId"));
    let mut value = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "annotations": {
                "iam.gke.io/gcp-service-account": format!("{account}@{project}.iam.gserviceaccount.com"),
            },
            "name": text("kubernetesService", "name"),
        },
    });
    let namespace = text("kubernetesService", "namespace");
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = Value::String(namespace);
    }
    Resource::new(value, resource.source.clone())
        .map_err(|problem| RenderError::Object { source_at: resource.source.clone(), problem })
}

/// A transformer that an object configures.
pub(super) struct Transformer {
    source: Source,
    action: Action,
}

enum Action {
    Prefix(Arc<str>, Vec<FieldSpec>),
    Suffix(Arc<str>, Vec<FieldSpec>),
    Namespace(String, Vec<FieldSpec>, NamespaceOptions),
    Pairs(BTreeMap<String, String>, Vec<FieldSpec>),
    Image(Image, Vec<FieldSpec>),
    Replicas(Replicas, Vec<FieldSpec>),
    Patch(PatchEntry),
    PatchJson(PatchEntry),
    PatchStrategic(Vec<Located>, Option<Located>),
    Replacements(Vec<ReplacementEntry>),
    ValueAdd { value: String, targets: Vec<value_add::Target>, file: Option<Located> },
    Hash,
}

impl Transformer {
    /// Reads an object; the legacy `PrefixSuffixTransformer` is two transformers.
    pub fn read(resource: &Resource) -> Result<Vec<Self>, RenderError> {
        let kind = builtin_kind(resource)?;
        let file = resource.source.file.as_str();
        let own: &[&str] = match kind {
            "PrefixTransformer" => &["prefix", "fieldSpecs"],
            "SuffixTransformer" => &["suffix", "fieldSpecs"],
            "PrefixSuffixTransformer" => &["prefix", "suffix", "fieldSpecs"],
            "NamespaceTransformer" => &["fieldSpecs", "unsetOnly", "setRoleBindingSubjects"],
            "LabelTransformer" => &["labels", "fieldSpecs"],
            "AnnotationsTransformer" => &["annotations", "fieldSpecs"],
            "ImageTagTransformer" => &["imageTag", "fieldSpecs"],
            "ReplicaCountTransformer" => &["replica", "fieldSpecs"],
            "PatchTransformer" => &["path", "patch", "target", "options"],
            "PatchStrategicMergeTransformer" => &["paths", "patches"],
            "PatchJson6902Transformer" => &["target", "path", "jsonOp"],
            "ReplacementTransformer" => &["replacements"],
            "ValueAddTransformer" => &["value", "targets", "targetFilePath"],
            "HashTransformer" => &[],
            _ => {
                return Err(unknown(
                    resource,
                    kind,
                    "one of kustomize's transformers, such as PatchTransformer",
                ));
            }
        };
        let node = settings(resource, own);
        let fields = Fields::new(&node, file, kind, own)?;
        let specs = || -> Result<Vec<FieldSpec>, RenderError> {
            fields.items("fieldSpecs")?.iter().map(|item| kustomization::field_spec(item, file)).collect()
        };
        let affix = |name| {
            let text = fields.short(name)?.map_or_else(|| Arc::from(""), |located| Arc::from(located.text));
            if fields.get("fieldSpecs").is_none() {
                return Err(fields.invalid(format!("a {kind} needs fieldSpecs; name metadata/name")));
            }
            Ok(text)
        };
        let inner = |name| {
            fields
                .get(name)
                .map(|(_, node)| node)
                .ok_or_else(|| fields.invalid(format!("a {kind} needs {name}")))
        };
        let actions = match kind {
            "PrefixTransformer" => vec![Action::Prefix(affix("prefix")?, specs()?)],
            "SuffixTransformer" => vec![Action::Suffix(affix("suffix")?, specs()?)],
            "PrefixSuffixTransformer" => {
                vec![Action::Prefix(affix("prefix")?, specs()?), Action::Suffix(affix("suffix")?, specs()?)]
            }
            "NamespaceTransformer" => {
                let mode = fields.text("setRoleBindingSubjects")?;
                let subjects = Subjects::read(&mode).ok_or_else(|| {
                    fields.invalid(format!(
                        "setRoleBindingSubjects {mode:?} must be defaultOnly, allServiceAccounts or none"
                    ))
                })?;
                let options = NamespaceOptions { unset_only: fields.flag("unsetOnly")?, subjects };
                vec![Action::Namespace(resource.namespace().to_owned(), specs()?, options)]
            }
            "LabelTransformer" => vec![Action::Pairs(fields.pairs("labels")?, specs()?)],
            "AnnotationsTransformer" => vec![Action::Pairs(fields.pairs("annotations")?, specs()?)],
            "ImageTagTransformer" => {
                vec![Action::Image(kustomization::image(inner("imageTag")?, file)?.1, specs()?)]
            }
            "ReplicaCountTransformer" => {
                vec![Action::Replicas(kustomization::replicas(inner("replica")?, file)?.1, specs()?)]
            }
            "PatchTransformer" => vec![Action::Patch(kustomization::patch_entry(&fields, file, "patch")?)],
            "PatchJson6902Transformer" => {
                vec![Action::PatchJson(kustomization::patch_entry(&fields, file, "jsonOp")?)]
            }
            "PatchStrategicMergeTransformer" => {
                vec![Action::PatchStrategic(fields.texts("paths")?, fields.located("patches")?)]
            }
            "ReplacementTransformer" => {
                let items = fields.items("replacements")?.iter();
                vec![Action::Replacements(
                    items.map(|item| kustomization::replacement(item, file)).collect::<Result<_, _>>()?,
                )]
            }
            "ValueAddTransformer" => {
                let value = fields.short("value")?.map(|value| value.text.trim().to_owned());
                let Some(value) = value.filter(|value| !value.is_empty()) else {
                    // The folder's name, which kustomize would take, is not the same for everybody who has the repository.
                    return Err(fields.invalid("a ValueAddTransformer needs value"));
                };
                let (targets, file) = (value_add::targets(&fields, file)?, fields.located("targetFilePath")?);
                if targets.is_empty() && file.is_none() {
                    return Err(fields.invalid("a ValueAddTransformer needs targets or targetFilePath"));
                }
                vec![Action::ValueAdd { value, targets, file }]
            }
            _ => vec![Action::Hash],
        };
        Ok(actions.into_iter().map(|action| Self { source: resource.source.clone(), action }).collect())
    }

    /// Runs the transformer.
    pub fn apply(
        &self,
        accumulated: &mut Accumulator,
        load: Load<'_>,
        schemas: &Schemas,
    ) -> Result<(), RenderError> {
        let at = |problem: String| RenderError::Invalid { source_at: self.source.clone(), problem };
        let resources = &mut accumulated.resources;
        match &self.action {
            Action::Prefix(text, specs) => {
                resources.iter_mut().try_for_each(|r| rename(Affix::Prefix(text), r, specs)).map_err(at)
            }
            Action::Suffix(text, specs) => {
                resources.iter_mut().try_for_each(|r| rename(Affix::Suffix(text), r, specs)).map_err(at)
            }
            Action::Namespace(namespace, _, _) if namespace.is_empty() => Ok(()),
            Action::Namespace(namespace, specs, options) => {
                resources
                    .iter_mut()
                    .try_for_each(|r| set_namespace(namespace, r, specs, *options))
                    .map_err(at)?;
                resources.check_identities()
            }
            Action::Pairs(pairs, specs) => {
                transform::grow_by_pairs(pairs, accumulated, &self.source)?;
                let mut resources = accumulated.resources.iter_mut();
                resources.try_for_each(|r| set_pairs(pairs, r, specs)).map_err(at)
            }
            Action::Image(image, specs) => {
                let pattern = image.pattern().map_err(at)?;
                resources.iter_mut().try_for_each(|r| image.apply(&pattern, r, specs)).map_err(at)
            }
            Action::Replicas(replicas, specs) => {
                let mut found = false;
                for resource in resources.iter_mut() {
                    found |= replicas.apply(resource, specs).map_err(at)?;
                }
                if found { Ok(()) } else { Err(at(replicas.without_object())) }
            }
            Action::Patch(entry) => {
                let patch = transform::read_patch(entry, &self.source.file, load)?;
                patches::apply(entry, patch, resources, schemas)
            }
            Action::PatchJson(entry) => {
                let patch = transform::read_patch(entry, &self.source.file, load)?;
                resources.iter_mut().try_for_each(patches::json(entry, patch)?)
            }
            Action::PatchStrategic(paths, inline) => {
                let mut strategic = Vec::new();
                for path in paths {
                    strategic.extend(transform::strategic_patch(path, &self.source.file, load)?);
                }
                if let Some(inline) = inline {
                    let text: PatchText = patches::inline(inline, &self.source.file);
                    strategic.extend(patches::strategic(&text, Role::Patch)?);
                }
                if strategic.is_empty() {
                    return Err(at("the transformer has no patches; add paths or patches".to_owned()));
                }
                patches::apply_strategic(strategic, resources, schemas)
            }
            Action::Replacements(entries) => transform::replace(entries, &self.source, accumulated, load),
            Action::ValueAdd { value, targets, file } => {
                let more = match file {
                    Some(path) => {
                        let (text, file) = load(path)?;
                        value_add::read_file(&text, &file)?
                    }
                    None => Vec::new(),
                };
                targets.iter().chain(&more).try_for_each(|target| target.apply(value, resources))
            }
            Action::Hash => {
                hash::rename_by_content(resources);
                Ok(())
            }
        }
    }
}

/// The kind of an object that kustomize itself understands as a plugin.
fn builtin_kind(resource: &Resource) -> Result<&str, RenderError> {
    let kind = resource.kind();
    if resource.value()["apiVersion"] == "builtin" && kind != "HelmChartInflationGenerator" {
        return Ok(kind);
    }
    let instead = match kind {
        "HelmChartInflationGenerator" => "run helm template in CI and commit what it writes",
        _ => "run it in CI and commit what it writes, or use kustomize's own with apiVersion: builtin",
    };
    Err(RenderError::Refused {
        source_at: resource.source.clone(),
        what: format!("the plugin {kind}"),
        instead: instead.to_owned(),
    })
}

fn unknown(resource: &Resource, kind: &str, expected: &str) -> RenderError {
    RenderError::Invalid {
        source_at: resource.source.clone(),
        problem: format!("{kind} is not known here; it must be {expected}"),
    }
}

fn key_of(name: &str, line: usize) -> Key {
    Key { text: name.to_owned(), line, column: 1 }
}

/// The settings among an object's fields; like kustomize, this leaves others alone.
fn settings(resource: &Resource, known: &[&str]) -> Node {
    let mut node = node_of(resource.value(), resource.source.line);
    if let NodeKind::Map(entries) = &mut node.kind {
        let is_known =
            |key: &Key, known: &[&str]| known.iter().any(|name| name.eq_ignore_ascii_case(&key.text));
        entries.retain(|(key, _)| is_known(key, known));
        let specs = entries.iter_mut().filter(|(key, _)| key.text.eq_ignore_ascii_case("fieldSpecs"));
        for (_, specs) in specs {
            let NodeKind::List(items) = &mut specs.kind else { continue };
            for item in items {
                let NodeKind::Map(fields) = &mut item.kind else { continue };
                fields.retain(|(key, _)| is_known(key, &kustomization::FIELD_SPEC_FIELDS));
            }
        }
    }
    make_texts(&mut node);
    node
}

/// The fields that are no texts.
const NO_TEXTS: [&str; 9] = [
    "create",
    "unsetOnly",
    "index",
    "count",
    "filePathPosition",
    "immutable",
    "disableNameSuffixHash",
    "allowNameChange",
    "allowKindChange",
];

/// Makes texts of scalars that stand where a text is due: of the objects that configure its plugins, unlike of a
/// kustomization, kustomize reads `newTag: 1.15` and `true` as a label as if they were in quotes.
fn make_texts(node: &mut Node) {
    match &mut node.kind {
        NodeKind::List(items) => items.iter_mut().for_each(make_texts),
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                let holds_texts = matches!(key.text.as_str(), "labels" | "annotations");
                match &mut value.kind {
                    NodeKind::Map(texts) if holds_texts => {
                        texts.iter_mut().for_each(|(_, text)| make_text(text));
                    }
                    NodeKind::Scalar(_)
                        if !NO_TEXTS.iter().any(|name| name.eq_ignore_ascii_case(&key.text)) =>
                    {
                        make_text(value);
                    }
                    _ => make_texts(value),
                }
            }
        }
        NodeKind::Scalar(_) => {}
    }
}

fn make_text(node: &mut Node) {
    if let NodeKind::Scalar(scalar @ (Value::Bool(_) | Value::Number(_))) = &mut node.kind {
        *scalar = Value::String(go_text(scalar));
    }
}

/// A number as Go formats it: without the `.0` of a whole one.
fn go_text(scalar: &Value) -> String {
    let text = scalar.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A value as settings that all stand in one line: a transformer's object may itself be generated.
fn node_of(value: &Value, line: usize) -> Node {
    let kind = match value {
        Value::Array(items) => NodeKind::List(items.iter().map(|item| node_of(item, line)).collect()),
        Value::Object(map) => {
            NodeKind::Map(map.iter().map(|(name, item)| (key_of(name, line), node_of(item, line))).collect())
        }
        scalar => NodeKind::Scalar(scalar.clone()),
    };
    Node { line, column: 1, raw: None, in_flow: false, kind }
}
