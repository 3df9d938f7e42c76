//! Encrypted dotenv files.

use super::error::SopsProblem;
use super::metadata::Metadata;
use super::tree::Opening;
use super::{KeyRing, flat};
use crate::object::Confidential;

const PREFIX: &str = "sops_";

/// Whether a text is an encrypted dotenv file.
pub(super) fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("sops_mac=ENC["))
}

/// The file as it was before encryption.
pub(super) fn decrypt(
    text: &str,
    keys: Option<&dyn KeyRing>,
) -> Result<(Vec<u8>, Confidential), (usize, SopsProblem)> {
    let pairs = text.lines().filter_map(|line| line.strip_prefix(PREFIX)?.split_once('='));
    let first = |problem| (1, problem);
    let metadata = Metadata::read(&flat::unflatten(pairs)).map_err(first)?;
    let mut opening = Opening::new(metadata, keys).map_err(first)?;
    let mut out = Vec::with_capacity(text.len());
    for (at, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.starts_with(PREFIX) {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            let plain = opening.comment(comment, &[Vec::new()]);
            out.push(b'#');
            out.extend_from_slice(plain.as_deref().unwrap_or(comment).as_bytes());
        } else {
            let problem = || SopsProblem::Unreadable("this line has no =; write KEY=value".to_owned());
            let (key, value) = line.split_once('=').ok_or_else(|| (at + 1, problem()))?;
            let opened =
                opening.flat(&[key], &value.replace("\\n", "\n")).map_err(|problem| (at + 1, problem))?;
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            match opened {
                Some(bytes) => {
                    for byte in bytes {
                        // A line end would end the value.
                        match byte {
                            b'\n' => out.extend_from_slice(b"\\n"),
                            byte => out.push(byte),
                        }
                    }
                }
                None => out.extend_from_slice(value.as_bytes()),
            }
        }
        out.push(b'\n');
    }
    let (_, values) = opening.finish().map_err(first)?;
    Ok((out, values))
}
