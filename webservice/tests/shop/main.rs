//! The shop over real sockets and as the program that it is, on each database.
//!
//! One program for all of it: what the tests share is compiled and linked once, and one waits while another works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin;
mod api;
mod carts;
mod manners;
mod operations;
mod orders;
mod processes;
mod support;
mod tls;
mod web;
