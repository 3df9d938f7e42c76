//! Protobuf request bodies, which typed clients such as `kubectl create` send.
//!
//! Rules: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding (an envelope with the type and the
//! bytes of the object) and the published `generated.proto` files (field numbers, in the type table).

use crate::schema::{Numbers, Slot, Struct, Type};
use base64::Engine;
use serde_json::{Map, Value, json};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The first bytes of the envelope.
const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages.
const DEEPEST: usize = 60;

/// Why bytes are not an object.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Error {
    /// The envelope is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    /// The bytes end early or a number is too long.
    #[error("proto: unexpected EOF")]
    Truncated,
    /// A text is not UTF-8.
    #[error("proto: a string field contains invalid UTF-8")]
    NotText,
    /// The type has no protobuf form here.
    #[error("this type cannot be sent as protobuf here; send it as JSON")]
    Unsupported,
}

/// Decodes an enveloped object of a type; the result has `apiVersion` and `kind` from the envelope.
pub fn decode(bytes: &[u8], ty: &Type) -> Result<Value, Error> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Error::NoEnvelope)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(b)) => version = text(b)?,
                        (2, Wire::Bytes(b)) => kind = text(b)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let ty = ty.as_struct().ok_or(Error::Unsupported)?;
    let mut out = Map::new();
    out.insert("apiVersion".into(), version.into());
    out.insert("kind".into(), kind.into());
    message(raw, ty, &ty.numbers, &mut out, 0)?;
    Ok(Value::Object(out))
}

/// A field's value as it stands on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Error::Truncated)?;
            self.0 = rest;
            out |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err(Error::Truncated)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let count = usize::try_from(count).map_err(|_| Error::Truncated)?;
        let (head, rest) = self.0.split_at_checked(count).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), Error> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(self.take(8)?.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(self.take(4)?.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))),
            _ => return Err(Error::Truncated),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::NotText)
}

