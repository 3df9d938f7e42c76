//! An embedded Kubernetes API server, in memory.
//!
//! It behaves as the API server of Kubernetes 1.36 does for the built-in kinds and for custom resources: discovery, CRUD, the
//! patches, server-side apply, watches, deletion with finalizers, RBAC. Recorded answers of a real server
//! (`tests/vectors`) are replayed against it.

mod admission;
mod app;
mod auth;
mod body;
mod bootstrap;
mod columns;
mod convert;
mod crd;
mod decode;
mod defaults;
mod delete;
mod discovery;
mod escalation;
mod expressions;
mod faults;
mod fieldset;
mod jsonpath;
mod kept;
mod last_applied;
mod logs;
mod managed;
mod metrics_api;
mod openapi;
mod patch;
mod protobuf;
mod rbac;
mod read;
mod request;
mod respond;
mod review;
mod route;
mod schema;
mod selector;
mod server;
mod services;
mod status;
mod store;
mod strategy;
mod streams;
mod sub;
mod table;
mod time;
mod tls;
mod typed;
mod validate;
mod watch;
mod write;

pub use faults::{ActiveRule, Fault, Faults, Rule, RuleError};
pub use kept::Kept;
pub use logs::{LogRequest, LogStream, PodLogs};
pub use metrics_api::{Amounts, NodeUsage, PodMetrics, PodUsage};
pub use server::{Config, Error, Server};
pub use streams::{CommandRequest, Input, Output, PodStreams, Session};
