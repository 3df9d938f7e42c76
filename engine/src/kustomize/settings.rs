//! What a kustomization says in further files: configurations, crds, a schema, generators, transformers.

use std::sync::Arc;

use super::accumulator::Accumulator;
use super::configurations;
use super::crds;
use super::error::RenderError;
use super::explain::Step;
use super::fields::Located;
use super::generators::SourceFile;
use super::kustomization::{Kustomization, OpenApi};
use super::merge_schema::Schemas;
use super::patches;
use super::plugins::{self, Transformer};
use super::render::{Renderer, join_origin};
use super::resource::{Origin, Resource, Source};
use super::resources::{self, Role};
use super::transform::Load;
use super::transformer_config::TransformerConfig;

/// The schema version that kustomize has built in.
const BUILTIN_SCHEMA: &str = "v1.21.2";

impl Renderer<'_> {
    /// Takes the schema that a kustomization brings, if it is the first.
    pub(super) fn use_schema(
        &mut self,
        directory: &str,
        kustomization: &Kustomization,
    ) -> Result<(), RenderError> {
        match &kustomization.openapi {
            None => {}
            Some(OpenApi::Version(version)) if version.text == BUILTIN_SCHEMA => self.schema_is_set = true,
            Some(OpenApi::Version(version)) => {
                return Err(RenderError::Invalid {
                    source_at: version.source.clone(),
                    problem: format!("the schema version {:?} must be {BUILTIN_SCHEMA}", version.text),
                });
            }
            Some(OpenApi::Path(path)) => {
                let file = self.find(directory, path)?;
                let schemas = Schemas::read(&self.reader.text(&file)?, &file, self.builtin_uses > 0)?;
                if !self.schema_is_set {
                    self.schemas = schemas;
                    self.schema_is_set = true;
                }
            }
        }
        Ok(())
    }

    /// Adds what `configurations` and `crds` say about fields.
    pub(super) fn add_config(
        &self,
        directory: &str,
        kustomization: &Kustomization,
        accumulated: &mut Accumulator,
    ) -> Result<(), RenderError> {
        let at = Source::new(&kustomization.file, 1);
        let builtin = TransformerConfig::builtin();
        let config = self.read_config(directory, &kustomization.configurations, configurations::read)?;
        let config = match config {
            Some(config) => merge_config(&builtin, &config, &at)?,
            None => builtin,
        };
        accumulated.add_config(&config, &at)?;
        match self.read_config(directory, &kustomization.crds, crds::read)? {
            Some(config) => accumulated.add_config(&config, &at),
            None => Ok(()),
        }
    }

    /// Reads files that each give a part of the configuration.
    fn read_config(
        &self,
        directory: &str,
        entries: &[Located],
        read: fn(&str, &str) -> Result<Arc<TransformerConfig>, RenderError>,
    ) -> Result<Option<Arc<TransformerConfig>>, RenderError> {
        let mut config: Option<Arc<TransformerConfig>> = None;
        for entry in entries {
            let file = self.find(directory, entry)?;
            let more = read(&self.reader.text(&file)?, &file)?;
            config = Some(merge_config(&config.unwrap_or_default(), &more, &entry.source)?);
        }
        Ok(config)
    }

    /// Runs the generators that are given as objects.
    pub(super) fn run_generators(
        &mut self,
        directory: &str,
        origin: &str,
        kustomization: &Kustomization,
        accumulated: &mut Accumulator,
    ) -> Result<(), RenderError> {
        for object in
            self.plugin_objects(directory, origin, kustomization, &kustomization.plugin_generators)?
        {
            let load = |file: &SourceFile<'_>| self.load(directory, file);
            let mut generated = plugins::generate(&object, &load)?;
            generated.origin = plugins::origin(&object);
            if self.explains {
                generated.steps.push(Step::new(&format!("generators: {}", object.kind()), &object.source));
            }
            accumulated.resources.absorb(generated)?;
        }
        Ok(())
    }

    /// Runs the transformers that are given as objects.
    pub(super) fn run_transformers(
        &mut self,
        directory: &str,
        origin: &str,
        kustomization: &Kustomization,
        accumulated: &mut Accumulator,
    ) -> Result<(), RenderError> {
        let objects =
            self.plugin_objects(directory, origin, kustomization, &kustomization.plugin_transformers)?;
        if objects.is_empty() {
            return Ok(());
        }
        let load = |path: &Located| {
            let file = self.find(directory, path)?;
            Ok((self.text(&file)?, file))
        };
        let load: Load<'_> = &load;
        accumulated.begin_steps();
        for object in objects {
            for transformer in Transformer::read(&object)? {
                transformer.apply(accumulated, load, &self.schemas)?;
            }
            accumulated.step(plugins::origin(&object), || {
                Step::new(&format!("transformers: {}", object.kind()), &object.source)
            });
        }
        Ok(())
    }

    /// The objects that configure generators or transformers: those in place, then those in files and folders.
    fn plugin_objects(
        &mut self,
        directory: &str,
        origin: &str,
        kustomization: &Kustomization,
        entries: &[Located],
    ) -> Result<Vec<Resource>, RenderError> {
        let mut found = Accumulator::default();
        let (inline, paths): (Vec<&Located>, Vec<&Located>) =
            entries.iter().partition(|entry| patches::is_inline(&entry.text));
        for entry in inline {
            for mut object in resources::read(&entry.text, &kustomization.file, Role::Object)? {
                object.source = Source::new(&kustomization.file, entry.source.line + object.source.line - 1);
                if self.tracks_origin {
                    let name = kustomization.file.rsplit('/').next().unwrap_or_default();
                    object.origin = Some(Origin { path: join_origin(origin, name), ..Origin::default() });
                }
                found.resources.append(object)?;
            }
        }
        for entry in paths {
            self.add_resource(directory, origin, entry, &mut found)?;
        }
        Ok(found.resources.into_list())
    }
}

fn merge_config(
    known: &Arc<TransformerConfig>,
    more: &Arc<TransformerConfig>,
    at: &Source,
) -> Result<Arc<TransformerConfig>, RenderError> {
    TransformerConfig::merged(known, more)
        .map_err(|problem| RenderError::Invalid { source_at: at.clone(), problem })
}
