//! Admission policies: standard `ValidatingAdmissionPolicy` objects with expressions in CEL.
//!
//! The same objects are checked on a pull request, before anything is applied, and by the API server if
//! they are applied there. The rules are those of
//! <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>.

pub mod cel;
mod cost;
mod evaluate;
mod library;
mod matching;
mod model;
mod quantity;
mod set;

pub use evaluate::{Action, Violation};
pub use matching::{Operation, plural};
pub use set::{PolicyError, PolicySet};

#[cfg(test)]
mod tests;
