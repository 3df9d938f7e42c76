//! The reconciler daemon and command line: every input and output of Holdfast.

pub mod api;
pub mod cluster;
pub mod retry;
pub mod tls;