fn message(
    bytes: &[u8],
    ty: &Struct,
    numbers: &Numbers,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(Error::Truncated);
    }
    for field in Fields(bytes) {
        let (number, wire) = field?;
        match (numbers.get(&number), wire) {
            (Some(Slot::Embedded(inner)), Wire::Bytes(b)) => message(b, ty, inner, out, depth + 1)?,
            (Some(Slot::Field(name)), wire) => {
                let Some(declared) = ty.fields.get(name) else { continue };
                add(out, name, &declared.ty, wire, depth)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Enters a field; lists and maps come element by element.
fn add(
    out: &mut Map<String, Value>,
    name: &str,
    ty: &Type,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(), Error> {
    match ty {
        Type::List(list) => {
            let slot = out.entry(name).or_insert_with(|| json!([]));
            let Value::Array(items) = slot else { return Ok(()) };
            match (&*list.element, wire) {
                (Type::Integer { .. }, Wire::Bytes(packed)) => {
                    let mut fields = Fields(packed);
                    while !fields.0.is_empty() {
                        items.push((fields.varint()? as i64).into());
                    }
                }
                (element, wire) => items.push(value(element, wire, depth)?),
            }
        }
        Type::Map(map) => {
            let Wire::Bytes(entry) = wire else { return Err(Error::Truncated) };
            let (mut key, mut item) = (String::new(), map.element.zero());
            for field in Fields(entry) {
                match field? {
                    (1, Wire::Bytes(b)) => key = text(b)?,
                    (2, wire) => item = value(&map.element, wire, depth)?,
                    _ => {}
                }
            }
            let slot = out.entry(name).or_insert_with(|| json!({}));
            slot[key] = item;
        }
        ty => {
            out.insert(name.to_owned(), value(ty, wire, depth)?);
        }
    }
    Ok(())
}

fn value(ty: &Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match (ty, wire) {
        (Type::String, Wire::Bytes(b)) => text(b)?.into(),
        (Type::Bytes, Wire::Bytes(b)) => base64::engine::general_purpose::STANDARD.encode(b).into(),
        (Type::Boolean, Wire::Number(n)) => (n != 0).into(),
        // Negative numbers are sign-extended to 64 bits.
        (Type::Integer { .. }, Wire::Number(n)) => (n as i64).into(),
        (Type::Number, Wire::Number(n)) => f64::from_bits(n).into(),
        (Type::Quantity, Wire::Bytes(b)) => first_text(b, 1)?.into(),
        (Type::IntOrString, Wire::Bytes(b)) => {
            let (mut is_text, mut number, mut string) = (false, 0i64, String::new());
            for field in Fields(b) {
                match field? {
                    (1, Wire::Number(n)) => is_text = n == 1,
                    (2, Wire::Number(n)) => number = n as i64,
                    (3, Wire::Bytes(b)) => string = text(b)?,
                    _ => {}
                }
            }
            if is_text { string.into() } else { number.into() }
        }
        (Type::Time | Type::MicroTime, Wire::Bytes(b)) => instant(b)?,
        // RawExtension, FieldsV1 and JSON hold JSON text in field 1.
        (Type::Any, Wire::Bytes(b)) => {
            let raw = Fields(b).find_map(|f| match f {
                Ok((1, Wire::Bytes(raw))) => Some(raw),
                _ => None,
            });
            serde_json::from_slice(raw.unwrap_or(b"null")).map_err(|_| Error::Unsupported)?
        }
        (Type::Struct(inner), Wire::Bytes(b)) => {
            let mut out = Map::new();
            message(b, inner, &inner.numbers, &mut out, depth + 1)?;
            Value::Object(out)
        }
        // A list as the value of a map is a message with `items`.
        (Type::List(_), Wire::Bytes(b)) => {
            let mut out = Map::new();
            for field in Fields(b) {
                if let (1, wire) = field? {
                    add(&mut out, "items", ty, wire, depth + 1)?;
                }
            }
            out.shift_remove("items").unwrap_or_else(|| json!([]))
        }
        _ => return Err(Error::Truncated),
    })
}

fn first_text(bytes: &[u8], wanted: u64) -> Result<String, Error> {
    for field in Fields(bytes) {
        if let (number, Wire::Bytes(b)) = field?
            && number == wanted
        {
            return text(b);
        }
    }
    Ok(String::new())
}

/// `{seconds, nanos}`; an empty message is an unset time.
fn instant(bytes: &[u8]) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => seconds = n as i64,
            (2, Wire::Number(n)) => nanos = n as i32,
            _ => {}
        }
    }
    // Go's zero time lies long before the epoch.
    if bytes.is_empty() || seconds < -60_000_000_000 {
        return Ok(Value::Null);
    }
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Truncated)?;
    Ok(crate::time::micros(at).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[(number << 3) | 2, bytes.len() as u8][..], bytes].concat()
    }

    #[test]
    fn a_pod_with_embedded_structs() {
        let probe = field(1, &field(3, &[0x0a, 0x04, 0x08, 0x00, 0x10, 0x50]));
        let container = [field(1, b"c"), field(2, b"nginx"), field(11, &probe)].concat();
        let volume = [field(1, b"v"), field(2, &field(2, &[]))].concat();
        let spec = [field(1, &volume), field(2, &container), vec![0x20, 0x1e]].concat();
        let pod = [
            field(1, &[field(1, b"p"), field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat()),
            field(2, &spec),
        ]
        .concat();
        let envelope = [field(1, &[field(1, b"v1"), field(2, b"Pod")].concat()), field(2, &pod)].concat();
        let value = decode(&[MAGIC, &envelope].concat(), TABLE.get("core.v1.Pod").unwrap()).unwrap();
        assert_eq!(value["kind"], "Pod");
        assert_eq!(value["metadata"], json!({"name": "p", "labels": {"a": "b"}}));
        assert_eq!(value["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        assert_eq!(value["spec"]["containers"][0]["image"], "nginx");
        assert_eq!(value["spec"]["terminationGracePeriodSeconds"], 30);
    }

    #[test]
    fn broken_bytes_are_refused() {
        let ty = TABLE.get("core.v1.Pod").unwrap();
        assert_eq!(decode(b"{}", ty), Err(Error::NoEnvelope));
        for bytes in
            [&b"k8s\0\x0a"[..], b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"k8s\0\x0a\x7f"]
        {
            assert_eq!(decode(bytes, ty), Err(Error::Truncated), "{bytes:?}");
        }
    }
}
