//! The reconciler daemon and command line: every input and output of Holdfast.

pub mod age;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod evidence;
pub mod http;
pub mod measure;
pub mod reconcile;
pub mod retry;
pub mod secret;
pub mod slack;
pub mod source;
pub mod telemetry;
pub mod tls;
