//! Which local program stands for which image.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A program in the place of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The executable: what the image's ENTRYPOINT is in a container.
    pub path: PathBuf,
    /// Its arguments: what the image's CMD is. A container's `args` replace them, its `command` replaces both.
    pub args: Vec<String>,
    /// Environment that the image would bring along. `$(POD_IP)`, `$(POD_NAME)` and `$(POD_NAMESPACE)` are replaced.
    pub env: BTreeMap<String, String>,
}

impl Program {
    /// A program without arguments and environment.
    pub fn new(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into(), ..Program::default() }
    }

    /// With this environment variable.
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Program {
        self.env.insert(name.into(), value.into());
        self
    }

    /// With these arguments.
    pub fn with_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Program {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }
}

/// Image names to programs. An entry with a tag or digest stands for that one only, an entry without stands for
/// all; `*` as the tag of no entry is needed. The exact entry wins.
#[derive(Clone, Debug, Default)]
pub struct ImageMap {
    programs: BTreeMap<String, Program>,
}

impl ImageMap {
    /// Adds or replaces an entry, for `name`, `name:tag` or `name@digest`.
    pub fn insert(&mut self, image: impl Into<String>, program: Program) {
        self.programs.insert(image.into(), program);
    }

    /// Adds an entry and returns the map.
    pub fn with(mut self, image: impl Into<String>, program: Program) -> ImageMap {
        self.insert(image, program);
        self
    }

    /// The program for an image reference, if there is one.
    pub fn find(&self, image: &str) -> Option<&Program> {
        let undigested = image.split_once('@').map_or(image, |(name, _)| name);
        [image, undigested, name(image)].into_iter().find_map(|key| self.programs.get(key))
    }
}

/// The name in an image reference, without tag and digest. A colon before a slash belongs to a registry's port.
fn name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_entry_wins_over_the_name() {
        let map = ImageMap::default()
            .with("registry:5000/shop", Program::new("/any"))
            .with("registry:5000/shop:v2", Program::new("/two"));
        for (image, path) in [
            ("registry:5000/shop", Some("/any")),
            ("registry:5000/shop:v1", Some("/any")),
            ("registry:5000/shop:v2", Some("/two")),
            ("registry:5000/shop:v2@sha256:ab", Some("/two")),
            ("registry:5000/shop@sha256:ab", Some("/any")),
            ("registry:5000/other", None),
            ("shop", None),
        ] {
            let found = map.find(image).map(|program| program.path.to_str().unwrap());
            assert_eq!(found, path, "{image}");
        }
    }
}
