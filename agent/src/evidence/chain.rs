//! The records of a branch in a Git repository: reading them, adding one, putting some onto another tip.
//!
//! A record is the file `records/<hundreds>/<number>.json`, with the number in eight digits. Records are
//! kept in directories of a hundred, since every commit stores the directories on its way anew: with one
//! directory for all, ten thousand records would cost gigabytes.

use std::collections::BTreeMap;

use engine::audit::{self, MAX_RECORD};
use git2::{Commit, ErrorCode, FileMode, ObjectType, Oid, Repository, Signature, Time, Tree};
use jiff::Timestamp;

use super::EvidenceError;
use super::sign::SigningKey;

const README: &str = "# Deployment evidence\n\nOne commit and one file under `records/` for each transition of the environment. Every record holds the\ndigest of the one before it. `holdfast audit verify` checks the whole chain, offline.\n";

/// The newest record of a branch.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    pub(super) commit: Oid,
    pub(super) record: audit::Tip,
}

/// Where a record stands in the tree.
pub(super) fn path(sequence: u64) -> String {
    format!("records/{:06}/{sequence:08}.json", sequence / 100)
}

/// The newest record of a commit of the branch.
pub(super) fn tip(repository: &Repository, commit: Oid) -> Result<Option<Tip>, EvidenceError> {
    let tree = repository.find_commit(commit)?.tree()?;
    let Some((sequence, blob)) = newest(repository, &tree)? else { return Ok(None) };
    let record =
        audit::Tip::of_stored(&blob_bytes(repository, blob)?).map_err(|detail| altered(commit, &detail))?;
    if record.sequence != sequence {
        return Err(altered(
            commit,
            &format!("record {} stands in the place of record {sequence}", record.sequence),
        ));
    }
    Ok(Some(Tip { commit, record }))
}

/// Number and file of the newest record in a tree: the last entry of the last directory.
fn newest(repository: &Repository, tree: &Tree<'_>) -> Result<Option<(u64, Oid)>, git2::Error> {
    let Some(records) = subtree(repository, tree, "records")? else { return Ok(None) };
    let mut newest = None;
    for hundred in records.iter() {
        if hundred.kind() == Some(ObjectType::Tree) {
            newest = Some(hundred.id());
        }
    }
    let Some(hundred) = newest else { return Ok(None) };
    let found = files(&repository.find_tree(hundred)?).into_iter().next_back();
    Ok(found)
}

/// All records of a tree: number and file.
pub(super) fn records(repository: &Repository, commit: Oid) -> Result<BTreeMap<u64, Oid>, git2::Error> {
    let tree = repository.find_commit(commit)?.tree()?;
    let Some(records) = subtree(repository, &tree, "records")? else { return Ok(BTreeMap::new()) };
    let mut all = BTreeMap::new();
    for hundred in records.iter().filter(|entry| entry.kind() == Some(ObjectType::Tree)) {
        all.extend(files(&repository.find_tree(hundred.id())?));
    }
    Ok(all)
}

