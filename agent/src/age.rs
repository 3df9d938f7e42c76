//! Keys of [age](https://age-encryption.org): where they come from, and opening what was sealed for them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use ::age::Decryptor;
use ::age::armor::ArmoredReader;
use ::age::x25519;
use engine::sops::KeyRing;

/// What the names of a Secret's entries with keys end with, as Flux has it, and the name that sops gives its file.
const ENTRIES: [&str; 2] = [".agekey", "keys.txt"];
/// What an armored file begins with.
const ARMOR: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
/// The largest sealed file that is opened, in bytes: it holds a key.
const MAX_BYTES: usize = 64 * 1024;
/// How many lines a file's header may have: sops seals a key for one recipient, in four lines. The crate goes through
/// the header once for each of them.
const MAX_HEADER_LINES: usize = 128;
/// How many keys there may be: each is tried on each file.
const MAX_KEYS: usize = 64;

/// Why keys cannot be used. No message shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A Secret without keys.
    #[error(
        "it has no entry whose name ends with .agekey; put the key that age-keygen wrote into one, such as age.agekey"
    )]
    NoEntry,
    /// A text without keys.
    #[error("{0} has no line that begins with AGE-SECRET-KEY-1; put the key there that age-keygen wrote")]
    NoKey(String),
    /// A line that is no key.
    #[error("{place}, line {line}: {problem}")]
    Line {
        /// The entry, file or variable.
        place: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Too many keys.
    #[error("there are more than {MAX_KEYS} keys; keep those that files are encrypted for")]
    TooMany,
    /// A file that cannot be read.
    #[error("{place} cannot be read: {problem}")]
    Unreadable {
        /// The file.
        place: String,
        /// Why.
        problem: String,
    },
}

struct Identity {
    private: x25519::Identity,
    /// The public key, as age writes it.
    public: String,
}

/// Private keys of age.
///
/// ```
/// let keys = agent::age::AgeKeys::default();
/// assert_eq!(engine::sops::KeyRing::open(&keys, "nonsense"), None);
/// ```
#[derive(Default)]
pub struct AgeKeys {
    identities: Vec<Identity>,
    id: String,
}

impl fmt::Debug for AgeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgeKeys").field(&self.id).finish()
    }
}

impl AgeKeys {
    /// The keys in the data of a Secret: all entries whose names end with `.agekey`, as Flux has it, and
    /// `keys.txt`.
    ///
    /// # Errors
    /// [`KeysError`] names the entry and line of what is no key.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, KeysError> {
        let mut keys = Self::default();
        let mut found = false;
        for (name, value) in data.iter().filter(|(name, _)| ENTRIES.iter().any(|end| name.ends_with(end))) {
            found = true;
            keys.add(&String::from_utf8_lossy(value), name)?;
        }
        if found { Ok(keys) } else { Err(KeysError::NoEntry) }
    }

    /// The keys that sops would take on this machine: from `SOPS_AGE_KEY`, the file `SOPS_AGE_KEY_FILE`, and
    /// `sops/age/keys.txt` in the user's folder for settings. None where there are none.
    ///
    /// # Errors
    /// [`KeysError`] names the file and line of what is no key.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, KeysError> {
        let mut keys = Self::default();
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        if let Some(text) = set("SOPS_AGE_KEY") {
            keys.add(&text, "SOPS_AGE_KEY")?;
        }
        if let Some(file) = set("SOPS_AGE_KEY_FILE") {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| KeysError::Unreadable { place: file.clone(), problem: error.to_string() })?;
            keys.add(&text, &file)?;
        }
        let settings = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
        if let Some(file) = settings.map(|folder| folder.join("sops/age/keys.txt"))
            && let Ok(text) = std::fs::read_to_string(&file)
        {
            keys.add(&text, &file.display().to_string())?;
        }
        Ok(Some(keys).filter(|keys| !keys.identities.is_empty()))
    }

    /// Adds the keys of a text: one a line; empty lines and comments are passed over.
    fn add(&mut self, text: &str, place: &str) -> Result<(), KeysError> {
        let before = self.identities.len();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| KeysError::Line { place: place.to_owned(), line: at + 1, problem };
            let problem = if line.starts_with("AGE-SECRET-KEY-PQ-") {
                "keys that begin with AGE-SECRET-KEY-PQ- are not supported; use one that age-keygen makes without -pq"
            } else if line.starts_with("AGE-PLUGIN-") {
                "keys of plugins are not supported; use one that age-keygen makes"
            } else if line.starts_with("AGE-SECRET-KEY-1") {
                "this key is damaged; copy the whole line that age-keygen wrote"
            } else {
                "this is no key of age; a key begins with AGE-SECRET-KEY-1"
            };
            let private: x25519::Identity = line.parse().map_err(|_| wrong(problem))?;
            let public = private.to_public().to_string();
            if self.identities.iter().all(|known| known.public != public) {
                self.identities.push(Identity { private, public });
            }
        }
        if self.identities.len() == before && !text.contains("AGE-SECRET-KEY-1") {
            return Err(KeysError::NoKey(place.to_owned()));
        }
        if self.identities.len() > MAX_KEYS {
            return Err(KeysError::TooMany);
        }
        let mut names = self.recipients();
        names.sort();
        self.id = names.join(" ");
        Ok(())
    }
}

impl KeyRing for AgeKeys {
    /// The public keys: equal ones open the same.
    fn id(&self) -> &str {
        &self.id
    }

    fn recipients(&self) -> Vec<String> {
        self.identities.iter().map(|identity| identity.public.clone()).collect()
    }

    fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let sealed = sealed.trim();
        if sealed.len() > MAX_BYTES || !sealed.starts_with(ARMOR) {
            return None;
        }
        let mut file = Vec::new();
        ArmoredReader::new(sealed.as_bytes()).read_to_end(&mut file).ok()?;
        let mut lines = file.split(|byte| *byte == b'\n').take(MAX_HEADER_LINES);
        if !lines.any(|line| line.starts_with(b"---")) {
            return None;
        }
        let decryptor = Decryptor::new_buffered(file.as_slice()).ok()?;
        let mine = self.identities.iter().map(|identity| &identity.private as &dyn ::age::Identity);
        let mut plain = Vec::new();
        decryptor.decrypt(mine).ok()?.read_to_end(&mut plain).ok()?;
        Some(plain)
    }
}

#[cfg(test)]
mod tests;
