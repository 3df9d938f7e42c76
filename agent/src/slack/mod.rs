//! Slack: one message per rollout, updated in place, with details in its thread.
//!
//! With a bot token the Web API is used (`chat.postMessage`, `chat.update`); with an incoming webhook,
//! which cannot update, only the begin and the outcome are told. Nothing here retries: what failed stays
//! in the environment's outbox, which is durable, and [`SlackError::retry_after`] says how long to wait.

use std::time::Duration;

use engine::message::{Story, blocks, detail, fallback, webhook_text};
use reqwest::header::RETRY_AFTER;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::secret::Secret;
use crate::source::chain;

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;
/// The longest that a `Retry-After` is believed.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// How Slack is reached.
#[derive(Debug, Clone)]
pub struct SlackConfig {
    /// Where the Web API is; default `https://slack.com`.
    pub base_url: String,
    /// With what right, and where to.
    pub target: SlackTarget,
    /// How long one call may take. Default: 10 s.
    pub timeout: Duration,
}

/// With what right, and where to.
#[derive(Debug, Clone)]
pub enum SlackTarget {
    /// A bot token (`xoxb-…`) with the scope `chat:write`, and a channel by name or id.
    Bot {
        /// The token.
        token: Secret<String>,
        /// `#deploys` or `C0123456789`.
        channel: String,
    },
    /// An incoming webhook, whose URL is the secret.
    Webhook(Secret<String>),
}

impl SlackConfig {
    /// The real Slack.
    pub fn new(target: SlackTarget) -> Self {
        Self { base_url: "https://slack.com".to_owned(), target, timeout: Duration::from_secs(10) }
    }
}

/// A message that is there; stored, so that later news update it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Id of the channel; empty for a webhook.
    pub channel: String,
    /// Timestamp that names the message; empty for a webhook.
    pub ts: String,
}

/// Why a message was not delivered. No text shows a token or a webhook's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlackError {
    /// Slack says no.
    #[error("Slack refuses the message: {word}; {hint}")]
    Refused {
        /// Slack's word for it.
        word: String,
        /// What to do.
        hint: &'static str,
    },
    /// Too many messages.
    #[error("Slack asks to wait {} s", .after.as_secs())]
    RateLimited {
        /// How long.
        after: Duration,
    },
    /// Slack cannot be reached, or is out of order.
    #[error("Slack cannot be reached: {0}")]
    Unavailable(String),
    /// Whatever answered is not Slack.
    #[error("the answer is not one of Slack's: {0}; check the address")]
    NotSlack(String),
    /// The configuration makes no sense.
    #[error("Slack is set up wrongly: {0}")]
    Configuration(String),
}

impl SlackError {
    /// Whether trying again can help without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable(_) | Self::NotSlack(_) => true,
            Self::Refused { word, .. } => {
                matches!(
                    word.as_str(),
                    "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout"
                )
            }
            Self::Configuration(_) => false,
        }
    }

    /// How long Slack wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after } => Some(*after),
            _ => None,
        }
    }

    /// A word for metrics.
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable(_) => "unavailable",
            Self::NotSlack(_) => "not_slack",
            Self::Configuration(_) => "configuration",
        }
    }
}

/// A connection to Slack. Cloning gives another handle to it.
#[derive(Debug, Clone)]
pub struct Slack {
    client: reqwest::Client,
    config: SlackConfig,
    base: Url,
}

