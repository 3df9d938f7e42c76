//! Checking a chain of records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{FORMAT, Record, Tip};
use crate::object::Digest;

/// The largest record that is read, in bytes.
pub const MAX_RECORD: usize = 4 << 20;

/// The newest record that is known from elsewhere: from the Environment's status, or from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
}

impl From<&Tip> for Anchor {
    fn from(tip: &Tip) -> Self {
        Self { sequence: tip.sequence, digest: tip.digest }
    }
}

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
    let mut anchored = anchor.is_none_or(|anchor| anchor.sequence == 0);
    for (commit, bytes) in records {
        let bytes = bytes.as_ref();
        let record = read(&commit, bytes)?;
        // The digest is taken over what is stored: nothing is lost by reading and writing again.
        let digest = Digest::of_bytes(bytes);
        follows(&commit, &record, digest, before.as_ref())?;
        if let Some(anchor) = anchor.filter(|anchor| anchor.sequence == record.sequence) {
            if anchor.digest != digest {
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
        Some(anchor) if !anchored => {
            Err(ChainError::Truncated { last: tip.map_or(0, |tip| tip.sequence), anchored: anchor.sequence })
        }
        anchor => Ok(Verified { records: count, tip, anchored: anchor.is_some() }),
    }
}

fn read(commit: &str, bytes: &[u8]) -> Result<Record, ChainError> {
    let unreadable = |message: String| ChainError::Unreadable { commit: commit.to_owned(), message };
    if bytes.len() > MAX_RECORD {
        return Err(unreadable(format!("it has {} bytes, at most {MAX_RECORD} are read", bytes.len())));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if record.format != FORMAT {
        return Err(unreadable(format!("its format is {:?}, not {FORMAT:?}", record.format)));
    }
    Ok(record)
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
