//! `replacements`: values copied from one object's field to others'.

use serde_json::Value;

use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes};

use super::embedded;
use super::error::RenderError;
use super::field_path::{self, Missing};
use super::fields::{Fields, invalid};
use super::identity::ResId;
use super::kustomization::selector;
use super::resource::{Resource, Source, scalar_text};
use super::resource_map::measure;
use super::selector::Matcher;

/// `options` of a source or target.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    delimiter: String,
    index: i64,
    create: bool,
}

#[derive(Debug, Clone)]
struct Target {
    select: Matcher,
    reject: Vec<Matcher>,
    field_paths: Vec<String>,
    options: Options,
}

/// The object that a value is copied from: its identity to the letter.
#[derive(Debug, Clone)]
struct Origin {
    group: String,
    version: String,
    kind: String,
    name: String,
    namespace: String,
    path: String,
    options: Options,
}

/// Where the value comes from.
#[derive(Debug, Clone)]
enum From {
    /// A field of an object.
    Object(Box<Origin>),
    /// The kustomization itself.
    Text(String),
}

/// One replacement.
#[derive(Debug, Clone)]
pub(super) struct Replacement {
    at: Source,
    from: From,
    targets: Vec<Target>,
}

/// What a replacement is made of, when it stands in place.
pub(super) const REPLACEMENT_FIELDS: [&str; 3] = ["source", "sourceValue", "targets"];
const SELECTOR_FIELDS: [&str; 5] = ["group", "version", "kind", "name", "namespace"];
const DEFAULT_PATH: &str = "metadata.name";

impl Replacement {
    /// Reads a replacement.
    pub fn read(node: &Node, file: &str) -> Result<Self, RenderError> {
        let mut known = REPLACEMENT_FIELDS.to_vec();
        known.push("path");
        let fields = Fields::new(node, file, "a replacement", &known)?;
        let from = match (fields.get("source"), fields.located("sourceValue")?) {
            (Some((_, source)), None) => From::Object(Box::new(Origin::read(source, file)?)),
            (None, Some(value)) => From::Text(value.text),
            (Some(_), Some(_)) => {
                return Err(
                    fields.invalid("source and sourceValue exclude each other; remove one of the two")
                );
            }
            (None, None) => return Err(fields.invalid("a replacement needs a source or a sourceValue")),
        };
        let targets = fields.items("targets")?;
        if targets.is_empty() {
            return Err(fields.invalid("a replacement needs at least one target"));
        }
        Ok(Self {
            at: fields.source(),
            from,
            targets: targets.iter().map(|target| Target::read(target, file)).collect::<Result<_, _>>()?,
        })
    }

    /// Reads a file that holds one replacement or a list of them.
    pub fn read_file(text: &str, file: &str) -> Result<Vec<Self>, RenderError> {
        let documents = read_nodes(text, file, Dialect::Settings)?;
        match documents.as_slice() {
            [Node { kind: NodeKind::List(items), .. }] => {
                items.iter().map(|item| Self::read(item, file)).collect()
            }
            [node] => Ok(vec![Self::read(node, file)?]),
            _ => Err(invalid(file, 1, "this must be one replacement or a list of them")),
        }
    }

    /// Copies the value; says how many bytes were written, which may not be more than `limit`.
    pub fn apply(&self, resources: &mut [Resource], limit: usize) -> Result<usize, RenderError> {
        let fail = |problem: String| RenderError::Invalid { source_at: self.at.clone(), problem };
        let value = match &self.from {
            From::Object(origin) => origin.value(resources).map_err(fail)?,
            From::Text(text) => Value::String(text.clone()),
        };
        let mut written = Written { each: measure(&value).map_err(fail)?, total: 0, limit };
        for target in &self.targets {
            for resource in resources.iter_mut() {
                if target.takes(resource) {
                    target.set(resource, &value, &mut written).map_err(fail)?;
                    // Mappings copied into mappings nest deeper each time.
                    measure(resource.value()).map_err(fail)?;
                }
            }
        }
        Ok(written.total)
    }
}

/// How much a replacement wrote.
struct Written {
    each: usize,
    total: usize,
    limit: usize,
}

impl Written {
    fn add(&mut self) -> Result<(), String> {
        self.spend(self.each)
    }

    fn left(&self) -> usize {
        self.limit.saturating_sub(self.total)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.total = self.total.saturating_add(bytes);
        if self.total > self.limit {
            return Err("the replacement writes more than a render may hold; select fewer fields".to_owned());
        }
        Ok(())
    }
}

impl Origin {
    fn read(node: &Node, file: &str) -> Result<Self, RenderError> {
        let mut known = SELECTOR_FIELDS.to_vec();
        known.extend(["fieldPath", "options"]);
        let fields = Fields::new(node, file, "a source", &known)?;
        let path = fields.text("fieldPath")?;
        Ok(Self {
            group: fields.text("group")?,
            version: fields.text("version")?,
            kind: fields.text("kind")?,
            name: fields.text("name")?,
            namespace: fields.text("namespace")?,
            path: if path.is_empty() { DEFAULT_PATH.to_owned() } else { path },
            options: options(&fields, file)?,
        })
    }

    /// Whether any identity that the object has or had is this one; empty parts select all.
    fn is(&self, resource: &Resource) -> bool {
        resource.is_any(|id: &ResId| {
            let fits = |wanted: &str, text: &str| wanted.is_empty() || wanted == text;
            fits(&self.name, &id.name)
                && fits(&self.namespace, &id.namespace)
                && fits(&self.group, &id.gvk().group)
                && fits(&self.version, &id.gvk().version)
                && fits(&self.kind, &id.gvk().kind)
        })
    }

