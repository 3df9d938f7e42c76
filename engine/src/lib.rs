//! The decisions of Holdfast, pure and replayable.
//!
//! Nothing in this crate reads a clock, a file, a socket or a source of randomness: what a decision
//! needs is passed in, and what it causes is returned as data. The modules follow the way of the data:
//! [`object`] → sops → kustomize → substitute → policy → plan → health → gate → [`schedule`] → rollout → audit →
//! message. A module imports
//! from those before it, never back.

pub mod audit;
pub mod gate;
pub mod health;
pub mod kustomize;
pub mod message;
pub mod object;
pub mod plan;
pub mod policy;
pub mod rollout;
pub mod schedule;
pub mod sops;
pub mod substitute;
