//! From a request's bytes to an object in its canonical form: typed, unknown fields dropped, empty fields
//! present or absent as a real server has them.

use crate::schema::{Empty, Struct, Type};
use crate::time;
use engine::object::Quantity;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Why a body is not an object of the expected type, in the words of Go's decoder.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// A value of the wrong JSON type.
    #[error("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")]
    WrongType {
        /// What was sent: `string`, `number`, `object`, `array`, `bool`.
        found: String,
        /// Struct and path of the field.
        field: String,
        /// The Go type that was expected.
        wanted: String,
    },
    /// A quantity that is none.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    BadQuantity,
    /// A time that is none.
    #[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
    BadTime(String),
    /// A time with microseconds that is none.
    #[error("parsing time {0:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {0:?} as \"2006\"")]
    BadMicroTime(String),
    /// Bytes that are not base64.
    #[error("illegal base64 data at input byte {0}")]
    BadBase64(usize),
}

/// A parsed body: the last of duplicate keys wins, and which were duplicated is known.
#[derive(Debug)]
pub struct Parsed {
    /// The value.
    pub value: Value,
    /// Paths of keys that occur twice.
    pub duplicates: Vec<String>,
}

/// Parses JSON, noting duplicate keys.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        Seed { path: &mut String::new(), duplicates: &mut duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Parsed { value, duplicates })
}

struct Seed<'a> {
    path: &'a mut String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        let length = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", out.len()));
            let next = seq.next_element_seed(Seed { path: self.path, duplicates: self.duplicates })?;
            self.path.truncate(length);
            match next {
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        let length = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if out.contains_key(&key) {
                self.duplicates.push(self.path.clone());
            }
            let value = map.next_value_seed(Seed { path: self.path, duplicates: self.duplicates })?;
            self.path.truncate(length);
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// Brings a value into the canonical form of its type. Paths of undeclared fields are added to `unknown`.
pub fn decode(value: Value, ty: &Type, unknown: &mut Vec<String>) -> Result<Value, Error> {
    Decoder { unknown, path: Vec::new(), owner: String::new() }.value(value, ty)
}

/// As [`decode`], where nobody wants to know of undeclared fields.
pub fn canonical(value: Value, ty: &Type) -> Result<Value, Error> {
    decode(value, ty, &mut Vec::new())
}

enum Segment {
    Field(String),
    /// A key of a map, which Go's decoder does not name.
    Key(String),
    Index(usize),
}

struct Decoder<'a> {
    unknown: &'a mut Vec<String>,
    path: Vec<Segment>,
    owner: String,
}

impl Decoder<'_> {
    fn path(&self, indices: bool) -> String {
        let mut out = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Segment::Key(name) if indices => {
                    out.push('.');
                    out.push_str(name);
                }
                Segment::Index(index) if indices => out.push_str(&format!("[{index}]")),
                Segment::Index(_) | Segment::Key(_) => {}
            }
        }
        out
    }

    fn wrong(&self, found: &Value, ty: &Type) -> Error {
        let found = match found {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Number(n) if matches!(ty, Type::Integer { .. }) => format!("number {n}"),
            Value::Number(_) => "number".into(),
            Value::String(_) => "string".into(),
            Value::Array(_) => "array".into(),
            Value::Object(_) => "object".into(),
        };
        let field = format!("{}.{}", self.owner, self.path(false));
        Error::WrongType { found, field, wanted: ty.go_name() }
    }

    fn value(&mut self, value: Value, ty: &Type) -> Result<Value, Error> {
        match (ty, value) {
            (Type::Any, value) => Ok(value),
            (_, Value::Null) => Ok(Value::Null),
            (Type::String, value @ Value::String(_)) | (Type::Boolean, value @ Value::Bool(_)) => Ok(value),
            (Type::Integer { bits }, Value::Number(number)) => {
                let limit = if *bits == 32 { i64::from(i32::MAX) } else { i64::MAX };
                match number.as_i64().or_else(|| whole(&number)) {
                    Some(n) if n <= limit && n >= -limit - 1 => Ok(n.into()),
                    _ if self.owner.is_empty() && !self.path.is_empty() => Ok(Value::Number(number)),
                    _ => Err(self.wrong(&Value::Number(number), ty)),
                }
            }
            (Type::Number, value @ Value::Number(_)) => Ok(value),
            (Type::Bytes, Value::String(text)) => bytes(text),
            (Type::Quantity, Value::String(text)) => quantity(&text),
            (Type::Quantity, Value::Number(number)) => quantity(&number.to_string()),
            (Type::IntOrString, value @ Value::String(_)) => Ok(value),
            (Type::IntOrString, Value::Number(number)) => {
                number.as_i64().map(Value::from).ok_or_else(|| self.wrong(&Value::Number(number), ty))
            }
            (Type::Time, Value::String(text)) => {
                time::parse(&text).map(|t| time::seconds(t).into()).ok_or(Error::BadTime(text))
            }
            (Type::MicroTime, Value::String(text)) => {
                time::parse(&text).map(|t| time::micros(t).into()).ok_or(Error::BadMicroTime(text))
            }
            (Type::List(list), Value::Array(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push(Segment::Index(index));
                    let item = if item.is_null() && !matches!(*list.element, Type::Any) {
                        list.element.zero()
                    } else {
                        item
                    };
                    let item = self.value(item, &list.element);
                    self.path.pop();
                    out.push(item?);
                }
                Ok(Value::Array(out))
            }
            (Type::Map(map), Value::Object(entries)) => {
                let mut out = Map::new();
                for (key, item) in entries {
                    self.path.push(Segment::Key(key.clone()));
                    let item =
                        if item.is_null() { Ok(map.element.zero()) } else { self.value(item, &map.element) };
                    self.path.pop();
                    out.insert(key, item?);
                }
                Ok(Value::Object(out))
            }
            (Type::Struct(s), Value::Object(entries)) => self.object(entries, s),
            // Custom resources are checked against their schema, which has words of its own.
            (_, value) if self.owner.is_empty() && !self.path.is_empty() => Ok(value),
            (ty, value) => Err(self.wrong(&value, ty)),
        }
    }

    fn object(&mut self, mut entries: Map<String, Value>, ty: &Struct) -> Result<Value, Error> {
        let mut out = Map::new();
        // A whole object inside of another, as in the claim templates of a StatefulSet, says what it is.
        let is_kind = ty.fields.contains_key("metadata") && ty.fields.contains_key("status");
        if self.path.is_empty() || ty.name.is_empty() || is_kind {
            for key in ["apiVersion", "kind"] {
                if !ty.fields.contains_key(key)
                    && (self.path.is_empty() || ty.preserve_unknown || is_kind)
                    && let Some(value) = entries.shift_remove(key)
                {
                    out.insert(key.into(), value);
                }
            }
        }
        let owner = std::mem::replace(
            &mut self.owner,
            ty.name.rsplit_once('.').map_or_else(|| ty.name.clone(), |(_, name)| name.to_owned()),
        );
        for (name, field) in &ty.fields {
            let sent = entries.shift_remove(name);
            let given = sent.filter(|v| !v.is_null() || field.empty == Empty::AsSent);
            let value = match given {
                Some(value) => {
                    self.path.push(Segment::Field(name.clone()));
                    let value = self.value(value, &field.ty)?;
                    self.path.pop();
                    kept(value, field.empty, &field.ty)
                }
                None => match field.empty {
                    Empty::Always => Some(field.ty.zero()),
                    Empty::Null => Some(Value::Null),
                    Empty::Pointer | Empty::Omit | Empty::AsSent => None,
                },
            };
            if let Some(value) = value {
                out.insert(name.clone(), value);
            }
        }
        self.owner = owner;
        for (key, value) in entries {
            if ty.preserve_unknown {
                out.insert(key, value);
            } else {
                self.path.push(Segment::Field(key));
                let path = self.path(true);
                self.unknown.push(path);
                self.path.pop();
            }
        }
        Ok(Value::Object(out))
    }
}

