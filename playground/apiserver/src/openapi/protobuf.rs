//! The document of OpenAPI version 2 as protobuf, which `kubectl` asks for.
//!
//! Rules: the published `OpenAPIv2.proto` of gnostic. Values of any type are YAML there, of which JSON is a part.

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A text; none and an empty one are the same.
    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value == true {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn whole(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number != 0) {
            self.varint(field << 3);
            self.varint(number as u64);
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.varint((field << 3) | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u64, inner: Message) {
        self.bytes(field, &inner.0);
    }

    /// Entries of a map as messages of a name and a value.
    fn entries<'a>(
        &mut self,
        field: u64,
        map: impl IntoIterator<Item = (&'a String, &'a Value)>,
        value: impl Fn(&Value) -> Message,
    ) {
        for (name, of) in map {
            let mut entry = Message::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, value(of));
            self.message(field, entry);
        }
    }

    fn extensions(&mut self, field: u64, of: &Value) {
        let all = of.as_object().into_iter().flatten();
        self.entries(field, all.filter(|(name, _)| name.starts_with("x-")), any);
    }
}

fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Writes a document.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, info);
    let mut paths = Message::default();
    paths.entries(2, object(&document["paths"]), path);
    out.message(8, paths);
    let mut definitions = Message::default();
    definitions.entries(1, object(&document["definitions"]), schema);
    out.message(9, definitions);
    out.0
}

fn path(of: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(of) = of.get(method) {
            out.message(field, operation(of));
        }
    }
    out
}

fn operation(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(3, &of["description"]);
    for of in list(&of["parameters"]) {
        // ParametersItem.parameter, Parameter.non_body_parameter, NonBodyParameter.query_parameter_sub_schema
        let mut query = Message::default();
        query.text(2, &of["in"]);
        query.text(3, &of["description"]);
        query.text(4, &of["name"]);
        query.text(6, &of["type"]);
        query.flag(20, &of["uniqueItems"]);
        let mut wrapped = query;
        for field in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(field, wrapped);
            wrapped = outer;
        }
        out.message(8, wrapped);
    }
    let mut responses = Message::default();
    responses.entries(1, object(&of["responses"]), |of| {
        let mut item = Message::default();
        item.message(1, schema(&of["schema"]));
        let mut response = Message::default();
        response.text(1, &of["description"]);
        response.message(2, item);
        let mut value = Message::default();
        value.message(1, response);
        value
    });
    out.message(9, responses);
    out.extensions(13, of);
    out
}

fn schema(of: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(3, &of["title"]);
    out.text(4, &of["description"]);
    out.double(6, &of["multipleOf"]);
    out.double(7, &of["maximum"]);
    out.flag(8, &of["exclusiveMaximum"]);
    out.double(9, &of["minimum"]);
    out.flag(10, &of["exclusiveMinimum"]);
    out.whole(11, &of["maxLength"]);
    out.whole(12, &of["minLength"]);
    out.text(13, &of["pattern"]);
    out.whole(14, &of["maxItems"]);
    out.whole(15, &of["minItems"]);
    out.flag(16, &of["uniqueItems"]);
    out.whole(17, &of["maxProperties"]);
    out.whole(18, &of["minProperties"]);
    for name in list(&of["required"]).filter_map(Value::as_str) {
        out.bytes(19, name.as_bytes());
    }
    for value in list(&of["enum"]) {
        out.message(20, any(value));
    }
    match &of["additionalProperties"] {
        Value::Null => {}
        Value::Bool(allowed) => {
            // A oneof tells `false` from nothing.
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*allowed));
            out.message(21, item);
        }
        of => {
            let mut item = Message::default();
            item.message(1, schema(of));
            out.message(21, item);
        }
    }
    if let Some(name) = of["type"].as_str() {
        let mut item = Message::default();
        item.bytes(1, name.as_bytes());
        out.message(22, item);
    }
    if of["items"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&of["items"]));
        out.message(23, item);
    }
    if of["properties"].is_object() {
        let mut properties = Message::default();
        properties.entries(1, object(&of["properties"]), schema);
        out.message(25, properties);
    }
    out.extensions(31, of);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_written_field_by_field() {
        let of = json!({"$ref": "#/definitions/x", "type": "array", "x-a": 1, "additionalProperties": false});
        let expected = [
            &[0x0a, 15][..],
            b"#/definitions/x",
            // additional_properties { boolean: false }
            &[0xaa, 0x01, 2, 0x10, 0],
            // type { value: "array" }
            &[0xb2, 0x01, 7, 0x0a, 5],
            b"array",
            // vendor_extension { name: "x-a" value { yaml: "1" } }
            &[0xfa, 0x01, 10, 0x0a, 3],
            b"x-a",
            &[0x12, 3, 0x12, 1],
            b"1",
        ];
        assert_eq!(schema(&of).0, expected.concat());
    }

    #[test]
    fn numbers_beyond_a_byte_take_several() {
        let mut out = Message::default();
        out.varint(300);
        assert_eq!(out.0, [0xac, 0x02]);
    }
}
