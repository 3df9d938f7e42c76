//! Keys of [age](https://age-encryption.org), and opening what was sealed for them.
//!
//! Only what encrypted files in a repository need: small armored files, sealed for X25519 recipients
//! (`docs/decisions` says why this is no library). The format is `age-encryption.org/v1`, the primitives are
//! ring's and curve25519-dalek's.

mod bech32;
mod format;
mod keys;

pub use keys::{AgeKeys, KeysError};
