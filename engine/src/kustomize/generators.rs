//! `configMapGenerator` and `secretGenerator`.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::error::RenderError;
use super::fields::Located;
use super::resource::{Behavior, Resource, Source};
use crate::sops::Format;

/// What a generator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GeneratorKind {
    ConfigMap,
    Secret,
}

impl GeneratorKind {
    /// The field of a kustomization that lists such generators.
    pub fn field(self) -> &'static str {
        match self {
            Self::ConfigMap => "configMapGenerator",
            Self::Secret => "secretGenerator",
        }
    }

    /// The generator's kind, as `buildMetadata` names it.
    pub fn plugin_name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMapGenerator",
            Self::Secret => "SecretGenerator",
        }
    }
}

/// `options` of a generator, or `generatorOptions` of a kustomization.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GeneratorOptions {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub disable_hash: bool,
    pub immutable: bool,
}

impl GeneratorOptions {
    /// Adds the options of the whole kustomization; a generator's own labels and annotations win.
    pub fn add_global(&mut self, global: &Self) {
        for (into, from) in [(&mut self.labels, &global.labels), (&mut self.annotations, &global.annotations)]
        {
            for (key, value) in from {
                into.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self.disable_hash |= global.disable_hash;
        self.immutable |= global.immutable;
    }
}

/// What a generator takes a value from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// The path of a file.
    File(&'a str),
    /// The value itself, behind its key.
    Literal {
        /// Key and value, as written.
        whole: &'a str,
        /// The value.
        value: &'a str,
    },
}

/// A file or a value that a generator reads.
pub(super) struct SourceFile<'a> {
    pub content: Content<'a>,
    /// What its content is, if it is encrypted.
    pub format: Format,
    /// Where it is named.
    pub at: &'a Source,
}

/// Reads a file or a value for a generator, decrypted where it is encrypted.
pub(super) type LoadFile<'a> = &'a dyn Fn(&SourceFile<'_>) -> Result<Vec<u8>, RenderError>;

/// One entry of a generator list.
#[derive(Debug, Clone)]
pub(super) struct Generator {
    pub kind: GeneratorKind,
    pub source: Source,
    pub name: String,
    pub namespace: String,
    pub behavior: Option<Located>,
    pub secret_type: String,
    pub literals: Vec<Located>,
    pub files: Vec<Located>,
    pub envs: Vec<Located>,
    pub options: GeneratorOptions,
}

impl Generator {
    /// Without the literals that are encrypted, for a look at everything else.
    pub fn without_encrypted(&self) -> Self {
        let mut generator = self.clone();
        generator.literals.retain(|literal| !is_encrypted(literal));
        generator
    }

    /// Makes the object.
    pub fn generate(&self, load: LoadFile<'_>) -> Result<Resource, RenderError> {
        let mut pairs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut add = |key: String, value: Vec<u8>, at: &Source| {
            if pairs.insert(key.clone(), value).is_some() {
                return Err(fail(at, format!("the key {key:?} is given twice for {}; keep one", self.name)));
            }
            Ok(())
        };
        for env in &self.envs {
            let format = match Format::of_name(&env.text) {
                Format::Binary => Format::Dotenv,
                format => format,
            };
            let content = load(&SourceFile { content: Content::File(&env.text), format, at: &env.source })?;
            for (key, value) in env_lines(&content, env)? {
                add(key, value.into_bytes(), &env.source)?;
            }
        }
        for literal in &self.literals {
            if is_encrypted(literal) {
                let problem =
                    "this literal is encrypted, and the file has no sops metadata; restore it from Git";
                return Err(fail(&literal.source, problem.to_owned()));
            }
            let wrong = || fail(&literal.source, format!("the literal {:?} must be key=value", literal.text));
            let (key, value) =
                literal.text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
            let content = Content::Literal { whole: &literal.text, value: unquoted(value) };
            let value = load(&SourceFile { content, format: Format::of_name(key), at: &literal.source })?;
            add(key.to_owned(), value, &literal.source)?;
        }
        for file in &self.files {
            let (key, path) = file_source(file)?;
            let format = Format::of_name(&key);
            let content = load(&SourceFile { content: Content::File(&path), format, at: &file.source })?;
            add(key, content, &file.source)?;
        }
        self.object(pairs)
    }

    fn object(&self, pairs: BTreeMap<String, Vec<u8>>) -> Result<Resource, RenderError> {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(self.name));
        if !self.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(self.namespace));
        }
        for (field, pairs) in [("labels", &self.options.labels), ("annotations", &self.options.annotations)] {
            if !pairs.is_empty() {
                metadata.insert(field.to_owned(), json!(pairs));
            }
        }
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, value) in pairs {
            match (self.kind, String::from_utf8(value)) {
                (GeneratorKind::ConfigMap, Ok(text)) => data.insert(key, Value::String(text)),
                (GeneratorKind::ConfigMap, Err(error)) => binary.insert(key, base64_lines(error.as_bytes())),
                (GeneratorKind::Secret, Ok(text)) => data.insert(key, base64_lines(text.as_bytes())),
                (GeneratorKind::Secret, Err(error)) => data.insert(key, base64_lines(error.as_bytes())),
            };
        }
        let mut object = Map::new();
        object.insert("apiVersion".to_owned(), json!("v1"));
        let is_secret = self.kind == GeneratorKind::Secret;
        object.insert("kind".to_owned(), json!(if is_secret { "Secret" } else { "ConfigMap" }));
        object.insert("metadata".to_owned(), Value::Object(metadata));
        if is_secret {
            let kind = if self.secret_type.is_empty() { "Opaque" } else { &self.secret_type };
            object.insert("type".to_owned(), json!(kind));
        }
        // A Secret always has data, a ConfigMap only if there is some: the suffix depends on it.
        if is_secret || !data.is_empty() {
            object.insert("data".to_owned(), Value::Object(data));
        }
        if !binary.is_empty() {
            object.insert("binaryData".to_owned(), Value::Object(binary));
        }
        if self.options.immutable {
            object.insert("immutable".to_owned(), json!(true));
        }
        let mut resource = Resource::new(Value::Object(object), self.source.clone())
            .map_err(|problem| RenderError::Object { source_at: self.source.clone(), problem })?;
        resource.needs_hash = !self.options.disable_hash;
        resource.behavior = match &self.behavior {
            Some(behavior) if behavior.text == "merge" => Behavior::Merge,
            Some(behavior) if behavior.text == "replace" => Behavior::Replace,
            // Kustomize takes any other word for none.
            _ => Behavior::Create,
        };
        Ok(resource)
    }
}