impl Slack {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`SlackError::Configuration`] if the address is none, or TLS cannot be set up.
    pub fn new(config: SlackConfig) -> Result<Self, SlackError> {
        crate::tls::install();
        let address = match &config.target {
            SlackTarget::Bot { .. } => config.base_url.as_str(),
            SlackTarget::Webhook(url) => url.expose(),
        };
        let base = Url::parse(address.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
            .ok_or_else(|| SlackError::Configuration("the address is no http(s) URL".to_owned()))?;
        if let SlackTarget::Bot { token, channel } = &config.target {
            // A line end in a token would be refused deep inside of the HTTP client.
            if token.expose().is_empty()
                || token.expose().chars().any(|c| c.is_whitespace() || c.is_control())
            {
                return Err(SlackError::Configuration("the token is empty or has blanks in it".to_owned()));
            }
            if channel.is_empty() {
                return Err(SlackError::Configuration("no channel is given".to_owned()));
            }
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| SlackError::Configuration(chain(&error)))?;
        Ok(Self { client, config, base })
    }

    /// Tells a story: posts its first message, or updates the one that is there and adds the news to its
    /// thread. Returns what to remember for the next time.
    ///
    /// Sending the same story again after an error does no harm beyond a repeated line in the thread.
    ///
    /// # Errors
    /// [`SlackError`]; the message counts as not delivered.
    pub async fn send(&self, story: &Story, posted: Option<&Posted>) -> Result<Posted, SlackError> {
        match (&self.config.target, posted) {
            (SlackTarget::Webhook(_), Some(posted)) if !story.outcome => Ok(posted.clone()),
            (SlackTarget::Webhook(_), _) => {
                self.hook(&json!({"text": webhook_text(story)})).await?;
                Ok(Posted { channel: String::new(), ts: String::new() })
            }
            (SlackTarget::Bot { channel, .. }, posted) => {
                let message = json!({
                    "text": fallback(story),
                    "blocks": blocks(story),
                    "unfurl_links": false,
                    "unfurl_media": false,
                });
                let Some(posted) = posted.filter(|posted| !posted.ts.is_empty()) else {
                    return self.post(channel, message).await;
                };
                match self.update(posted, message.clone()).await {
                    // Somebody deleted the message, or the bot was moved: begin a new one.
                    Err(SlackError::Refused { word, .. })
                        if matches!(
                            word.as_str(),
                            "message_not_found"
                                | "cant_update_message"
                                | "channel_not_found"
                                | "edit_window_closed"
                        ) =>
                    {
                        return self.post(channel, message).await;
                    }
                    updated => updated?,
                }
                self.call(
                    "chat.postMessage",
                    &json!({"channel": posted.channel, "thread_ts": posted.ts, "text": detail(story)}),
                )
                .await?;
                Ok(posted.clone())
            }
        }
    }

    async fn post(&self, channel: &str, mut message: Value) -> Result<Posted, SlackError> {
        message["channel"] = channel.into();
        let answer = self.call("chat.postMessage", &message).await?;
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let posted = Posted { channel: text("channel"), ts: text("ts") };
        if posted.channel.is_empty() || posted.ts.is_empty() {
            return Err(SlackError::NotSlack("it has no `channel` and `ts`".to_owned()));
        }
        Ok(posted)
    }

    async fn update(&self, posted: &Posted, mut message: Value) -> Result<(), SlackError> {
        message["channel"] = posted.channel.as_str().into();
        message["ts"] = posted.ts.as_str().into();
        self.call("chat.update", &message).await.map(drop)
    }

    /// Calls a method of the Web API.
    async fn call(&self, method: &str, body: &Value) -> Result<Value, SlackError> {
        let url = format!("{}/api/{method}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.client.post(url).json(body);
        if let SlackTarget::Bot { token, .. } = &self.config.target {
            request = request.bearer_auth(token.expose());
        }
        let (_, body) = self.exchange(request).await?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| SlackError::NotSlack(format!("{method} is not answered with JSON")))?;
        match answer.get("ok").and_then(Value::as_bool) {
            Some(true) => Ok(answer),
            Some(false) => {
                let word = answer.get("error").and_then(Value::as_str).unwrap_or("unknown_error");
                if word == "ratelimited" || word == "rate_limited" {
                    return Err(SlackError::RateLimited { after: Duration::from_secs(30) });
                }
                Err(refused(word))
            }
            None => Err(SlackError::NotSlack(format!("{method} is answered without `ok`"))),
        }
    }

    /// Posts to an incoming webhook, which answers with a word instead of JSON.
    async fn hook(&self, body: &Value) -> Result<(), SlackError> {
        let (status, body) = self.exchange(self.client.post(self.base.clone()).json(body)).await?;
        if status.is_success() {
            return Ok(());
        }
        let word: String = String::from_utf8_lossy(&body)
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(64)
            .collect();
        Err(if word.is_empty() { SlackError::NotSlack(format!("status {status}")) } else { refused(&word) })
    }

    /// Sends a request and reads the answer, both within the timeout.
    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, Vec<u8>), SlackError> {
        let unavailable = |error: reqwest::Error| SlackError::Unavailable(chain(&error.without_url()));
        let exchange = async {
            let mut response = request.send().await.map_err(unavailable)?;
            let status = response.status();
            if status == StatusCode::TOO_MANY_REQUESTS {
                let seconds =
                    response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let after = Duration::from_secs(seconds.unwrap_or(30)).min(MAX_WAIT);
                return Err(SlackError::RateLimited { after });
            }
            if status.is_server_error() {
                return Err(SlackError::Unavailable(format!("it answers with status {}", status.as_u16())));
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
                if body.len() + chunk.len() > MAX_ANSWER {
                    return Err(SlackError::NotSlack("it is larger than 1 MiB".to_owned()));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((status, body))
        };
        tokio::time::timeout(self.config.timeout, exchange).await.unwrap_or_else(|_| {
            let seconds = self.config.timeout.as_secs_f32();
            Err(SlackError::Unavailable(format!("no answer within {seconds} s")))
        })
    }
}

fn refused(word: &str) -> SlackError {
    let hint = match word {
        "not_in_channel" => "invite the bot with /invite in the channel",
        "channel_not_found" => "check the channel's name, and invite the bot if the channel is private",
        "is_archived" | "channel_is_archived" => "the channel is archived; choose another one",
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            "the token is not valid; put a bot token (xoxb-…) of the installed app into the secret"
        }
        "missing_scope" => "give the app the scope chat:write and install it again",
        "restricted_action" | "team_access_not_granted" | "org_login_required" => {
            "the workspace forbids it; ask its administrators"
        }
        "no_service" | "no_team" | "invalid_token" | "action_prohibited" => {
            "the webhook was removed or disabled; make a new one"
        }
        _ => "see https://api.slack.com/methods/chat.postMessage#errors",
    };
    SlackError::Refused { word: word.chars().filter(|c| !c.is_control()).take(64).collect(), hint }
}

#[cfg(test)]
mod tests;
