//! `crds`: definitions of custom resources whose fields say that they hold names, labels or annotations.
//!
//! A file maps type names to OpenAPI definitions in which `x-kubernetes-object-ref-kind` and its relatives
//! mark fields (kustomize's `examples/transformerconfigs/crd`).

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::object::yaml::{Dialect, read_documents_as};

use super::error::RenderError;
use super::field_spec::{FieldSpec, SpecPath, merge_specs};
use super::fields::invalid;
use super::identity::KindFilter;
use super::transformer_config::{NameReference, TransformerConfig};

/// How deep types may refer to each other.
const MAX_DEPTH: usize = 32;
/// How many fields the types of a file may have, counted wherever they are used.
const MAX_FIELDS: usize = 20_000;
/// How many of them may be marked: each is compared with all others.
const MAX_MARKED: usize = 2_000;

/// Reads a file of definitions.
pub(super) fn read(text: &str, file: &str) -> Result<Arc<TransformerConfig>, RenderError> {
    let documents = read_documents_as(text, file, Dialect::Settings)?;
    let Some(Value::Object(types)) = documents.into_iter().next().map(|document| document.value) else {
        return Err(invalid(
            file,
            1,
            "a file of crds maps type names to their definitions; correct the file",
        ));
    };
    let mut reader = Reader { types: &types, config: TransformerConfig::default(), fields: 0, marked: 0 };
    for (name, definition) in &types {
        let properties = properties(definition);
        if ["kind", "apiVersion", "metadata"]
            .iter()
            .all(|field| properties.is_some_and(|p| p.contains_key(*field)))
        {
            let kind = name.rsplit('.').next().unwrap_or(name);
            reader.walk(kind, name, &mut Vec::new()).map_err(|problem| invalid(file, 1, problem))?;
        }
    }
    Ok(Arc::new(reader.config))
}

/// The properties of a definition; the case of `Schema` does not matter.
fn properties(definition: &Value) -> Option<&Map<String, Value>> {
    let (_, schema) = definition.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case("schema"))?;
    schema["properties"].as_object()
}

struct Reader<'a> {
    types: &'a Map<String, Value>,
    config: TransformerConfig,
    fields: usize,
    marked: usize,
}

impl Reader<'_> {
    fn walk(&mut self, kind: &str, name: &str, path: &mut Vec<String>) -> Result<(), String> {
        if path.len() > MAX_DEPTH {
            return Err(format!(
                "the types refer to each other more than {MAX_DEPTH} levels deep; name fields with configurations instead"
            ));
        }
        let Some(properties) = self.types.get(name).and_then(properties) else { return Ok(()) };
        for (field, property) in properties {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(format!("the types have more than {MAX_FIELDS} fields; split the file"));
            }
            path.push(field.clone());
            self.add(kind, property, path)?;
            if let Some(reference) = property["$ref"].as_str() {
                self.walk(kind, reference, path)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn add(&mut self, kind: &str, property: &Value, path: &[String]) -> Result<(), String> {
        let is_marked =
            property.as_object().is_some_and(|map| map.keys().any(|key| key.starts_with("x-kubernetes-")));
        self.marked += usize::from(is_marked);
        if self.marked > MAX_MARKED {
            return Err(format!("the types mark more than {MAX_MARKED} fields; split the file"));
        }
        let said = |name: &str| property.get(name).and_then(Value::as_str);
        let spec = |path: &str| {
            let kinds = KindFilter { kind: kind.to_owned(), ..KindFilter::default() };
            SpecPath::read(path).map(|path| FieldSpec { kinds, path, create: false })
        };
        for (mark, section) in [
            ("x-kubernetes-annotation", &mut self.config.common_annotations),
            ("x-kubernetes-label-selector", &mut self.config.common_labels),
            ("x-kubernetes-identity", &mut self.config.name_prefix),
        ] {
            if said(mark).is_some() {
                merge_specs(section, &[spec(&path.join("/"))?])?;
            }
        }
        let version = said("x-kubernetes-object-ref-api-version");
        if let (Some(version), Some(target)) = (version, said("x-kubernetes-object-ref-kind")) {
            let name_key = said("x-kubernetes-object-ref-name-key").unwrap_or("name");
            let target =
                KindFilter { group: String::new(), version: version.to_owned(), kind: target.to_owned() };
            let referrer = spec(&format!("{}/{name_key}", path.join("/")))?;
            match self.config.name_reference.iter_mut().find(|known| known.target == target) {
                Some(known) => merge_specs(&mut known.referrers, &[referrer])?,
                None => self.config.name_reference.push(NameReference { target, referrers: vec![referrer] }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_fields_are_found_through_references() {
        let text = r##"{"x.Bee": {"Schema": {"properties": {"kind": {}, "apiVersion": {}, "metadata": {}, "spec": {"$ref": "x.Spec"}}}},
            "x.Spec": {"schema": {"properties": {"secret": {"x-kubernetes-object-ref-api-version": "v1", "x-kubernetes-object-ref-kind": "Secret"}}}}}"##;
        let config = read(text, "crd.json").unwrap();
        assert_eq!(config.name_reference[0].target.kind, "Secret");
        assert_eq!(config.name_reference[0].referrers[0].path.to_string(), "spec/secret/name");
        assert_eq!(config.name_reference[0].referrers[0].kinds.kind, "Bee");
    }

    #[test]
    fn types_without_an_end_are_refused() {
        let text = r##"{"x.A": {"Schema": {"properties": {"kind": {}, "apiVersion": {}, "metadata": {}, "a": {"$ref": "x.A"}}}}}"##;
        assert!(read(text, "crd.json").unwrap_err().to_string().contains("32 levels"));
        assert!(read("[]", "crd.json").is_err());
        let marked: Vec<String> =
            (0..=MAX_MARKED).map(|n| format!("f{n}: {{x-kubernetes-identity: ''}}")).collect();
        let text = format!(
            "x.A: {{Schema: {{properties: {{kind: {{}}, apiVersion: {{}}, metadata: {{}}, {}}}}}}}",
            marked.join(", ")
        );
        assert!(read(&text, "crd.yaml").unwrap_err().to_string().contains("more than 2000 fields"));
    }
}
