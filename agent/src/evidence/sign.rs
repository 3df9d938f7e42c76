//! SSH signatures of commits, as `git commit -S` with `gpg.format=ssh` makes them.
//!
//! The format is SSHSIG with the namespace `git` (OpenSSH's PROTOCOL.sshsig); the signature itself is
//! made by ring, the one crypto provider of the process.

use ring::signature::Ed25519KeyPair;
use ssh_key::private::KeypairData;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, Signature, SshSig};

use super::EvidenceError;
use crate::secret::Secret;

/// What commits are signed with.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    public: KeyData,
}

impl SigningKey {
    /// Reads a private key as `ssh-keygen -t ed25519 -N ""` writes it.
    pub(super) fn parse(text: &Secret<String>) -> Result<Self, EvidenceError> {
        let invalid = |detail: &str| EvidenceError::InvalidKey { detail: detail.to_owned() };
        // The errors of the parser are left out: they may quote the key.
        let key = PrivateKey::from_openssh(text.expose().trim())
            .map_err(|_| invalid("it is not in the OpenSSH format (-----BEGIN OPENSSH PRIVATE KEY-----)"))?;
        if key.is_encrypted() {
            return Err(invalid("it has a passphrase, and nobody is there to type it"));
        }
        let KeypairData::Ed25519(pair) = key.key_data() else {
            return Err(invalid("it is not of the type ed25519"));
        };
        let pair = Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref())
            .map_err(|_| invalid("its two halves do not belong together"))?;
        Ok(Self { pair, public: key.public_key().key_data().clone() })
    }

    /// The signature of a commit's content, as it stands in the commit's header `gpgsig`.
    pub(super) fn sign(&self, content: &[u8]) -> Result<String, EvidenceError> {
        let failed = |error: ssh_key::Error| EvidenceError::InvalidKey { detail: error.to_string() };
        let message = SshSig::signed_data("git", HashAlg::Sha512, content).map_err(failed)?;
        let signature =
            Signature::new(Algorithm::Ed25519, self.pair.sign(&message).as_ref()).map_err(failed)?;
        let signature =
            SshSig::new(self.public.clone(), "git", HashAlg::Sha512, signature).map_err(failed)?;
        Ok(signature.to_pem(LineEnding::LF).map_err(failed)?.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_sign_say_why_and_stay_secret() {
        for text in
            ["hunter2", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----"]
        {
            let error = SigningKey::parse(&Secret::new(text.into())).err().unwrap().to_string();
            assert!(error.contains("ssh-keygen -t ed25519") && !error.contains("hunter2"), "{error}");
        }
    }
}
