//! The format of sealed files: `age-encryption.org/v1`, armored.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};

/// The largest file that is opened, in bytes: it holds a key.
const MAX_BYTES: usize = 64 * 1024;
const VERSION: &str = "age-encryption.org/v1";
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// How many recipients one file may be sealed for; sops seals one for each.
const MAX_STANZAS: usize = 32;
/// How many characters a full line has.
const COLUMNS: usize = 64;
/// How many bytes a full chunk of the content has, beside its tag.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// What is sealed for one X25519 recipient.
pub(super) struct Stanza {
    /// The public half of the key that was made for this.
    pub share: [u8; 32],
    /// The file's key, sealed.
    pub body: [u8; 32],
}

/// A sealed file, understood.
pub(super) struct Sealed {
    pub stanzas: Vec<Stanza>,
    /// What the MAC covers.
    header: Vec<u8>,
    mac: Vec<u8>,
    nonce: [u8; 16],
    content: Vec<u8>,
}

/// Derives a key of 32 bytes.
pub(super) fn derive(secret: &[u8], salt: &[u8], info: &str) -> Option<[u8; 32]> {
    let info = [info.as_bytes()];
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let mut derived = [0; 32];
    key.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut derived).ok()?;
    Some(derived)
}

/// Opens what was sealed with a key and a nonce.
pub(super) fn unseal(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    let mut bytes = sealed.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

/// Takes the armor off: lines of base64 between two marks.
fn unarmored(text: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let mut lines = text.trim().lines().map(str::trim_end);
    if lines.next()? != BEGIN {
        return None;
    }
    let mut encoded = String::with_capacity(text.len());
    let mut ended = false;
    for line in lines {
        if ended || line.len() > COLUMNS {
            return None;
        }
        if line == END {
            ended = true;
        } else {
            encoded.push_str(line);
        }
    }
    STANDARD.decode(encoded).ok().filter(|_| ended)
}

/// The next line of a header, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

impl Sealed {
    /// Reads an armored file; none where it is no such file, or damaged.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = unarmored(text)?;
        let (version, mut rest) = line(&bytes)?;
        if version != VERSION {
            return None;
        }
        let mut stanzas = Vec::new();
        loop {
            let (first, after) = line(rest)?;
            if let Some(mac) = first.strip_prefix("--- ") {
                let covered = bytes.len() - rest.len() + "---".len();
                let (nonce, content) = after.split_first_chunk()?;
                return Some(Self {
                    stanzas,
                    header: bytes[..covered].to_vec(),
                    mac: STANDARD_NO_PAD.decode(mac).ok()?,
                    nonce: *nonce,
                    content: content.to_vec(),
                });
            }
            let arguments: Vec<&str> = first.strip_prefix("-> ")?.split(' ').collect();
            let mut body = String::new();
            rest = after;
            loop {
                let (part, after) = line(rest)?;
                if part.len() > COLUMNS {
                    return None;
                }
                body.push_str(part);
                rest = after;
                // The body ends with its first line that is not full.
                if part.len() < COLUMNS {
                    break;
                }
            }
            if stanzas.len() >= MAX_STANZAS {
                return None;
            }
            if let ["X25519", share] = arguments.as_slice() {
                let bytes = |text: &str| STANDARD_NO_PAD.decode(text).ok()?.try_into().ok();
                stanzas.push(Stanza { share: bytes(share)?, body: bytes(&body)? });
            }
        }
    }

    /// What the file holds, once its key is known.
    pub fn open(&self, file_key: &[u8]) -> Option<Vec<u8>> {
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &derive(file_key, b"", "header")?);
        hmac::verify(&mac_key, &self.header, &self.mac).ok()?;
        let key = derive(file_key, &self.nonce, "payload")?;
        let mut plain = Vec::with_capacity(self.content.len());
        let chunks = self.content.chunks(CHUNK + TAG);
        let last = chunks.len().checked_sub(1)?;
        for (at, chunk) in chunks.enumerate() {
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&u64::try_from(at).ok()?.to_be_bytes());
            nonce[11] = u8::from(at == last);
            let opened = unseal(&key, nonce, chunk)?;
            if opened.is_empty() && at > 0 {
                return None;
            }
            plain.extend_from_slice(&opened);
        }
        Some(plain)
    }
}