/// One record of a tree.
pub(super) fn record(
    repository: &Repository,
    commit: Oid,
    sequence: u64,
) -> Result<Option<Vec<u8>>, git2::Error> {
    let tree = repository.find_commit(commit)?.tree()?;
    match tree.get_path(path(sequence).as_ref()) {
        Ok(entry) => Ok(Some(blob_bytes(repository, entry.id())?)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The commit that added a record, going back from `tip`.
pub(super) fn commit_of(repository: &Repository, tip: Oid, sequence: u64) -> Result<Oid, git2::Error> {
    let mut commit = repository.find_commit(tip)?;
    while let Ok(parent) = commit.parent(0) {
        match newest(repository, &parent.tree()?)? {
            Some((newest, _)) if newest >= sequence => commit = parent,
            _ => break,
        }
    }
    Ok(commit.id())
}

fn subtree<'a>(
    repository: &'a Repository,
    tree: &Tree<'_>,
    name: &str,
) -> Result<Option<Tree<'a>>, git2::Error> {
    match tree.get_name(name) {
        Some(entry) if entry.kind() == Some(ObjectType::Tree) => repository.find_tree(entry.id()).map(Some),
        _ => Ok(None),
    }
}

fn files(directory: &Tree<'_>) -> BTreeMap<u64, Oid> {
    let number = |name: &[u8]| std::str::from_utf8(name).ok()?.strip_suffix(".json")?.parse().ok();
    directory.iter().filter_map(|entry| Some((number(entry.name_bytes())?, entry.id()))).collect()
}

/// The content of a record, unless it is larger than any record can be.
pub(super) fn blob_bytes(repository: &Repository, id: Oid) -> Result<Vec<u8>, git2::Error> {
    let odb = repository.odb()?;
    let (size, _) = odb.read_header(id)?;
    if size > MAX_RECORD {
        return Err(git2::Error::from_str(&format!("a record has {size} bytes, which none can have")));
    }
    Ok(repository.find_blob(id)?.content().to_vec())
}

/// A record as a commit holds it.
pub(super) struct Entry<'a> {
    pub(super) sequence: u64,
    pub(super) bytes: &'a [u8],
    /// The commit's message.
    pub(super) message: &'a str,
    /// The commit's time.
    pub(super) at: Timestamp,
}

/// Writes a commit with one more record onto `parent`; no reference moves. The same record on the same
/// parent always makes the same commit.
pub(super) fn commit(
    repository: &Repository,
    parent: Option<Oid>,
    entry: &Entry<'_>,
    key: Option<&SigningKey>,
) -> Result<Oid, EvidenceError> {
    let parent = parent.map(|id| repository.find_commit(id)).transpose()?;
    let blob = repository.blob(entry.bytes)?;
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert(path(entry.sequence), blob, FileMode::Blob);
    let base = match &parent {
        Some(parent) => parent.tree()?,
        None => {
            update.upsert("README.md", repository.blob(README.as_bytes())?, FileMode::Blob);
            repository.find_tree(repository.treebuilder(None)?.write()?)?
        }
    };
    let tree = repository.find_tree(update.create_updated(repository, &base)?)?;
    let parents: Vec<&Commit<'_>> = parent.iter().collect();
    let who = signature(entry.at)?;
    // Git ends a commit's text at a zero byte.
    let message = entry.message.replace('\0', "");
    let content = repository.commit_create_buffer(&who, &who, &message, &tree, &parents)?;
    match key {
        None => Ok(repository.odb()?.write(ObjectType::Commit, &content)?),
        Some(key) => {
            let text = std::str::from_utf8(&content)
                .map_err(|_| EvidenceError::Storage { detail: "a commit is not UTF-8 text".to_owned() })?;
            Ok(repository.commit_signed(text, &key.sign(&content)?, None)?)
        }
    }
}

/// The agent, at the time of a transition.
pub(super) fn signature(at: Timestamp) -> Result<Signature<'static>, git2::Error> {
    Signature::new("Holdfast", "agent@holdfast.dev", &Time::new(at.as_second(), 0))
}

/// What became of a comparison of the local branch with the remote one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// The remote branch has everything.
    Adopt,
    /// The remote branch lacks these local records, oldest first.
    Add(Vec<u64>),
    /// They contradict each other at this record.
    Conflict(u64),
}

