//! Kubernetes controllers as ordinary API clients.
//!
//! They see the cluster through one watch per resource, decide with pure functions, and write through the API, so
//! they run against any API server. Everything is driven by changes: there is no polling, and the only timers are
//! those of the objects themselves (minReadySeconds, deadlines).
//!
//! [`cache`], [`queue`] and [`events`] serve the node as well.

mod accounts;
mod autoscaler;
pub mod cache;
mod claims;
mod cluster;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod error;
pub mod events;
mod gc;
mod job;
mod meta;
mod namespaces;
pub mod provisioner;
pub mod queue;
mod quotas;
mod replicaset;
mod root_ca;
mod run;
mod scheduler;
mod settings;
mod statefulset;
mod writer;

pub use error::Error;
pub use run::{run, run_with};
pub use settings::Settings;
