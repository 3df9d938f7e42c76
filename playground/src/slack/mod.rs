//! A local endpoint that speaks the part of Slack's Web API that deployments need, so that their messages
//! can be seen without an account: `chat.postMessage`, `chat.update`, `auth.test` and incoming webhooks,
//! with Slack's own answers to bad tokens, unknown messages and missing text
//! (<https://docs.slack.dev/reference/methods/chat.postMessage>).

mod display;
mod endpoint;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use display::{conversation, readable};

/// Messages that are kept; the oldest go first.
const KEPT: usize = 1000;

/// A message as the channel shows it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The channel, as the sender named it.
    pub channel: String,
    /// The message's identifier in its channel: seconds and a counter, as Slack writes it.
    pub ts: String,
    /// The message that this one replies to.
    pub thread_ts: Option<String>,
    /// The text, in Slack's mrkdwn; what notifications show.
    pub text: String,
    /// The blocks, which take the text's place in the channel; an array, or null.
    pub blocks: Value,
    /// How often it was updated in place.
    pub edits: u32,
    /// When it was posted.
    pub posted: Timestamp,
}

/// What the endpoint does instead of answering as it should. For tests of those who call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `{"ok": false, "error": …}`, with status 200, as Slack does.
    NotOk(String),
    /// Status 429 with this many seconds in `Retry-After`.
    RateLimited(u32),
    /// Status 500 without a body that means anything.
    Broken,
}

/// What the channels hold.
#[derive(Debug, Default)]
struct Channels {
    messages: Vec<Message>,
    faults: VecDeque<Fault>,
    requests: u64,
    counter: u32,
}

/// State shared by the endpoint's requests.
#[derive(Debug)]
struct Shared {
    token: String,
    channels: Mutex<Channels>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint; it ends when the value is dropped.
#[derive(Debug)]
pub struct Slack {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Slack {
    /// Listens on a free port of the loopback interface and accepts `token` as its only bot token.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            token: token.to_owned(),
            channels: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let routes = endpoint::routes(Arc::clone(&shared));
        let server = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Ok(Self { address, shared, server })
    }

    /// What stands for `https://slack.com`: methods are at `/api/<method>` below it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The only bot token that is accepted.
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// An incoming webhook's address.
    pub fn webhook_url(&self) -> String {
        format!("http://{}/services/T000/B000/webhook", self.address)
    }

    /// The messages as the channels show them now, in the order of posting.
    pub fn messages(&self) -> Vec<Message> {
        self.shared.channels().messages.clone()
    }

    /// How many requests came, answered well or not.
    pub fn requests(&self) -> u64 {
        self.shared.channels().requests
    }

    /// Changes with every request: a way to wait for a message without polling.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// The next requests fail like this, one each, in this order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.channels().faults.extend(faults);
    }
}

impl Drop for Slack {
    fn drop(&mut self) {
        self.server.abort();
    }
}
