//! Administrators: who they are, and what they did.

mod audit;
mod keys;
mod token;

pub use audit::{AuditEntry, AuditRecord};
pub use keys::{KeyError, Keys};
pub use token::verify;
pub use token::{Admin, sign};
