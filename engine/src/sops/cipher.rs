//! One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

use aes_gcm::aead::generic_array::typenum::{U12, U32};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

/// The key that a file's values are encrypted with.
pub(super) struct DataKey([u8; 32]);

impl DataKey {
    /// A key of 32 bytes; none for other lengths.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Decrypts a value that stands at a path. None if it is not one that was encrypted with this key
    /// there; an empty text is encrypted as itself.
    pub fn decrypt(&self, text: &str, additional: &str) -> Option<Plain> {
        if text.is_empty() {
            return Some(Plain { bytes: Vec::new(), kind: Kind::Text });
        }
        let inner = text.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
        let (data, rest) = inner.split_once(",iv:")?;
        let (iv, rest) = rest.split_once(",tag:")?;
        let (tag, kind) = rest.split_once(",type:")?;
        let kind = Kind::read(kind)?;
        let decode = |text: &str| STANDARD.decode(text).ok();
        let (mut sealed, iv, tag) = (decode(data)?, decode(iv)?, decode(tag)?);
        if tag.len() != 16 {
            return None;
        }
        sealed.extend_from_slice(&tag);
        let payload = Payload { msg: &sealed, aad: additional.as_bytes() };
        let key = Key::<Aes256>::from(self.0);
        // Sops writes 32 bytes; older programs that read and write its format wrote the usual 12.
        let bytes = match <[u8; 32]>::try_from(iv.as_slice()) {
            Ok(iv) => AesGcm::<Aes256, U32>::new(&key).decrypt(&iv.into(), payload),
            Err(_) => {
                let iv = <[u8; 12]>::try_from(iv.as_slice()).ok()?;
                AesGcm::<Aes256, U12>::new(&key).decrypt(&iv.into(), payload)
            }
        };
        Some(Plain { bytes: bytes.ok()?, kind })
    }
}

/// Whether a text has the form of an encrypted value.
pub(super) fn is_encrypted(text: &str) -> bool {
    text.starts_with("ENC[AES256_GCM,data:") && text.ends_with(']')
}

/// The type of a value, which sops notes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Time,
    Bytes,
    Comment,
}

impl Kind {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "str" => Self::Text,
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "time" => Self::Time,
            "bytes" => Self::Bytes,
            "comment" => Self::Comment,
            _ => return None,
        })
    }
}

/// A decrypted value.
pub(super) struct Plain {
    pub bytes: Vec<u8>,
    pub kind: Kind,
}

impl Plain {
    /// The value as a YAML file would say it; none where it is no text or not what its type says.
    pub fn value(&self) -> Option<Value> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        Some(match self.kind {
            Kind::Text | Kind::Time | Kind::Bytes | Kind::Comment => Value::String(text.to_owned()),
            Kind::Int => Value::Number(text.parse::<i64>().ok()?.into()),
            Kind::Float => {
                let number: f64 = text.parse().ok()?;
                // What YAML writes for an integral float reads back as an integer.
                let digits = number.to_string();
                if let Ok(integer) = digits.parse::<i64>() {
                    Value::Number(integer.into())
                } else if let Ok(integer) = digits.parse::<u64>() {
                    Value::Number(integer.into())
                } else {
                    Value::Number(Number::from_f64(number)?)
                }
            }
            Kind::Bool => match text {
                "True" | "true" | "TRUE" | "t" | "T" | "1" => Value::Bool(true),
                "False" | "false" | "FALSE" | "f" | "F" | "0" => Value::Bool(false),
                _ => return None,
            },
        })
    }
}

/// What a value adds to the MAC; nothing for null.
pub(super) fn mac_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Bool(true) => b"True".to_vec(),
        Value::Bool(false) => b"False".to_vec(),
        // Without an exponent, as few digits as tell the number apart.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map(|number| number.to_string().into_bytes()).unwrap_or_default()
        }
        Value::Number(number) => number.to_string().into_bytes(),
        _ => Vec::new(),
    }
}
