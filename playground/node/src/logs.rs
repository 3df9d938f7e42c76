//! The output of containers: one file for the present run and one for the run before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::context::safe;

/// Where a container's output goes.
pub(crate) fn path(root: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    root.join("logs").join(safe(namespace)).join(safe(pod)).join(format!("{}.log", safe(container)))
}

/// Where the output of the run before is kept.
pub(crate) fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.log")
}

/// Opens the file for a new run; `keep` keeps the old one as that of the run before.
pub(crate) fn create(path: &Path, keep: bool) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if keep && path.exists() {
        fs::rename(path, previous(path))?;
    } else {
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(previous(path));
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// The last bytes of a file as text; none if there are none.
pub(crate) fn tail(path: &Path, bytes: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.is_empty())
}
