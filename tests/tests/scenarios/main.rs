//! End-to-end scenarios: the agent as a process, a cluster, a repository, and what people do to them.

mod bad_manifest;
mod bad_metrics;
mod bad_source;
mod crash;
mod drift;
mod kubectl;
mod release;
mod rollback;
mod secrets;
mod slack;
