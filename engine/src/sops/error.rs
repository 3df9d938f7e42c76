//! Why an encrypted file was not read.

/// Why an encrypted file was not read. No message shows a value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct SopsError {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub problem: SopsProblem,
}

/// What is wrong with an encrypted file, or missing to read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SopsProblem {
    /// No keys are at hand.
    #[error(
        "this file is encrypted for {}, and no key is given: name the Secret with the key in spec.decryption, or set SOPS_AGE_KEY_FILE on the command line", .recipients.join(", ")
    )]
    NoKeys {
        /// Whom it is encrypted for.
        recipients: Vec<String>,
    },
    /// None of the keys at hand fits.
    #[error(
        "this file is encrypted for {}, and the keys that are given are {}: add the right key, or encrypt the file for one of these with sops updatekeys", .recipients.join(", "), names(.given)
    )]
    WrongKeys {
        /// Whom it is encrypted for.
        recipients: Vec<String>,
        /// The public keys of the keys at hand.
        given: Vec<String>,
    },
    /// It is encrypted for other kinds of keys only.
    #[error(
        "this file is encrypted for {} only, and only keys of age are known here: add a recipient of age and run sops updatekeys", .kinds.join(", ")
    )]
    OtherKeys {
        /// The kinds, as sops names them.
        kinds: Vec<String>,
    },
    /// It takes keys of several groups, and too few of them are at hand.
    #[error(
        "this file takes keys of {needed} of its {groups} key groups, and the keys that are given open {opened}: add keys of the others"
    )]
    TooFewGroups {
        /// How many groups are needed.
        needed: usize,
        /// How many there are.
        groups: usize,
        /// How many could be opened.
        opened: usize,
    },
    /// Sops's own part of the file is damaged.
    #[error(
        "the sops metadata of this file is damaged ({0}); restore the file from Git, or encrypt it again"
    )]
    Metadata(String),
    /// A value is not what sops wrote there.
    #[error(
        "the value of {path} is not one that sops wrote at this place; edit encrypted files with sops, or encrypt this one again"
    )]
    Value {
        /// The path of the field.
        path: String,
    },
    /// A value that should be encrypted is not.
    #[error(
        "the value of {path} is not encrypted although the file's rules say so; encrypt the file with sops"
    )]
    Plain {
        /// The path of the field.
        path: String,
    },
    /// The file is not the one that was encrypted.
    #[error(
        "the file was changed after it was encrypted: its MAC does not match; undo the change, or make it with sops"
    )]
    Changed,
    /// A value that is no text where only text can stand.
    #[error("the value of {path} is not UTF-8 text; put binary data into a file of its own")]
    NotText {
        /// The path of the field.
        path: String,
    },
    /// The text cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl SopsError {
    pub(super) fn new(file: &str, line: usize, problem: SopsProblem) -> Self {
        Self { file: file.to_owned(), line, problem }
    }
}

fn names(given: &[String]) -> String {
    if given.is_empty() { "none".to_owned() } else { given.join(", ") }
}
