//! The loop: observe, decide by [`engine::rollout::step`], persist, act.

mod actor;
mod board;
mod candidate;
mod correct;
mod desired;
mod effects;
mod evidence;
mod follow;
mod manager;
mod materials;
mod others;
mod outbox;
mod probe;
mod requests;
mod serve;
mod services;
mod status;
mod write;

pub use candidate::{read_policies, violations};
pub use desired::Desired;
pub use materials::{Materials, Supplies};
pub use serve::{ServeError, serve};
pub use services::Options;
