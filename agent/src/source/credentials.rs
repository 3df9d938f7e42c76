//! What a Git server is shown so that it opens.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// Credentials for a Git server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Who is asking, if anybody.
    pub auth: Option<Auth>,
    /// Certificate authorities in PEM that are trusted besides the system's.
    pub ca: Option<Vec<u8>>,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    /// HTTP basic authentication: a user and a password, or anything and a token.
    Basic {
        /// The user; most forges take any word beside a token.
        username: String,
        /// The password or token.
        password: Secret<String>,
    },
    /// A bearer token.
    Bearer(Secret<String>),
}

/// The Secret that holds the credentials has something wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A value is not text.
    #[error("the key `{0}` of the secret is not UTF-8 text; store the token as plain text")]
    NotText(&'static str),
    /// Only SSH keys are there.
    #[error(
        "the secret has only an SSH `identity`; SSH is not supported yet: add `username` and `password`, or `bearerToken`"
    )]
    SshOnly,
    /// Nothing that is known is there.
    #[error("the secret has none of the keys `username` and `password`, `bearerToken`, `ca.crt`")]
    Empty,
}

impl Credentials {
    /// Reads the data of a Secret with the keys that Flux uses: `username` and `password`,
    /// `bearerToken`, and `ca.crt` (or `caFile`).
    ///
    /// # Errors
    /// [`CredentialsError`] if nothing usable is there. No message shows a value.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CredentialsError> {
        let text = |key: &'static str| -> Result<Option<String>, CredentialsError> {
            let Some(bytes) = data.get(key) else { return Ok(None) };
            let text = std::str::from_utf8(bytes).map_err(|_| CredentialsError::NotText(key))?;
            // `echo token | kubectl create secret` leaves a line end that no server accepts.
            Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
        };
        let auth = match (text("bearerToken")?, text("username")?, text("password")?) {
            (Some(token), _, _) => Some(Auth::Bearer(Secret::new(token))),
            (None, username, Some(password)) => Some(Auth::Basic {
                username: username.unwrap_or_else(|| "git".to_owned()),
                password: Secret::new(password),
            }),
            _ => None,
        };
        let ca = data.get("ca.crt").or_else(|| data.get("caFile")).cloned();
        match (auth, ca) {
            (None, None) if data.contains_key("identity") => Err(CredentialsError::SshOnly),
            (None, None) => Err(CredentialsError::Empty),
            (auth, ca) => Ok(Self { auth, ca }),
        }
    }

    /// A word that differs for different credentials and says nothing about them: what the references
    /// of a shared mirror are kept apart by, so that nobody reads with the rights of another.
    pub(crate) fn fingerprint(credentials: Option<&Self>) -> String {
        let Some(credentials) = credentials else { return "anonymous".to_owned() };
        let mut hash = Sha256::new();
        match &credentials.auth {
            None => hash.update(b"none\0"),
            Some(Auth::Basic { username, password }) => {
                for part in ["basic", username, password.expose()] {
                    hash.update(part);
                    hash.update(b"\0");
                }
            }
            Some(Auth::Bearer(token)) => {
                hash.update(b"bearer\0");
                hash.update(token.expose());
            }
        }
        hash.update(credentials.ca.as_deref().unwrap_or_default());
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn secrets_are_read_with_the_keys_of_flux() {
        let basic = Credentials::from_secret(&data(&[("username", "me"), ("password", "t\n")])).unwrap();
        assert_eq!(
            basic.auth,
            Some(Auth::Basic { username: "me".into(), password: Secret::new("t".into()) })
        );
        let bearer = Credentials::from_secret(&data(&[("bearerToken", "t")])).unwrap();
        assert_eq!(bearer.auth, Some(Auth::Bearer(Secret::new("t".into()))));
        let ca = Credentials::from_secret(&data(&[("ca.crt", "pem")])).unwrap();
        assert_eq!((ca.auth, ca.ca), (None, Some(b"pem".to_vec())));
    }

    #[test]
    fn unusable_secrets_say_so() {
        assert_eq!(Credentials::from_secret(&data(&[])), Err(CredentialsError::Empty));
        assert_eq!(Credentials::from_secret(&data(&[("identity", "k")])), Err(CredentialsError::SshOnly));
        let binary = BTreeMap::from([("password".to_owned(), vec![0xff])]);
        assert_eq!(Credentials::from_secret(&binary), Err(CredentialsError::NotText("password")));
    }

    #[test]
    fn credentials_are_told_apart_and_never_printed() {
        let one = Credentials::from_secret(&data(&[("bearerToken", "hunter2")])).unwrap();
        let two = Credentials::from_secret(&data(&[("bearerToken", "hunter3")])).unwrap();
        assert_ne!(Credentials::fingerprint(Some(&one)), Credentials::fingerprint(Some(&two)));
        assert!(!format!("{one:?}").contains("hunter2"));
    }
}
