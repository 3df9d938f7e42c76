//! What is followed in a repository: a branch, the newest fitting tag, or one commit.

use std::fmt;

use semver::{Version, VersionReq};

/// What is followed in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// The tip of a branch, without `refs/heads/`.
    Branch(String),
    /// The highest version among the tags that fits a range (`1.x`, `>=1.2.0 <2`, `^1 || ^3`), or a tag
    /// by its exact name. Tags may begin with `v`; pre-releases count only where the range names one.
    Tag(String),
    /// One commit, by its full id.
    Commit(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tag(range) => write!(f, "tag {range}"),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

impl Reference {
    /// Says what is wrong with it, if it can be seen without the repository.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Branch(name) if !git2::Reference::is_valid_name(&format!("refs/heads/{name}")) => {
                Err("that is no valid name of a branch".to_owned())
            }
            Self::Tag(range) if range.trim().is_empty() || range.len() > 256 => {
                Err("a range of versions such as `1.x`, or the name of a tag, is needed".to_owned())
            }
            Self::Commit(id) if id.len() != 40 || git2::Oid::from_str(id).is_err() => {
                Err("a commit is given by its full id of 40 hexadecimal digits".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The tag that a range, or an exact name, chooses among `tags`.
pub(crate) fn choose_tag<'a>(
    range: &str,
    tags: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let range = range.trim();
    if let Some(exact) = tags.clone().into_iter().find(|tag| *tag == range) {
        return Some(exact);
    }
    let alternatives: Vec<VersionReq> = range.split("||").filter_map(requirement).collect();
    tags.into_iter()
        .filter_map(|tag| Some((version(tag)?, tag)))
        .filter(|(version, _)| alternatives.iter().any(|range| range.matches(version)))
        .max()
        .map(|(_, tag)| tag)
}

fn version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

/// Reads one range. Blanks between comparisons mean "and", as commas do.
fn requirement(text: &str) -> Option<VersionReq> {
    let mut joined = String::with_capacity(text.len());
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        // An operator may stand apart from its version: `>= 1.2`.
        let continues = joined.ends_with(['<', '>', '=', '~', '^']);
        if !joined.is_empty() && !continues {
            joined.push(',');
        }
        joined.push_str(word);
    }
    VersionReq::parse(&joined).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_fitting_tag_is_chosen() {
        let tags = ["v1.2.0", "v1.10.0", "1.3.0", "v2.0.0", "v2.1.0-rc.1", "nightly", "v3"];
        for (range, expected) in [
            ("1.x", Some("v1.10.0")),
            ("1.2", Some("v1.10.0")),
            ("~1.2", Some("v1.2.0")),
            (">=1.2.0 <1.5", Some("1.3.0")),
            (">= 1.2.0, < 1.5", Some("1.3.0")),
            ("^1 || ^2", Some("v2.0.0")),
            (">=2.1.0-0", Some("v2.1.0-rc.1")),
            ("*", Some("v2.0.0")),
            ("nightly", Some("nightly")),
            ("v1.2.0", Some("v1.2.0")),
            ("5", None),
            ("weekly", None),
            ("", None),
        ] {
            assert_eq!(choose_tag(range, tags), expected, "{range}");
        }
    }

    #[test]
    fn senseless_references_are_refused_without_asking_the_server() {
        let good = "0123456789012345678901234567890123456789";
        assert!(Reference::Branch("feature/x".into()).check().is_ok());
        assert!(Reference::Commit(good.into()).check().is_ok());
        for bad in [
            Reference::Branch(String::new()),
            Reference::Branch("a..b".into()),
            Reference::Branch("x*".into()),
            Reference::Tag(" ".into()),
            Reference::Commit("main".into()),
            Reference::Commit(good[..12].into()),
        ] {
            assert!(bad.check().is_err(), "{bad}");
        }
    }
}