/// Whether a literal is what sops leaves of one, or of a comment before it.
fn is_encrypted(literal: &Located) -> bool {
    literal.text.starts_with("ENC[AES256_GCM,")
}

fn fail(at: &Source, problem: String) -> RenderError {
    RenderError::Invalid { source_at: at.clone(), problem }
}

/// `key=path`, or a path whose last part is the key.
fn file_source(file: &Located) -> Result<(String, String), RenderError> {
    match file.text.split('=').collect::<Vec<_>>().as_slice() {
        [path] => {
            let key = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            Ok((key.to_owned(), (*path).to_owned()))
        }
        [key, path] if !key.is_empty() && !path.is_empty() => Ok(((*key).to_owned(), (*path).to_owned())),
        _ => Err(fail(&file.source, format!("the file {:?} must be a path or key=path", file.text))),
    }
}

/// The lines of an env file: `KEY=value`, comments and empty lines apart.
fn env_lines(content: &[u8], env: &Located) -> Result<Vec<(String, String)>, RenderError> {
    let text = std::str::from_utf8(content)
        .map_err(|_| fail(&env.source, format!("{:?} is not UTF-8 text", env.text)))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Vec::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if key.is_empty() {
            continue;
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Removes one pair of quotes around a literal's value.
fn unquoted(text: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

/// Base64 in lines of 70 characters where it is longer than one, as kustomize writes it.
fn base64_lines(bytes: &[u8]) -> Value {
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    if encoded.len() < 70 {
        return Value::String(encoded);
    }
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / 70 + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(70));
        lines.push_str(line);
        lines.push('\n');
        rest = tail;
    }
    Value::String(lines)
}
