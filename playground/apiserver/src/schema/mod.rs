//! Types of the Kubernetes API, as far as decoding, apply and patches need them.

pub mod catalogue;
pub mod custom;
pub mod table;

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of a value.
#[derive(Debug)]
pub enum Type {
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A whole number of 32 or 64 bits.
    Integer {
        /// Width: 32 or 64.
        bits: u8,
    },
    /// A floating-point number.
    Number,
    /// Base64 text.
    Bytes,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// A time with seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
    /// Anything; its structure is taken from the value.
    Any,
    /// A list.
    List(List),
    /// A map with keys of the user.
    Map(Map),
    /// An object with declared fields.
    Struct(Struct),
}

/// A list type.
#[derive(Debug)]
pub struct List {
    /// What it holds.
    pub element: Arc<Type>,
    /// How elements are told apart in server-side apply.
    pub relation: Relation,
    /// Key of the strategic merge patch, when elements are merged.
    pub merge_key: Option<String>,
    /// Whether a strategic merge patch merges the list at all.
    pub merge: bool,
}

/// How the elements of a list are told apart (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq)]
pub enum Relation {
    /// Replaced whole.
    Atomic,
    /// By value.
    Set,
    /// By these fields.
    Keyed(Vec<String>),
}

/// A map type.
#[derive(Debug)]
pub struct Map {
    /// What it holds.
    pub element: Arc<Type>,
    /// Whether it is owned and replaced whole.
    pub atomic: bool,
}

/// A type with declared fields.
#[derive(Debug, Default)]
pub struct Struct {
    /// Short type name, as `core.v1.Container`; empty in custom resources.
    pub name: String,
    /// Fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Whether it is owned and replaced whole.
    pub atomic: bool,
    /// Whether undeclared fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// Fields by protobuf number.
    pub numbers: Numbers,
}

/// Protobuf field numbers of a message.
pub type Numbers = BTreeMap<u64, Slot>;

/// What a protobuf field number stands for.
#[derive(Debug)]
pub enum Slot {
    /// A field.
    Field(String),
    /// A message whose fields are fields of this type: Go embeds its struct.
    Embedded(Numbers),
}

/// A declared field.
#[derive(Debug)]
pub struct Field {
    /// Its type.
    pub ty: Arc<Type>,
    /// What an unset value looks like.
    pub empty: Empty,
    /// A default that is not Go's zero value.
    pub default: Option<Value>,
    /// Allowed values of a string.
    pub allowed: Vec<String>,
    /// Whether the field has to be there.
    pub required: bool,
    /// How a strategic merge patch treats it, as `merge,retainKeys`; empty for as usual.
    pub patch_strategy: String,
}

/// What becomes of an empty value when an object is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Empty {
    /// A pointer: absent unless set; a set zero value stays.
    Pointer,
    /// Left out when it has its zero value.
    Omit,
    /// Written with its zero value.
    Always,
    /// Written as `null`.
    Null,
    /// Kept as sent (custom resources).
    AsSent,
}

impl Type {
    /// The struct behind this type, if it is one.
    pub fn as_struct(&self) -> Option<&Struct> {
        match self {
            Type::Struct(s) => Some(s),
            _ => None,
        }
    }

    /// The type of a struct's field.
    pub fn field(&self, name: &str) -> Option<&Arc<Type>> {
        self.as_struct().and_then(|s| s.fields.get(name)).map(|f| &f.ty)
    }

    /// The name that Go's decoder gives this type in an error.
    pub fn go_name(&self) -> String {
        match self {
            Type::String => "string".into(),
            Type::Boolean => "bool".into(),
            Type::Integer { bits } => format!("int{bits}"),
            Type::Number => "float64".into(),
            Type::Bytes => "[]uint8".into(),
            Type::List(list) => format!("[]{}", list.element.go_name()),
            Type::Map(map) => format!("map[string]{}", map.element.go_name()),
            Type::Struct(s) => s.name.rsplit_once('.').map_or(s.name.clone(), |(package, name)| {
                format!("{}.{name}", package.rsplit_once('.').map_or(package, |p| p.1))
            }),
            Type::Quantity => "resource.Quantity".into(),
            Type::IntOrString => "intstr.IntOrString".into(),
            Type::Time => "v1.Time".into(),
            Type::MicroTime => "v1.MicroTime".into(),
            Type::Any => "interface {}".into(),
        }
    }

    /// The value of an unset field that is always written.
    pub fn zero(&self) -> Value {
        match self {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Boolean => Value::Bool(false),
            Type::Integer { .. } | Type::Number | Type::IntOrString => Value::from(0),
            Type::Quantity => Value::String("0".into()),
            Type::Struct(s) => {
                let mut out = serde_json::Map::new();
                for (name, field) in &s.fields {
                    match field.empty {
                        Empty::Always => {
                            out.insert(name.clone(), field.ty.zero());
                        }
                        Empty::Null => {
                            out.insert(name.clone(), Value::Null);
                        }
                        Empty::Pointer | Empty::Omit | Empty::AsSent => {}
                    }
                }
                Value::Object(out)
            }
            Type::Time | Type::MicroTime | Type::Any | Type::List(_) | Type::Map(_) => Value::Null,
        }
    }
}
