//! The plan as data.

use std::fmt;

use serde::Serialize;

use super::StageName;
use crate::object::ObjectRef;

/// What has to be done. Executing it leaves no choice to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Writes, in stages: one stage after the other, within a stage in any order.
    pub stages: Vec<Stage>,
    /// Deletions, one after the other; done only once everything is written.
    pub prune: Vec<Deletion>,
    /// Objects that Git no longer has and that stay nevertheless, with the reason.
    pub kept: Vec<(ObjectRef, String)>,
    /// Why the plan must not be executed. Nothing may be written while there is one.
    pub refusals: Vec<Refusal>,
    /// How many objects are as they should be.
    pub unchanged: usize,
}

/// Objects that may be written concurrently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Which stage.
    pub name: StageName,
    /// Its writes, sorted by object.
    pub writes: Vec<Write>,
}

/// One object to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// Which object.
    pub object: ObjectRef,
    /// Its place among the wanted objects.
    pub index: usize,
    /// Why it is written.
    pub why: Why,
}

/// Why an object is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// It does not exist.
    Create,
    /// Something else is wanted than was written last.
    Change,
    /// Somebody changed or took what the environment owns.
    Drift,
    /// It exists and is not a member yet.
    Adopt {
        /// Id of the ApplySet that it was part of.
        from: Option<String>,
    },
    /// It has no readable stamp, so nothing is known about it.
    Restamp,
}

/// One object to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// Which object.
    pub object: ObjectRef,
    /// Precondition: the object is still this one.
    pub uid: String,
    /// Precondition: the object is still as it was when this was planned.
    pub resource_version: String,
}

/// Why a plan must not be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The object that it is about; none if it is about the whole plan.
    pub object: Option<ObjectRef>,
    /// In a sentence, with what can be done.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{object}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Plan {
    /// How many objects are to be written.
    pub fn writes(&self) -> usize {
        self.stages.iter().map(|stage| stage.writes.len()).sum()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes() == 0 && self.prune.is_empty()
    }

    /// All refusals in one text.
    pub fn refusal(&self) -> Option<String> {
        let texts: Vec<String> = self.refusals.iter().map(Refusal::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

impl fmt::Display for Plan {
    /// One line per object, as a person reads a change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to write, {} to delete, {} unchanged",
            self.writes(),
            self.prune.len(),
            self.unchanged
        )?;
        for stage in &self.stages {
            write!(f, "\n{}:", stage.name)?;
            for Write { object, why, .. } in &stage.writes {
                match why {
                    Why::Create => write!(f, "\n  + {object}")?,
                    Why::Change => write!(f, "\n  ~ {object}")?,
                    Why::Drift => write!(f, "\n  ~ {object} (drifted)")?,
                    Why::Adopt { from: None } => write!(f, "\n  ~ {object} (adopted, it exists already)")?,
                    Why::Adopt { from: Some(from) } => write!(f, "\n  ~ {object} (adopted from {from})")?,
                    Why::Restamp => write!(f, "\n  ~ {object} (its state is not known)")?,
                }
            }
        }
        if !self.prune.is_empty() {
            f.write_str("\ndeletions:")?;
        }
        for deletion in &self.prune {
            write!(f, "\n  - {}", deletion.object)?;
        }
        if !self.kept.is_empty() {
            f.write_str("\nkept:")?;
        }
        for (object, reason) in &self.kept {
            write!(f, "\n  = {object} ({reason})")?;
        }
        if !self.refusals.is_empty() {
            f.write_str("\nrefused:")?;
        }
        for refusal in &self.refusals {
            write!(f, "\n  ! {refusal}")?;
        }
        Ok(())
    }
}
