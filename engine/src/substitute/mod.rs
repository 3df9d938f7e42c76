//! Putting variables into rendered objects: `${NAME}`, with bash's ways to cut, replace and default.
//!
//! The meanings are those of Flux's post-build substitution (a subset of bash's parameter expansion), so that
//! a repository moves without a change, with two differences that only refuse or repair: a variable that
//! nobody sets is an error where Flux puts nothing, and a value cannot break out of the field that it is put
//! into. As in Flux a field that becomes a number is one: `replicas: ${N}`.

mod evaluate;
mod expression;
mod glob;
mod objects;
mod variables;

pub use objects::{SubstituteError, substitute};
pub use variables::{InvalidName, Variables};
