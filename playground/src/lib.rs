//! An embedded Kubernetes and the one-command demonstration.
//!
//! The modules follow the course of a run: [`state`] (the folder `.playground`) → [`programs`] →
//! [`repository`] → [`slack`] → [`traffic`]. What is printed goes through
//! [`print`]; waiting for the cluster is in [`watch`]. The end-to-end tests use the same modules.

pub mod http_client;
pub mod print;
pub mod programs;
pub mod repository;
pub mod slack;
pub mod state;
pub mod traffic;
pub mod watch;
