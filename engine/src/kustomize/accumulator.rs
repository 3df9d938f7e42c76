//! What a kustomization passes to the one that includes it.

use std::sync::Arc;

use serde_json::Value;

use super::error::RenderError;
use super::resource::{Origin, Source};
use super::resource_map::ResourceMap;
use super::transformer_config::TransformerConfig;
use super::vars::Variable;

/// Objects, and what is done with them only at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Accumulator {
    pub resources: ResourceMap,
    /// None until a kustomization brought its configuration.
    pub config: Option<Arc<TransformerConfig>>,
    pub variables: Vec<Variable>,
    /// Whether objects note what changed them.
    pub explains: bool,
    /// The objects before the step that is under way.
    pub before: Vec<Value>,
}

impl Accumulator {
    /// Adds what an included kustomization made.
    pub fn merge(&mut self, child: Self, at: &Source) -> Result<(), RenderError> {
        self.resources.append_all(child.resources)?;
        if let Some(config) = &child.config {
            self.add_config(config, at)?;
        }
        child.variables.into_iter().try_for_each(|variable| self.add_variable(variable))
    }

    /// Adds fields that transformers touch.
    pub fn add_config(&mut self, config: &Arc<TransformerConfig>, at: &Source) -> Result<(), RenderError> {
        // Merging with nothing matters: a field spec without a kind gives way to one with a kind before it.
        let known = match &self.config {
            None if Arc::ptr_eq(config, &TransformerConfig::builtin()) => Arc::clone(config),
            None => Arc::default(),
            Some(known) => Arc::clone(known),
        };
        let merged = TransformerConfig::merged(&known, config)
            .map_err(|problem| RenderError::Invalid { source_at: at.clone(), problem })?;
        self.config = Some(merged);
        Ok(())
    }

    /// Notes a transformer on every object: as its origin if it has none, else as a change.
    pub fn remark(&mut self, origin: Option<Origin>) {
        let Some(origin) = origin else { return };
        for resource in self.resources.iter_mut() {
            if resource.origin.is_none() {
                resource.origin = Some(origin.clone());
            } else {
                resource.transformations.push(origin.clone());
            }
        }
    }

    /// Binds variables to their objects and remembers them.
    pub fn bind_variables(&mut self, variables: &[Variable]) -> Result<(), RenderError> {
        for variable in variables {
            variable.bind(self.resources.as_mut_slice())?;
            self.add_variable(variable.clone())?;
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: Variable) -> Result<(), RenderError> {
        if let Some(known) = self.variables.iter().find(|known| known.name == variable.name) {
            return Err(RenderError::Invalid {
                problem: format!(
                    "var {} is already set at {}; rename one of the two",
                    variable.name, known.source
                ),
                source_at: variable.source,
            });
        }
        self.variables.push(variable);
        Ok(())
    }
}
