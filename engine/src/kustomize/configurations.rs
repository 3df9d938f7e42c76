//! `configurations`: files that say which further fields transformers touch.

use std::sync::Arc;

use crate::object::yaml::{Dialect, Node, NodeKind, read_nodes};

use super::error::RenderError;
use super::fields::{Fields, invalid};
use super::identity::KindFilter;
use super::kustomization::field_spec;
use super::transformer_config::{NameReference, SECTIONS, TransformerConfig};

/// Reads a configuration file.
pub(super) fn read(text: &str, file: &str) -> Result<Arc<TransformerConfig>, RenderError> {
    let documents = read_nodes(text, file, Dialect::Settings)?;
    let mut config = TransformerConfig::default();
    let node = match documents.as_slice() {
        [] => return Ok(Arc::new(config)),
        [node] => node,
        [_, second, ..] => {
            return Err(invalid(file, second.line, "a configuration is one document; remove the others"));
        }
    };
    let mut known = SECTIONS.to_vec();
    known.push("nameReference");
    let fields = Fields::new(node, file, "a configuration", &known)?;
    for name in SECTIONS {
        let specs =
            fields.items(name)?.iter().map(|item| field_spec(item, file)).collect::<Result<Vec<_>, _>>()?;
        if let Some(section) = config.section(name) {
            *section = specs;
        }
    }
    for item in fields.items("nameReference")? {
        config.name_reference.push(name_reference(item, file)?);
    }
    Ok(Arc::new(config))
}

fn name_reference(node: &Node, file: &str) -> Result<NameReference, RenderError> {
    let fields = Fields::new(node, file, "a name reference", &["group", "version", "kind", "fieldSpecs"])?;
    let specs = match fields.get("fieldSpecs") {
        Some((_, Node { kind: NodeKind::List(items), .. })) => items.as_slice(),
        _ => &[],
    };
    Ok(NameReference {
        target: KindFilter {
            group: fields.text("group")?,
            version: fields.text("version")?,
            kind: fields.text("kind")?,
        },
        referrers: specs.iter().map(|item| field_spec(item, file)).collect::<Result<_, _>>()?,
    })
}
