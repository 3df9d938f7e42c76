//! An embedded Kubernetes and the one-command demonstration.
//!
//! The modules follow the course of a run: [`state`] (the folder `.playground`) → [`programs`] →
//! [`cluster`] → [`repository`] → [`slack`] → [`agent_process`] → [`session`] (all of it, up) → [`traffic`]
//! → [`tour`]. What is printed goes through [`print`]; waiting for the cluster is in [`watch`]. The
//! end-to-end tests use the same modules.

pub mod agent_process;
pub mod cluster;
pub mod environment;
pub mod http_client;
pub mod network;
pub mod pod_logs;
pub mod pod_metrics;
pub mod pod_streams;
pub mod print;
pub mod programs;
pub mod repository;
pub mod session;
pub mod shop;
pub mod signals;
pub mod slack;
pub mod state;
pub mod tour;
pub mod traffic;
pub mod watch;
