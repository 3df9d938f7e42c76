//! What has to be written and deleted so that a cluster holds a bundle.
//!
//! [`plan`] compares the wanted objects with what is remembered of the live ones and yields a [`Plan`]:
//! immutable data that a person can read and that leaves no choice to whoever executes it. Ownership is
//! told by marks on the objects, never by a list that could be lost.

mod autoscaler;
pub mod canary;
mod diff;
mod lint;
mod live;
mod marks;
mod model;
mod planner;
mod stage;

pub use autoscaler::{keep_scale, leave_to_autoscaler};
pub use diff::{Change, diff};
pub use lint::lint;
pub use live::Live;
pub use marks::{
    ALLOW_DELETION, APPLIED, APPLYSET_GROUP_KINDS, APPLYSET_ID, APPLYSET_TOOLING, FORBID_ROLLBACK, Marks,
    PART_OF, PRUNE, ShortDigest, Stamp, applyset_id, owned_fields, stamp,
};
pub use model::{Deletion, Plan, Refusal, Stage, Why, Write};
pub use planner::{Approvals, DeletionBudget, Input, plan};
pub use stage::StageName;

#[cfg(test)]
mod tests;
