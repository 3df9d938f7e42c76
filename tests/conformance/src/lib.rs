//! Holds API servers to what a real one answered.
//!
//! `tests/vectors` has scenarios: requests, and the answers of a real Kubernetes API server. [`replay`] sends the requests to
//! a server, the embedded one or any other, and compares. [`record`] makes scenarios from scripts.

pub mod client;
pub mod exceptions;
pub mod record;
pub mod replay;
pub mod scenario;
pub mod script;
pub mod symbols;
pub mod traces;

use std::path::PathBuf;

/// The folder with the recorded scenarios.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}
