//! Files that are encrypted with [sops](https://getsops.io): reading them with the keys of age.
//!
//! Sops encrypts the values of a YAML, JSON, dotenv or INI file and leaves its keys readable; any other file
//! becomes the one value of a JSON file. Each file has a data key of its own, which is sealed for every
//! recipient. The agent unseals it ([`KeyRing`]); all that happens with it then is decided here, purely:
//! which values are encrypted, what they say, and whether the file is still the one that was encrypted. Its
//! authentication code (MAC) is always checked.
//!
//! The format is that of sops 3, held against files that sops itself wrote (`tests/sops`).

mod cipher;
mod document;
mod dotenv;
mod error;
mod flat;
mod ini;
mod metadata;
mod rewrite;
mod shares;
mod tree;

pub use error::{SopsError, SopsProblem};

pub(crate) use document::{Style, decrypt, is_left_alone, keep_encrypted};

/// Keys that open the data keys of encrypted files.
pub trait KeyRing {
    /// A name for these keys: equal only for equal keys, and nothing that must stay secret.
    fn id(&self) -> &str;

    /// The public keys of these keys, as a message may name them.
    fn recipients(&self) -> Vec<String>;

    /// Opens what `age --armor` sealed, if one of the keys opens it.
    fn open(&self, sealed: &str) -> Option<Vec<u8>>;
}

/// How a file's text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// YAML, one document or several; JSON too.
    Yaml,
    /// A JSON object.
    Json,
    /// Lines of `KEY=value`.
    Dotenv,
    /// Sections of `key = value`.
    Ini,
    /// Anything else, as the field `data` of a JSON object.
    Binary,
}

impl Format {
    /// The format that a file's name, or a key of a Secret, stands for: as sops and Flux take it.
    pub fn of_name(name: &str) -> Self {
        let ends = |end: &str| name.ends_with(end);
        match () {
            () if ends(".yaml") || ends(".yml") => Self::Yaml,
            () if ends(".json") || ends(".dockerconfigjson") => Self::Json,
            () if ends(".env") => Self::Dotenv,
            () if ends(".ini") => Self::Ini,
            () => Self::Binary,
        }
    }
}

/// Whether a text may be an encrypted file: every one has an encrypted MAC.
pub(crate) fn may_be_encrypted(content: &[u8]) -> bool {
    const MARK: &[u8] = b"ENC[AES256_GCM,";
    // Few bytes are an E, and the search for one is fast.
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == b'E') {
        rest = &rest[at..];
        if rest.starts_with(MARK) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
