//! Evidence: one record per transition of an environment, chained by digest.
//!
//! Every record holds the digest of the one before it, so nothing can be changed, taken out or put in
//! without changing every later record, and the newest digest is anchored in the Environment's status.
//! [`verify`] needs nothing but the records.

mod chain;
mod record;
mod text;

pub use chain::{Anchor, ChainError, Verified, verify};
pub use record::{Context, FORMAT, MAX_RECORD, PolicyEvidence, Record, Tip};
pub use text::{commit_message, note_line};

#[cfg(test)]
mod tests;