    /// The value of the field in the one object.
    fn value(&self, resources: &[Resource]) -> Result<Value, String> {
        let mut found = resources.iter().filter(|resource| self.is(resource));
        let source = match (found.next(), found.next()) {
            (Some(source), None) => source,
            (None, _) => return Err("no object is selected as the source; correct it".to_owned()),
            _ => return Err("several objects are selected as the source; add a name or namespace".to_owned()),
        };
        let value = field_path::get(source.value(), &self.path).filter(|value| !is_empty(value));
        let value =
            value.ok_or_else(|| format!("{} has no {}; correct fieldPath", source.id(), self.path))?;
        refined(value, &self.options)
    }
}

impl Target {
    fn read(node: &Node, file: &str) -> Result<Self, RenderError> {
        let fields = Fields::new(node, file, "a target", &["select", "reject", "fieldPaths", "options"])?;
        let Some((_, select)) = fields.get("select") else {
            return Err(fields.invalid("a target needs select"));
        };
        let mut field_paths: Vec<String> =
            fields.texts("fieldPaths")?.into_iter().map(|path| path.text).collect();
        if field_paths.is_empty() {
            field_paths.push(DEFAULT_PATH.to_owned());
        }
        Ok(Self {
            select: matcher(select, file)?,
            reject: fields
                .items("reject")?
                .iter()
                .map(|item| matcher(item, file))
                .collect::<Result<_, _>>()?,
            field_paths,
            options: options(&fields, file)?,
        })
    }

    fn takes(&self, resource: &Resource) -> bool {
        let is_rejected = |reject: &Matcher| {
            (reject.has_metadata() && reject.fits_metadata(resource))
                || (reject.has_identity() && reject.fits_identity(resource))
        };
        self.select.fits_identity(resource)
            && self.select.fits_metadata(resource)
            && !self.reject.iter().any(is_rejected)
    }

    fn set(&self, resource: &mut Resource, value: &Value, written: &mut Written) -> Result<(), String> {
        let id = resource.id().clone();
        let mut object = resource.edit();
        for path in &self.field_paths {
            let missing = if self.options.create { Missing::Create } else { Missing::Skip };
            let steps = field_path::steps(path);
            let in_text = match field_path::text_within(&mut object, &steps) {
                // Options that split a value do not reach into texts, with kustomize neither.
                Some((text, rest)) => {
                    let count = embedded::set(text, rest, missing, value, written.left());
                    // The whole text is read and written for each path.
                    let size = text.len();
                    written.spend(size)?;
                    count.map_err(|problem| format!("{id} at {path}: {problem}"))?
                }
                None => 0,
            };
            if in_text > 0 {
                continue;
            }
            let count = field_path::visit(&mut object, &steps, missing, &mut |field| {
                written.add()?;
                replace(field, value, &self.options)
            })?;
            if count == 0 {
                return Err(format!(
                    "{id} has no {path} to replace; correct fieldPaths or set options.create"
                ));
            }
        }
        Ok(())
    }
}

fn options(fields: &Fields<'_>, file: &str) -> Result<Options, RenderError> {
    let Some((_, node)) = fields.get("options") else { return Ok(Options::default()) };
    let fields = Fields::new(node, file, "options", &["delimiter", "index", "encoding", "create"])?;
    Ok(Options {
        delimiter: fields.text("delimiter")?,
        index: fields.integer("index")?.unwrap_or(0),
        create: fields.flag("create")?,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn matcher(node: &Node, file: &str) -> Result<Matcher, RenderError> {
    selector(node, file)?.compile().map_err(|problem| invalid(file, node.line, problem))
}

/// The part of the source's value that the options choose.
fn refined(value: &Value, options: &Options) -> Result<Value, String> {
    if options.delimiter.is_empty() {
        return Ok(value.clone());
    }
    if value.is_array() || value.is_object() {
        return Err("a delimiter goes with a scalar source; remove it or correct fieldPath".to_owned());
    }
    let text = scalar_text(value);
    let parts: Vec<&str> = text.split(options.delimiter.as_str()).collect();
    usize::try_from(options.index)
        .ok()
        .and_then(|index| parts.get(index))
        .map(|part| Value::String((*part).to_owned()))
        .ok_or_else(|| format!("index {} is not in {text:?}, which has {} parts", options.index, parts.len()))
}

/// Writes a value over a field. A scalar keeps its type: a number copied into a text stays a text.
pub(super) fn replace(field: &mut Value, value: &Value, options: &Options) -> Result<(), String> {
    let mut text = scalar_text(value);
    if !options.delimiter.is_empty() {
        if field.is_array() || field.is_object() {
            return Err("a delimiter goes with a scalar target; remove it or correct fieldPaths".to_owned());
        }
        let old = if field.is_null() { String::new() } else { scalar_text(field) };
        let mut parts: Vec<&str> = old.split(options.delimiter.as_str()).collect();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &text),
            Ok(index) if index >= parts.len() => parts.push(&text),
            Ok(index) => parts[index] = &text,
        }
        text = parts.join(&options.delimiter);
    }
    let is_scalar = !value.is_array() && !value.is_object();
    *field = match field {
        Value::String(_) if is_scalar => Value::String(text),
        Value::Number(_) | Value::Bool(_) if is_scalar => typed(&text),
        // A field that was made has no type yet: kustomize reads the text as if it stood there unquoted.
        Value::Null if is_scalar => typed(&text),
        _ => value.clone(),
    };
    Ok(())
}

/// What a plain YAML scalar of this text means.
fn typed(text: &str) -> Value {
    read_nodes(text, "", Dialect::Manifest)
        .ok()
        .and_then(|mut documents| documents.pop())
        .map(Node::into_value)
        .filter(|value| !value.is_array() && !value.is_object())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
