//! The compact table of built-in types, derived by `schema/derive.py`, read once when first needed.

use super::{Empty, Field, List, Map, Numbers, Relation, Slot, Struct, Type};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

/// A built-in resource as discovery describes it.
#[derive(Debug, Deserialize)]
pub struct BuiltIn {
    /// API group.
    #[serde(rename = "g")]
    pub group: String,
    /// API version.
    #[serde(rename = "v")]
    pub version: String,
    /// Plural name.
    #[serde(rename = "r")]
    pub plural: String,
    /// Kind.
    #[serde(rename = "k")]
    pub kind: String,
    /// Whether it lives in namespaces.
    #[serde(rename = "n")]
    pub namespaced: bool,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Singular name.
    #[serde(rename = "one")]
    pub singular: String,
    /// Name of its type in the table.
    #[serde(rename = "t", default)]
    pub type_name: String,
    /// Short names.
    #[serde(rename = "short", default)]
    pub short_names: Vec<String>,
    /// Categories, as `all`.
    #[serde(rename = "cat", default)]
    pub categories: Vec<String>,
    /// Subresources: name, kind, group, version, verbs.
    #[serde(rename = "sub", default)]
    pub subresources: Vec<(String, String, String, String, Vec<String>)>,
}

#[derive(Deserialize)]
struct Raw {
    types: BTreeMap<String, RawStruct>,
    resources: Vec<BuiltIn>,
}

#[derive(Deserialize)]
struct RawStruct {
    f: BTreeMap<String, RawField>,
    #[serde(default)]
    a: u8,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawField {
    Full(String, String, String, Options),
    Plain(String, String, String),
}

#[derive(Deserialize, Default)]
struct Options {
    #[serde(default)]
    l: String,
    #[serde(default)]
    k: Vec<String>,
    m: Option<String>,
    #[serde(default)]
    s: String,
    d: Option<Value>,
    #[serde(default)]
    e: Vec<String>,
    #[serde(default)]
    r: u8,
    #[serde(default, rename = "A")]
    atomic: u8,
}

/// The table, with types linked to each other.
pub struct Table {
    types: HashMap<String, Arc<Type>>,
    /// Resources in discovery order.
    pub resources: Vec<BuiltIn>,
}

impl Table {
    /// A type by its short name, as `apps.v1.Deployment`.
    pub fn get(&self, name: &str) -> Option<&Arc<Type>> {
        self.types.get(name)
    }
}

/// The table of built-in types.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let text = include_str!("../../schema/kubernetes.json");
    match serde_json::from_str::<Raw>(text) {
        Ok(raw) => link(raw),
        Err(error) => {
            tracing::error!(%error, "schema/kubernetes.json is damaged; derive it again with schema/derive.py");
            Table { types: HashMap::new(), resources: Vec::new() }
        }
    }
});

fn link(raw: Raw) -> Table {
    let mut types = HashMap::new();
    let names: Vec<&String> = raw.types.keys().collect();
    for name in names {
        build(name, &raw.types, &mut types, 0);
    }
    Table { types, resources: raw.resources }
}

/// The deepest nesting of types; the API's own is about 12. Deeper means a cycle.
const DEEPEST: usize = 40;

fn build(
    name: &str,
    raw: &BTreeMap<String, RawStruct>,
    done: &mut HashMap<String, Arc<Type>>,
    depth: usize,
) -> Arc<Type> {
    if let Some(ty) = done.get(name) {
        return ty.clone();
    }
    let Some(source) = raw.get(name).filter(|_| depth < DEEPEST) else { return Arc::new(Type::Any) };
    let mut fields = BTreeMap::new();
    let mut numbers = Numbers::new();
    let plain = Options::default();
    for (field, spec) in &source.f {
        let (kind, empty, number, options) = match spec {
            RawField::Full(kind, empty, number, options) => (kind, empty, number, options),
            RawField::Plain(kind, empty, number) => (kind, empty, number, &plain),
        };
        number_field(&mut numbers, number, field);
        let ty = resolve(kind, options, raw, done, depth);
        let empty = match empty.as_str() {
            "p" => Empty::Pointer,
            "e" => Empty::Always,
            "n" => Empty::Null,
            _ => Empty::Omit,
        };
        let field_type = Field {
            ty,
            empty,
            default: options.d.clone(),
            allowed: options.e.clone(),
            required: options.r == 1,
            patch_strategy: options.s.clone(),
        };
        fields.insert(field.clone(), field_type);
    }
    let built =
        Struct { name: name.to_owned(), fields, atomic: source.a == 1, preserve_unknown: false, numbers };
    let ty = Arc::new(Type::Struct(built));
    done.insert(name.to_owned(), ty.clone());
    ty
}

/// Enters a field under its protobuf number, which is a path where Go embeds structs.
fn number_field(numbers: &mut Numbers, path: &str, field: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Ok(number) = first.parse() else { return };
    if rest.is_empty() {
        numbers.insert(number, Slot::Field(field.to_owned()));
    } else if let Slot::Embedded(inner) =
        numbers.entry(number).or_insert_with(|| Slot::Embedded(Numbers::new()))
    {
        number_field(inner, rest, field);
    }
}

fn resolve(
    kind: &str,
    options: &Options,
    raw: &BTreeMap<String, RawStruct>,
    done: &mut HashMap<String, Arc<Type>>,
    depth: usize,
) -> Arc<Type> {
    if let Some(name) = kind.strip_prefix(':') {
        return build(name, raw, done, depth + 1);
    }
    if let Some(element) = kind.strip_prefix('[') {
        let element = resolve(element, &Options::default(), raw, done, depth + 1);
        let relation = match options.l.as_str() {
            "set" => Relation::Set,
            "map" => Relation::Keyed(options.k.clone()),
            _ => Relation::Atomic,
        };
        let merge = options.s.split(',').any(|s| s == "merge");
        return Arc::new(Type::List(List { element, relation, merge_key: options.m.clone(), merge }));
    }
    if let Some(element) = kind.strip_prefix('{') {
        let element = resolve(element, &Options::default(), raw, done, depth + 1);
        return Arc::new(Type::Map(Map { element, atomic: options.atomic == 1 }));
    }
    Arc::new(match kind {
        "s" => Type::String,
        "b" => Type::Boolean,
        "i" => Type::Integer { bits: 32 },
        "l" => Type::Integer { bits: 64 },
        "n" => Type::Number,
        "y" => Type::Bytes,
        "q" => Type::Quantity,
        "x" => Type::IntOrString,
        "t" => Type::Time,
        "u" => Type::MicroTime,
        _ => Type::Any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_apply_needs() {
        let pod = TABLE.get("core.v1.PodSpec").unwrap();
        let Type::List(containers) = &**pod.field("containers").unwrap() else { panic!("not a list") };
        assert_eq!(containers.relation, Relation::Keyed(vec!["name".into()]));
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        let ports = containers.element.field("ports").unwrap();
        let Type::List(ports) = &**ports else { panic!("not a list") };
        assert_eq!(ports.element.as_struct().unwrap().fields["protocol"].default, Some("TCP".into()));
        assert!(TABLE.get("meta.v1.LabelSelector").unwrap().as_struct().unwrap().atomic);
        assert!(TABLE.resources.len() > 60);
    }
}