/// What is written of a set field: empty values vanish, become null, or stay.
fn kept(value: Value, empty: Empty, ty: &Type) -> Option<Value> {
    match empty {
        Empty::Pointer | Empty::AsSent | Empty::Always => Some(value),
        Empty::Null => {
            let nothing = value.as_array().is_some_and(Vec::is_empty);
            Some(if nothing { Value::Null } else { value })
        }
        Empty::Omit => {
            let nothing = match &value {
                Value::Null => true,
                Value::Bool(b) => !b,
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(o) => o.is_empty() || matches!(ty, Type::Struct(_)) && value == ty.zero(),
            };
            (!nothing).then_some(value)
        }
    }
}

fn whole(number: &serde_json::Number) -> Option<i64> {
    let value = number.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

fn quantity(text: &str) -> Result<Value, Error> {
    Quantity::parse(text).map(|q| q.to_string().into()).ok_or(Error::BadQuantity)
}

fn bytes(text: String) -> Result<Value, Error> {
    use base64::Engine;
    let cleaned: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    match base64::engine::general_purpose::STANDARD.decode(&cleaned) {
        Ok(_) => Ok(cleaned.into()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(Error::BadBase64(at))
        }
        Err(_) => Err(Error::BadBase64(cleaned.len() / 4 * 4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;
    use serde_json::json;

    #[test]
    fn duplicates_are_found_where_they_are() {
        let parsed = parse_json(br#"{"data":{"a":"1","a":"2"},"l":[{"x":1,"x":2}]}"#).unwrap();
        assert_eq!(parsed.duplicates, ["data.a", "l[0].x"]);
        assert_eq!(parsed.value["data"]["a"], "2");
    }

    #[test]
    fn canonical_form_of_a_deployment() {
        let ty = TABLE.get("apps.v1.Deployment").unwrap();
        let mut unknown = Vec::new();
        let sent = json!({"apiVersion": "apps/v1", "kind": "Deployment", "bogus": 1, "metadata": {"name": "d", "labels": {}},
            "spec": {"replicas": 0, "minReadySeconds": 0, "template": {"spec": {"containers": [
                {"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 0.5}}}]}}}});
        let value = decode(sent, ty, &mut unknown).unwrap();
        assert_eq!(unknown, ["spec.template.spec.containers[0].imagee", "bogus"]);
        assert_eq!(
            value,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0,
                "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": [
                    {"name": "c", "resources": {"limits": {"cpu": "500m"}}}]}}}, "status": {}})
        );
        let error = decode(json!({"spec": {"replicas": "three"}}), ty, &mut unknown).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }
}
