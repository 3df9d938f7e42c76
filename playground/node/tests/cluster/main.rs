//! A whole cluster in one process: the API server, the controllers and a node, with this very program in the place
//! of images.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod fixture;
mod harness;
mod lifecycle;
mod rollouts;
mod schedules;
mod traffic;
mod usage;
mod workloads;
