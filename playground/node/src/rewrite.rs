//! Mount paths without mounts.
//!
//! A process on the host sees the host's files, so a volume mounted at `/data` is a folder somewhere else. The rule:
//! wherever a container's `mountPath` appears as a whole path in its environment values, command, arguments or
//! working directory, it is replaced by that folder. `/data/shop.db` and `sqlite:///data/shop.db` are, `/database`
//! and `/var/data` are not. A program that has a mount path compiled in does not find it.

use std::path::PathBuf;

/// The folders that stand for a container's mount paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts {
    /// Mount path without a trailing slash, and the local folder; longest path first.
    folders: Vec<(String, PathBuf)>,
}

impl Mounts {
    pub fn new(folders: impl IntoIterator<Item = (String, PathBuf)>) -> Mounts {
        let mut folders: Vec<(String, PathBuf)> = folders
            .into_iter()
            .map(|(path, folder)| (path.trim_end_matches('/').to_owned(), folder))
            .filter(|(path, _)| path.starts_with('/'))
            .collect();
        folders.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Mounts { folders }
    }

    /// Replaces every whole mount path in the text.
    pub fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        'scan: while let Some(slash) = rest.find('/') {
            out.push_str(&rest[..slash]);
            let tail = &rest[slash..];
            if starts_path(&out) {
                for (path, folder) in &self.folders {
                    if let Some(after) = tail.strip_prefix(path.as_str())
                        && ends_path(after)
                    {
                        out.push_str(&folder.to_string_lossy());
                        rest = after;
                        continue 'scan;
                    }
                }
            }
            out.push('/');
            rest = &tail[1..];
        }
        out.push_str(rest);
        out
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '~')
}

fn starts_path(before: &str) -> bool {
    // The slash after "sqlite://" begins a path, that of "a//b" does not.
    before.ends_with("://") || before.chars().next_back().is_none_or(|last| !is_name(last) && last != '/')
}

fn ends_path(after: &str) -> bool {
    after.chars().next().is_none_or(|next| !is_name(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_are_rewritten_and_others_are_not() {
        let mounts = Mounts::new([
            ("/data".to_owned(), PathBuf::from("/n/v1")),
            ("/data/cache/".to_owned(), PathBuf::from("/n/v2")),
            ("/".to_owned(), PathBuf::from("/never")),
        ]);
        for (text, expected) in [
            ("/data", "/n/v1"),
            ("/data/", "/n/v1/"),
            ("/data/shop.db", "/n/v1/shop.db"),
            ("/data/cache/x", "/n/v2/x"),
            ("sqlite:///data/shop.db", "sqlite:///n/v1/shop.db"),
            ("sqlite:/data/shop.db?mode=rwc", "sqlite:/n/v1/shop.db?mode=rwc"),
            ("--dir=/data,/data/cache", "--dir=/n/v1,/n/v2"),
            ("/database", "/database"),
            ("/var/data", "/var/data"),
            ("/data-old", "/data-old"),
            ("http://host/data", "http://host/data"),
            ("ab//data", "ab//data"),
            ("", ""),
        ] {
            assert_eq!(mounts.rewrite(text), expected, "{text}");
        }
    }
}
