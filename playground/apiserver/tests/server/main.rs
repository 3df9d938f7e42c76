//! The server over real sockets: recorded answers, what no recording shows, and faults on demand.

// A test that meets something unexpected stops there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod behaviour;
mod faults;
mod vectors;
