//! The rollout of one environment: every decision about it, as one pure function.
//!
//! Everything that happens to an environment is an [`Event`]; everything the agent does is an
//! [`Effect`]; [`step`] decides between them. The agent persists the new [`Rollout`] before it executes
//! the effects, and every effect can be repeated, so a crash at any point loses nothing: after a restart
//! [`Event::Started`] brings back the effects that the phase still needs.

mod door;
mod event;
mod progress;
mod settings;
mod state;
mod step;
mod transition;
mod window;

#[cfg(test)]
mod tests;

pub use event::{ApplyMode, Command, DoorProblem, Effect, Event, HealthSummary, Sink, Unready};
pub use settings::{Drift, RollbackMode, Settings};
pub use state::{
    Blocked, Failure, Held, HoldReason, Outgoing, Phase, Release, Revision, Rollout, SourceProblem,
};
pub use step::step;
pub use transition::{Reason, Transition};
pub use window::Window;
