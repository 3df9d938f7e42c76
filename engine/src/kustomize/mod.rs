//! Rendering a tree of kustomizations, as `kustomize build` does.
//!
//! The meanings are kustomize 5.8's, as `kubectl kustomize` shows them; the corpus in `tests/` compares
//! the two. What older versions accept means the same to them, but for points in the names that a
//! replacement's target selects: they are any character since these are regular expressions. One thing is told apart on
//! purpose: kustomize doubles the end of a line before a more indented one in folded texts (`>`) whenever it writes
//! them out in between; here they stay as YAML reads them. Everything is read through a [`Tree`], so nothing here knows a file system, and a render
//! remembers what it read. Remote bases, Helm charts and plugins are refused.

mod accumulator;
mod build_metadata;
mod cache;
mod configurations;
mod crds;
mod embedded;
mod error;
mod explain;
mod field_path;
mod field_spec;
mod fields;
mod generators;
mod hash;
mod identity;
mod images;
mod keyed_list;
mod kustomization;
mod labels;
mod locate;
mod merge_schema;
mod name_references;
mod names;
mod namespace;
mod order;
mod patch_json;
mod patch_strategic;
mod patches;
mod plugins;
mod reads;
mod render;
mod replacements;
mod replicas;
mod resource;
mod resource_map;
mod resources;
mod selector;
mod settings;
mod transform;
mod transformer_config;
mod tree;
mod value_add;
mod vars;

pub use cache::{Cache, CacheStatistics, DEFAULT_CACHE_BYTES};
pub use error::RenderError;
pub use explain::Step;
pub use reads::{MAX_FILE_BYTES, MAX_READ_BYTES, ReadSet, Reader};
pub use render::{FailedRender, Options, Rendered, render, render_as, render_with};
pub use resource::Source;
pub use resource_map::MAX_OBJECTS;
pub use tree::{Entry, EntryKind, MapTree, Tree, TreeError, join};
