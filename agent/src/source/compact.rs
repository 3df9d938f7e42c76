//! Keeps the number of pack files of a mirror small.
//!
//! Every fetch leaves a pack behind, and libgit2 keeps each pack that it has read from open: an agent
//! that fetches a thousand times would run out of file handles. So the packs of many fetches are put into
//! one now and then. What was packed that way is left alone afterwards, since packing the whole history of
//! a large repository takes minutes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

/// Up to which commits the settled packs reach.
const PACKED: &str = "refs/packed/";
/// Which packs are settled, one name a line, in the mirror's directory.
const SETTLED: &str = "holdfast-packs";

/// Puts the packs of newer fetches into one if there are more than `most`, and everything into one if
/// there are more than `most` of those. Says whether packs were replaced.
///
/// # Errors
/// Of the file system and of libgit2; the mirror stays readable, and it is tried again after a later fetch.
pub(super) fn compact(path: &Path, most: usize) -> Result<bool, git2::Error> {
    let packs = packs(path)?;
    let record = path.join(SETTLED);
    let settled: BTreeSet<String> = match fs::read_to_string(&record) {
        Ok(text) => text.lines().map(ToOwned::to_owned).filter(|name| packs.contains(name)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A new mirror: what the first fetch brought is one pack as it should be.
            let repository = Repository::open_bare(path)?;
            mark(&repository, &tips(&repository, "refs/holdfast/*")?)?;
            write(&record, &packs)?;
            return Ok(false);
        }
        Err(error) => return Err(failed(&record, &error)),
    };
    if packs.len() - settled.len() <= most {
        return Ok(false);
    }
    let everything = settled.len() > most;
    let repository = Repository::open_bare(path)?;
    let tips = tips(&repository, "refs/holdfast/*")?;
    let mut walk = repository.revwalk()?;
    for tip in &tips {
        walk.push(*tip)?;
    }
    if !everything {
        for tip in self::tips(&repository, &format!("{PACKED}*"))? {
            walk.hide(tip)?;
        }
    }
    let mut builder = repository.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    let mut kept = if everything { BTreeSet::new() } else { settled };
    if builder.object_count() > 0 {
        builder.write(&path.join("objects").join("pack"), 0)?;
        let name = builder.name()?.ok_or_else(|| git2::Error::from_str("the new pack has no name"))?;
        kept.insert(format!("pack-{name}"));
    }
    // From here on a crash costs nothing but space: the new pack is there before any old one goes.
    write(&record, &kept)?;
    mark(&repository, &tips)?;
    for name in packs.difference(&kept) {
        for suffix in ["idx", "rev", "pack"] {
            let file = pack_directory(path).join(format!("{name}.{suffix}"));
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(failed(&file, &error));
            }
        }
    }
    Ok(true)
}

fn pack_directory(path: &Path) -> PathBuf {
    path.join("objects").join("pack")
}

/// The names of all packs, without suffix.
fn packs(path: &Path) -> Result<BTreeSet<String>, git2::Error> {
    let directory = pack_directory(path);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(&directory, &error)),
    };
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".pack")?.to_owned());
    Ok(entries.flatten().filter_map(name).collect())
}

fn tips(repository: &Repository, glob: &str) -> Result<BTreeSet<Oid>, git2::Error> {
    let references = repository.references_glob(glob)?;
    Ok(references
        .flatten()
        .filter_map(|reference| reference.peel_to_commit().ok())
        .map(|commit| commit.id())
        .collect())
}

fn mark(repository: &Repository, tips: &BTreeSet<Oid>) -> Result<(), git2::Error> {
    for tip in tips {
        repository.reference(&format!("{PACKED}{tip}"), *tip, true, "packed")?;
    }
    for stale in repository.references_glob(&format!("{PACKED}*"))?.flatten() {
        let mut stale = stale;
        if stale.target().is_none_or(|tip| !tips.contains(&tip)) {
            stale.delete()?;
        }
    }
    Ok(())
}

fn write(file: &Path, names: &BTreeSet<String>) -> Result<(), git2::Error> {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    let new = file.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, file)).map_err(|error| failed(file, &error))
}

fn failed(path: &Path, error: &io::Error) -> git2::Error {
    git2::Error::from_str(&format!("{}: {error}", path.display()))
}
