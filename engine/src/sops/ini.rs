//! Encrypted INI files.

use super::error::SopsProblem;
use super::metadata::Metadata;
use super::tree::Opening;
use super::{KeyRing, cipher, flat};
use crate::object::Confidential;

/// The section that keys before the first one are in.
const DEFAULT: &str = "DEFAULT";
/// The section with sops's own part.
const METADATA: &str = "sops";

/// How many sections a comment is tried to be opened for.
const MAX_SECTIONS: usize = 64;

/// A line of a file.
enum Line<'a> {
    Section(&'a str),
    /// A key, what stands between it and its value, and the value.
    Pair(&'a str, &'a str, &'a str),
    Other,
}

fn read(line: &str) -> Line<'_> {
    let trimmed = line.trim();
    if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Line::Section(name.trim());
    }
    if trimmed.is_empty() || trimmed.starts_with([';', '#']) {
        return Line::Other;
    }
    let Some(at) = line.find(['=', ':']) else { return Line::Other };
    let (key, rest) = line.split_at(at);
    let value = rest[1..].trim_start();
    Line::Pair(key.trim(), &line[..line.len() - value.len()], value.trim_end())
}

/// A value without the quotes that were needed to write it.
fn unquoted(value: &str) -> &str {
    ["\"\"\"", "`", "\"", "'"]
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// A value with the quotes that it needs.
fn quoted(value: &str) -> String {
    if value.contains(['\n', '`']) {
        format!("\"\"\"{value}\"\"\"")
    } else if value.contains(['#', ';']) || value.trim() != value {
        format!("`{value}`")
    } else {
        value.to_owned()
    }
}

/// Whether a text is an encrypted INI file.
pub(super) fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[sops]")
        && text
            .lines()
            .any(|line| matches!(read(line), Line::Pair("mac", _, value) if value.starts_with("ENC[")))
}

/// The file as it was before encryption.
pub(super) fn decrypt(
    text: &str,
    keys: Option<&dyn KeyRing>,
) -> Result<(Vec<u8>, Confidential), (usize, SopsProblem)> {
    let mut section = DEFAULT;
    let mut pairs = Vec::new();
    for line in text.lines() {
        match read(line) {
            Line::Section(name) => section = name,
            Line::Pair(key, _, value) if section == METADATA => pairs.push((key, unquoted(value))),
            _ => {}
        }
    }
    let sections: Vec<Vec<String>> = std::iter::once(DEFAULT)
        .chain(text.lines().filter_map(|line| match read(line) {
            Line::Section(name) if name != METADATA => Some(name),
            _ => None,
        }))
        .take(MAX_SECTIONS)
        .map(|name| vec![name.to_owned()])
        .collect();
    let first = |problem| (1, problem);
    let metadata = Metadata::read(&flat::unflatten(pairs.into_iter())).map_err(first)?;
    let mut opening = Opening::new(metadata, keys).map_err(first)?;
    let mut out = String::with_capacity(text.len());
    section = DEFAULT;
    for (at, line) in text.lines().enumerate() {
        match read(line) {
            Line::Section(name) => section = name,
            _ if section == METADATA => continue,
            Line::Pair(key, before, value) => {
                let opened =
                    opening.flat(&[section, key], unquoted(value)).map_err(|problem| (at + 1, problem))?;
                if let Some(bytes) = opened {
                    let plain = String::from_utf8(bytes)
                        .map_err(|_| (at + 1, SopsProblem::NotText { path: format!("{section}.{key}") }))?;
                    out.push_str(before);
                    out.push_str(&quoted(&plain));
                    out.push('\n');
                    continue;
                }
            }
            Line::Other => {
                let trimmed = line.trim();
                let comment = trimmed.trim_start_matches([';', '#', ' ']);
                // A comment before a section belongs to that one.
                let opened = Some(comment).filter(|text| cipher::is_encrypted(text));
                if let Some(plain) = opened.and_then(|comment| opening.comment(comment, &sections)) {
                    out.push_str(&format!("; {plain}\n"));
                    continue;
                }
            }
        }
        if section != METADATA {
            out.push_str(line);
            out.push('\n');
        }
    }
    let (_, values) = opening.finish().map_err(first)?;
    while out.ends_with("\n\n") {
        out.pop();
    }
    Ok((out.into_bytes(), values))
}
