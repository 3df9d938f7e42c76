//! Object identity, YAML in and out, canonical JSON, digests.

mod bundle;
mod canonical;
mod confidential;
mod identity;
mod quantity;
pub mod quota;
pub mod schema;
pub mod yaml;

pub use bundle::{Bundle, DuplicateObject};
pub use canonical::{Digest, ParseDigestError, canonical_json};
pub use confidential::Confidential;
pub use identity::{GroupKind, GroupVersionKind, InvalidObject, Object, ObjectRef};
pub use quantity::Quantity;
