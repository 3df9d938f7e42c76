//! Checking a chain of records.

use std::fmt;

use jiff::Timestamp;

use super::record::{Record, Tip};
use crate::object::Digest;

/// Number and digest of the newest record that is known from elsewhere: from the Environment's status, or
/// from a backup.
pub type Anchor = (u64, Digest);

/// A chain in which nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// The newest one; none if there are no records.
    pub tip: Option<Tip>,
    /// Whether the chain was compared with an anchor. Without one, records that were taken off the end
    /// cannot be noticed, nor a chain that was written anew as a whole.
    pub anchored: bool,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tip) = &self.tip else { return f.write_str("there are no records") };
        let records = if self.records == 1 { "record" } else { "records" };
        write!(
            f,
            "{} {records}, nothing was changed; the newest is record {} of {}",
            self.records, tip.sequence, tip.at
        )?;
        if !self.anchored {
            f.write_str(". Without an anchor, records that were cut off the end cannot be noticed")?;
        }
        Ok(())
    }
}

/// A chain that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// What is stored is not a record.
    #[error("commit {commit}: this is not a record: {message}")]
    Unreadable {
        /// The commit that holds it.
        commit: String,
        /// What is wrong.
        message: String,
    },
    /// A number is left out.
    #[error("commit {commit}: record {expected} is missing, record {found} is in its place")]
    Gap {
        /// The commit that holds the later record.
        commit: String,
        /// The number that is missing.
        expected: u64,
        /// The number that was found.
        found: u64,
    },
    /// A record, or the one before it, is not what it was.
    #[error(
        "commit {commit}: record {sequence} does not follow from the one before it: one of them was changed"
    )]
    Changed {
        /// The commit that holds the later record.
        commit: String,
        /// Number of the later record.
        sequence: u64,
    },
    /// A record stands there a second time.
    #[error("commit {commit}: record {sequence} repeats an earlier one")]
    Replayed {
        /// The commit that holds the second.
        commit: String,
        /// Its number.
        sequence: u64,
    },
    /// A record belongs to another environment's chain.
    #[error("commit {commit}: this record is of environment {found}, the chain is of {expected}")]
    Foreign {
        /// The commit that holds it.
        commit: String,
        /// The environment of the chain.
        expected: String,
        /// The environment of the record.
        found: String,
    },
    /// The newest records are gone.
    #[error("the chain ends at record {last}, but record {anchored} was written: the end was cut off")]
    Truncated {
        /// Number of the last record that is there; 0 if there is none.
        last: u64,
        /// Number of the record that is known.
        anchored: u64,
    },
    /// The chain is another than the one that was anchored.
    #[error(
        "record {sequence} is not the one that was anchored: it was changed, or the chain was written anew"
    )]
    Rewritten {
        /// Number of the anchored record.
        sequence: u64,
    },
}

/// Checks a chain, oldest record first, each with the id of the commit that holds it.
///
/// # Errors
/// [`ChainError`] names the first record that is not as it was written.
pub fn verify<I, B>(records: I, anchor: Option<Anchor>) -> Result<Verified, ChainError>
where
    I: IntoIterator<Item = (String, B)>,
    B: AsRef<[u8]>,
{
    let mut before: Option<(Tip, String)> = None;
    let mut count = 0;
    let mut anchored = anchor.is_none_or(|(sequence, _)| sequence == 0);
    for (commit, bytes) in records {
        let bytes = bytes.as_ref();
        let record = Record::from_stored(bytes)
            .map_err(|message| ChainError::Unreadable { commit: commit.clone(), message })?;
        // The digest is taken over what is stored: nothing is lost by reading and writing again.
        let digest = Digest::of_bytes(bytes);
        follows(&commit, &record, digest, before.as_ref())?;
        if let Some((_, wanted)) = anchor.filter(|(sequence, _)| *sequence == record.sequence) {
            if wanted != digest {
                return Err(ChainError::Rewritten { sequence: record.sequence });
            }
            anchored = true;
        }
        let tip = Tip { sequence: record.sequence, digest, transition: record.transition, at: record.at };
        before = Some((tip, record.environment));
        count += 1;
    }
    let tip = before.map(|(tip, _)| tip);
    match anchor {
        Some((sequence, _)) if !anchored => {
            Err(ChainError::Truncated { last: tip.map_or(0, |tip| tip.sequence), anchored: sequence })
        }
        anchor => Ok(Verified { records: count, tip, anchored: anchor.is_some() }),
    }
}

fn follows(
    commit: &str,
    record: &Record,
    digest: Digest,
    before: Option<&(Tip, String)>,
) -> Result<(), ChainError> {
    let commit = commit.to_owned();
    let sequence = record.sequence;
    let Some((tip, environment)) = before else {
        return match (sequence, record.previous) {
            (1, None) => Ok(()),
            (1, Some(_)) => Err(ChainError::Changed { commit, sequence }),
            _ => Err(ChainError::Gap { commit, expected: 1, found: sequence }),
        };
    };
    if *environment != record.environment {
        let (expected, found) = (environment.clone(), record.environment.clone());
        return Err(ChainError::Foreign { commit, expected, found });
    }
    let expected = tip.sequence.saturating_add(1);
    if digest == tip.digest || sequence < expected || covers(tip, record.transition, record.at) {
        return Err(ChainError::Replayed { commit, sequence });
    }
    if sequence > expected {
        return Err(ChainError::Gap { commit, expected, found: sequence });
    }
    if record.previous != Some(tip.digest) {
        return Err(ChainError::Changed { commit, sequence });
    }
    Ok(())
}

fn covers(tip: &Tip, transition: u64, at: Timestamp) -> bool {
    transition <= tip.transition && at <= tip.at
}
