//! Administrators' tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::keys::Key;

/// Issuer and audience of every token: the shop gives them to itself.
const SHOP: &str = "dhakacart";
/// What a token must allow.
const ROLE: &str = "admin";
/// Clocks may differ by this many seconds.
const LEEWAY: i64 = 60;
/// Longest token that is looked at, in bytes.
const LONGEST: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    // RFC 7515 4.1.11: what is critical and not understood makes a token invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    role: String,
    iat: i64,
    exp: i64,
}

/// Somebody who may change the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Name, for the audit log.
    pub name: String,
}

/// Why a token is not accepted. Which check failed goes to the log, not to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this kind.
    #[error("it is not a JSON Web Token with HS256")]
    Malformed,
    /// No key made this signature.
    #[error("no current key signed it")]
    Signature,
    /// Outside its time.
    #[error("it has expired or is not valid yet")]
    Time,
    /// For somebody or something else.
    #[error("it was not made for administrators of this shop")]
    Purpose,
}

/// Makes a token for `name` that is valid for `seconds` from `now`.
pub fn sign(key: &Key, name: &str, now: Timestamp, seconds: i64) -> String {
    let header = Header {
        alg: "HS256".to_owned(),
        typ: Some("JWT".to_owned()),
        kid: Some(key.name.clone()),
        crit: None,
    };
    let iat = now.as_second();
    let (iss, aud, role) = (SHOP.to_owned(), SHOP.to_owned(), ROLE.to_owned());
    let claims = Claims { iss, aud, sub: name.to_owned(), role, iat, exp: iat.saturating_add(seconds) };
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = hmac::sign(&key.secret, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn part(value: &impl Serialize) -> String {
    // Structs of strings and numbers always serialise.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// Checks a token against all keys.
///
/// # Errors
/// See [`TokenError`].
pub fn verify(keys: &[Key], token: &str, now: Timestamp) -> Result<Admin, TokenError> {
    let parts: Vec<&str> = token.split('.').collect();
    let &[header, claims, signature] = parts.as_slice() else { return Err(TokenError::Malformed) };
    if token.len() > LONGEST {
        return Err(TokenError::Malformed);
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
    let head: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
    // Fixed: a token must not choose how it is verified.
    if head.alg != "HS256" || head.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let signature = decode(signature)?;
    let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
    let fits = |key: &&Key| head.kid.as_ref().is_none_or(|kid| *kid == key.name);
    if !keys.iter().filter(fits).any(|key| hmac::verify(&key.secret, signed, &signature).is_ok()) {
        return Err(TokenError::Signature);
    }
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
    let now = now.as_second();
    if claims.exp.saturating_add(LEEWAY) <= now || claims.iat > now.saturating_add(LEEWAY) {
        return Err(TokenError::Time);
    }
    let named = (1..=128).contains(&claims.sub.len()) && !claims.sub.chars().any(char::is_control);
    if claims.iss != SHOP || claims.aud != SHOP || claims.role != ROLE || !named {
        return Err(TokenError::Purpose);
    }
    Ok(Admin { name: claims.sub })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, byte: u8) -> Key {
        Key { name: name.to_owned(), secret: hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]) }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn token(key: &Key, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&key.secret, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_is_accepted_while_its_key_and_its_time_last() {
        let (old, new) = (key("old", 1), key("new", 2));
        let token = sign(&old, "farida", now(), 600);
        let check = |keys: &[Key], seconds| {
            verify(keys, &token, Timestamp::from_second(now().as_second() + seconds).unwrap())
        };
        let farida = Ok(Admin { name: "farida".to_owned() });
        assert_eq!(check(std::slice::from_ref(&old), 0), farida);
        assert_eq!(check(&[new.clone(), old.clone()], 600), farida);
        assert_eq!(check(&[new], 0), Err(TokenError::Signature));
        assert_eq!(check(std::slice::from_ref(&old), 700), Err(TokenError::Time));
        assert_eq!(check(&[old], -700), Err(TokenError::Time));
    }

    #[test]
    fn forgeries_are_refused() {
        let key = key("k", 1);
        let good = r#"{"iss":"dhakacart","aud":"dhakacart","sub":"x","role":"admin","iat":1800000000,"exp":1800000600}"#;
        let hs256 = r#"{"alg":"HS256"}"#;
        assert!(verify(std::slice::from_ref(&key), &token(&key, hs256, good), now()).is_ok());
        let customer = good.replace("admin", "customer");
        let elsewhere = good.replace(r#""aud":"dhakacart""#, r#""aud":"other""#);
        let endless = good.replace(r#","exp":1800000600"#, "");
        let nobody = good.replace(r#""sub":"x""#, r#""sub":"""#);
        for (header, claims, error) in [
            (r#"{"alg":"none"}"#, good, TokenError::Malformed),
            (r#"{"alg":"HS512"}"#, good, TokenError::Malformed),
            (r#"{"alg":"HS256","crit":["x"]}"#, good, TokenError::Malformed),
            (r#"{"alg":"HS256","kid":"other"}"#, good, TokenError::Signature),
            (hs256, &customer, TokenError::Purpose),
            (hs256, &elsewhere, TokenError::Purpose),
            (hs256, &endless, TokenError::Malformed),
            (hs256, &nobody, TokenError::Purpose),
        ] {
            let token = token(&key, header, claims);
            assert_eq!(verify(std::slice::from_ref(&key), &token, now()), Err(error), "{header} {claims}");
        }
        let mut changed = token(&key, hs256, good);
        changed.pop();
        assert!(verify(std::slice::from_ref(&key), &changed, now()).is_err());
        for nonsense in ["", ".", "..", "a.b", "a.b.c.d", &"x".repeat(9000)] {
            assert_eq!(verify(std::slice::from_ref(&key), nonsense, now()), Err(TokenError::Malformed));
        }
    }
}
