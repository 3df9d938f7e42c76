//! `labels`, `commonLabels` and `commonAnnotations`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::field_spec::{Create, FieldSpec, merge_specs};
use super::resource::Resource;
use super::transformer_config::TransformerConfig;

/// One entry of `labels`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Labels {
    pub pairs: BTreeMap<String, String>,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<FieldSpec>,
}

impl Labels {
    /// The fields that get the labels.
    pub fn field_specs(&self, config: &TransformerConfig) -> Result<Vec<FieldSpec>, String> {
        let mut specs = self.fields.clone();
        merge_specs(&mut specs, &config.labels)?;
        if self.include_selectors {
            merge_specs(&mut specs, &config.common_labels)?;
        } else {
            if self.include_templates {
                merge_specs(&mut specs, &config.template_labels)?;
            }
            merge_specs(&mut specs, &[FieldSpec::everywhere("metadata/labels")])?;
        }
        Ok(specs)
    }
}

/// Sets labels or annotations of an object in every field of the specs.
pub(super) fn set_pairs(
    pairs: &BTreeMap<String, String>,
    resource: &mut Resource,
    specs: &[FieldSpec],
) -> Result<(), String> {
    if pairs.is_empty() {
        return Ok(());
    }
    let kind = Arc::clone(&resource.id().kind);
    let mut object = resource.edit();
    for spec in specs {
        spec.apply(&mut object, &kind.gvk, Create::Map, &mut |value| {
            let map = value
                .as_object_mut()
                .ok_or("labels and annotations must be a mapping; correct the object")?;
            for (key, text) in pairs {
                map.insert(key.clone(), Value::String(text.clone()));
            }
            Ok(())
        })?;
    }
    Ok(())
}