/// Compares two chains record by record: history may differ, records may not.
pub(super) fn meet(local: &BTreeMap<u64, Oid>, remote: &BTreeMap<u64, Oid>) -> Meeting {
    let last = remote.keys().next_back().copied().unwrap_or(0);
    for (sequence, blob) in local.range(..=last) {
        if remote.get(sequence) != Some(blob) {
            return Meeting::Conflict(*sequence);
        }
    }
    // A record that only the remote has, between two that both have, was slipped in.
    if let Some((first, _)) = local.first_key_value()
        && let Some((sequence, _)) = remote
            .range(first..)
            .find(|(sequence, _)| !local.contains_key(sequence) && local.range(*sequence..).next().is_some())
    {
        return Meeting::Conflict(*sequence);
    }
    // Without a common record nothing says that the local ones continue the remote ones.
    if let (Some((first, _)), true) =
        (local.first_key_value(), remote.keys().all(|key| !local.contains_key(key)))
        && !remote.is_empty()
    {
        return Meeting::Conflict(*first);
    }
    let missing: Vec<u64> = local.range(last + 1..).map(|(sequence, _)| *sequence).collect();
    if missing.is_empty() { Meeting::Adopt } else { Meeting::Add(missing) }
}

/// The records of a branch, oldest first, each with the commit that added it.
///
/// A commit that adds no record or several, or that changes or removes one, is an error: the files alone
/// would not show it.
pub(super) fn read(repository: &Repository, tip: Oid) -> Result<Vec<(String, Vec<u8>)>, EvidenceError> {
    let mut commits = Vec::new();
    let mut next = Some(tip);
    while let Some(id) = next {
        let commit = repository.find_commit(id)?;
        if commit.parent_count() > 1 {
            return Err(altered(id, "it is a merge, which the agent never makes"));
        }
        next = commit.parent_id(0).ok();
        commits.push(id);
    }
    commits.reverse();
    let mut found = Vec::with_capacity(commits.len());
    let mut before: Option<Tree<'_>> = None;
    for id in commits {
        let tree = repository.find_commit(id)?.tree()?;
        let diff = repository.diff_tree_to_tree(before.as_ref(), Some(&tree), None)?;
        let mut added = None;
        for delta in diff.deltas() {
            let name = delta.new_file().path().and_then(|path| path.to_str()).unwrap_or_default();
            if !name.starts_with("records/") {
                continue;
            }
            let new = delta.status() == git2::Delta::Added;
            if !new || added.replace(delta.new_file().id()).is_some() {
                return Err(altered(id, &format!("it does more than add one record: see {name}")));
            }
        }
        let blob = added.ok_or_else(|| altered(id, "it adds no record"))?;
        found.push((id.to_string(), blob_bytes(repository, blob)?));
        before = Some(tree);
    }
    Ok(found)
}

fn altered(commit: Oid, detail: &str) -> EvidenceError {
    EvidenceError::Altered { commit: commit.to_string(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(records: &[(u64, u8)]) -> BTreeMap<u64, Oid> {
        records.iter().map(|(sequence, byte)| (*sequence, Oid::from_bytes(&[*byte; 20]).unwrap())).collect()
    }

    #[test]
    fn chains_meet_only_if_no_record_contradicts_another() {
        let local = chain(&[(1, 1), (2, 2), (3, 3)]);
        for (remote, expected) in [
            (chain(&[]), Meeting::Add(vec![1, 2, 3])),
            (chain(&[(1, 1), (2, 2)]), Meeting::Add(vec![3])),
            (local.clone(), Meeting::Adopt),
            (chain(&[(1, 1), (2, 2), (3, 3), (4, 4)]), Meeting::Adopt),
            (chain(&[(1, 1), (2, 9)]), Meeting::Conflict(2)),
            (chain(&[(1, 1), (3, 3)]), Meeting::Conflict(2)),
            (chain(&[(1, 1), (2, 2), (3, 9), (4, 4)]), Meeting::Conflict(3)),
        ] {
            assert_eq!(meet(&local, &remote), expected, "{remote:?}");
        }
        assert_eq!(meet(&chain(&[(1, 1), (3, 3)]), &local), Meeting::Conflict(2));
        assert_eq!(meet(&chain(&[(4, 4)]), &local), Meeting::Conflict(4));
    }

    #[test]
    fn records_sort_by_number() {
        assert_eq!(path(7), "records/000000/00000007.json");
        assert_eq!(path(1234), "records/000012/00001234.json");
        assert!(path(99) < path(100) && path(99_999) < path(100_000));
    }
}
