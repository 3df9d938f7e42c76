//! Webhooks of forges: whether they are genuine, and what they are about.
//!
//! A replayed webhook does no harm: all that it can do is to have the agent look at Git.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use serde_json::Value;
use warp::http::HeaderMap;

use crate::secret::Secret;

/// Who sends a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// GitHub: `X-Hub-Signature-256: sha256=…`.
    GitHub,
    /// GitLab: `X-Gitlab-Token`, the secret itself.
    GitLab,
    /// Gitea and Forgejo: `X-Gitea-Signature: …`.
    Gitea,
    /// Anybody, a CI pipeline for example: `X-Signature: sha256=…` over the body, as Flux's generic-hmac.
    Generic,
}

impl Provider {
    /// The last part of the webhook's path.
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Generic => "generic",
        }
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        [Self::GitHub, Self::GitLab, Self::Gitea, Self::Generic]
            .into_iter()
            .find(|provider| provider.name() == text)
            .ok_or(UnknownProvider)
    }
}

/// No such path below `/hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("webhooks come from github, gitlab, gitea or generic")]
pub struct UnknownProvider;

/// Something was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookEvent {
    /// The repository's addresses, in all spellings that the forge sent. Empty: any repository.
    pub repositories: Vec<String>,
    /// The branch or tag, without `refs/heads/`, if the forge said which.
    pub branch: Option<String>,
}

/// A webhook that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether the sender knows the secret. Looks at the body's bytes only, before anything parses them, and
/// takes the same time wherever the first difference is.
pub(super) fn genuine(provider: Provider, secret: &Secret<String>, headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    if secret.expose().is_empty() {
        return false;
    }
    let signature = match provider {
        Provider::GitLab => {
            // GitLab sends the secret itself. Comparing two digests under a key takes constant time.
            let expected = hmac::sign(&key, secret.expose().as_bytes());
            return hmac::verify(&key, header("x-gitlab-token").as_bytes(), expected.as_ref()).is_ok();
        }
        Provider::GitHub => header("x-hub-signature-256").strip_prefix("sha256="),
        Provider::Generic => header("x-signature").strip_prefix("sha256="),
        Provider::Gitea => Some(header("x-gitea-signature")),
    };
    signature.and_then(decode).is_some_and(|tag| hmac::verify(&key, body, &tag).is_ok())
}

/// What a genuine webhook is about; `None` for events that concern nobody.
pub(super) fn parse(
    provider: Provider,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<HookEvent>, Malformed> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let concerns = match provider {
        Provider::GitHub => matches!(header("x-github-event"), "push" | "create" | "delete"),
        Provider::Gitea => matches!(header("x-gitea-event"), "push" | "create" | "delete"),
        Provider::GitLab => matches!(header("x-gitlab-event"), "Push Hook" | "Tag Push Hook"),
        Provider::Generic => true,
    };
    if !concerns {
        return Ok(None);
    }
    if provider == Provider::Generic && body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(HookEvent { repositories: Vec::new(), branch: None }));
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| {
        Malformed("the body is no JSON; choose application/json as the webhook's content type")
    })?;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let places: &[&str] = match provider {
        Provider::GitHub | Provider::Gitea => {
            &["/repository/clone_url", "/repository/ssh_url", "/repository/git_url", "/repository/html_url"]
        }
        Provider::GitLab => &["/project/git_http_url", "/project/git_ssh_url", "/project/web_url"],
        Provider::Generic => &["/url", "/repository"],
    };
    let repositories: Vec<String> = places.iter().filter_map(|place| text(place)).collect();
    if repositories.is_empty() && provider != Provider::Generic {
        return Err(Malformed("the body names no repository"));
    }
    let branch = text("/ref").or_else(|| text("/branch"));
    let branch = branch.map(|name| {
        let short = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"));
        short.map_or(name.clone(), ToOwned::to_owned)
    });
    Ok(Some(HookEvent { repositories, branch }))
}

fn decode(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.trim().as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect()
}
