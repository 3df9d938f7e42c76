//! The ways into pods: the Ingress and the Services' own addresses.

mod http;
mod idle;
mod rules;
mod table;
mod tcp;

pub(crate) use http::{Ingress, serve};
pub(crate) use rules::Rules;
pub(crate) use table::Table;
pub(crate) use tcp::ServiceProxy;
