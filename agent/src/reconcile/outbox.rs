//! Tells evidence and people of transitions, in the background: neither delays a rollout, and neither is
//! forgotten, because a transition stays in the stored outbox until it has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::message::Story;
use engine::rollout::{Outgoing, Sink};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::actor::Input;
use super::services::Services;
use crate::api::{AuditTip, Environment, EnvironmentStatus, MessageState, NotifySpec};
use crate::evidence::Progress;
use crate::retry::Backoff;
use crate::secret::Secret;
use crate::slack::{Posted, Slack, SlackConfig, SlackError, SlackTarget};

/// A transition arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its number; all older ones arrived too.
    pub sequence: u64,
    /// Where.
    pub sink: Sink,
    /// The messages that it was told in, by the story's key and the receiver.
    pub messages: Vec<(String, MessageState)>,
}

/// The two senders of one environment. Dropping it ends them.
pub struct Outbox {
    waiting: watch::Sender<Vec<Outgoing>>,
    environment: watch::Sender<Arc<Environment>>,
    _senders: JoinSet<()>,
}

impl Outbox {
    /// Starts the senders.
    pub fn start(
        services: Arc<Services>,
        environment: Arc<Environment>,
        saved: EnvironmentStatus,
        inbox: mpsc::UnboundedSender<Input>,
    ) -> Self {
        let (waiting, outbox) = watch::channel(Vec::new());
        let (current, changes) = watch::channel(environment);
        let mut senders = JoinSet::new();
        let sender = Sender { services, environment: changes, outbox, inbox, done: 0, backoff: backoff() };
        senders.spawn(sender.clone().record(saved.audit));
        senders.spawn(sender.tell(saved.messages));
        Self { waiting, environment: current, _senders: senders }
    }

    /// What waits now.
    pub fn offer(&self, outbox: &[Outgoing]) {
        self.waiting.send_replace(outbox.to_vec());
    }

    /// The Environment changed: receivers and repositories may have too.
    pub fn environment(&self, environment: &Arc<Environment>) {
        self.environment.send_if_modified(|current| {
            let news = current.spec != environment.spec;
            *current = environment.clone();
            news
        });
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(120))
}

#[derive(Clone)]
struct Sender {
    services: Arc<Services>,
    environment: watch::Receiver<Arc<Environment>>,
    outbox: watch::Receiver<Vec<Outgoing>>,
    inbox: mpsc::UnboundedSender<Input>,
    /// Number of the newest transition that arrived.
    done: u64,
    backoff: Backoff,
}

impl Sender {
    fn environment(&self) -> Arc<Environment> {
        self.environment.borrow().clone()
    }

    /// Waits until something is in the outbox that did not arrive yet.
    async fn waiting(&mut self, open: impl Fn(&Outgoing) -> bool) -> Option<Vec<Outgoing>> {
        let done = self.done;
        let outbox = self
            .outbox
            .wait_for(|outbox| {
                outbox.iter().any(|outgoing| outgoing.transition.sequence > done && open(outgoing))
            })
            .await
            .ok()?;
        Some(
            outbox
                .iter()
                .filter(|outgoing| outgoing.transition.sequence > done && open(outgoing))
                .cloned()
                .collect(),
        )
    }

    /// Says that a delivery failed, once for each kind of failure in a row, and waits.
    async fn failed(&mut self, sink: Sink, message: String, wait: Option<Duration>) {
        let first = self.backoff.attempts() == 0;
        let delay = self.backoff.next_delay().max(wait.unwrap_or_default());
        if first {
            // A closed inbox means that the environment's task is gone.
            let _ = self.inbox.send(Input::Undelivered { sink, message: Some(message) });
        } else {
            tracing::debug!(environment = %self.environment().key(), ?sink, "{message}");
        }
        // A changed Environment may be the cure: a new token, another channel.
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = self.environment.changed() => {}
        }
    }

    fn delivered(&mut self, delivery: Delivery) {
        self.done = delivery.sequence;
        self.backoff.reset();
        // A closed inbox means that the environment's task is gone.
        let _ = self.inbox.send(Input::Delivered(delivery));
    }

    /// Writes evidence, one record for each transition, in order.
    async fn record(mut self, mut tip: Option<AuditTip>) {
        let mut pushes = JoinSet::new();
        let mut unpushed = Vec::new();
        let environment = self.environment();
        if environment.spec.audit.is_some()
            && let Ok(progress) = super::evidence::progress(&self.services, &environment).await
        {
            // Records of an earlier run may still wait for their push.
            self.watch_pushes(&mut pushes, progress, Vec::new());
        }
        while let Some(outbox) = self.waiting(|outgoing| !outgoing.recorded).await {
            for outgoing in outbox {
                loop {
                    let environment = self.environment();
                    match super::evidence::record(
                        &self.services,
                        &environment,
                        &outgoing.transition,
                        tip.as_ref(),
                    )
                    .await
                    {
                        Ok((written, progress)) => {
                            let pushed = progress.borrow().pushed;
                            unpushed.retain(|tip: &AuditTip| tip.sequence > pushed);
                            unpushed.push(written.clone());
                            tip = Some(written);
                            pushes.abort_all();
                            self.watch_pushes(&mut pushes, progress, unpushed.clone());
                            let (sequence, messages) = (outgoing.transition.sequence, Vec::new());
                            self.delivered(Delivery { sequence, sink: Sink::Evidence, messages });
                            break;
                        }
                        Err(message) => self.failed(Sink::Evidence, message, None).await,
                    }
                }
            }
        }
    }

    /// Tells when records cannot be pushed, and when they can again: they are safe on this machine and are
    /// pushed as soon as that is possible. The anchor in the status follows the repository, not this
    /// machine: if this machine is lost with records that never left it, the chain is still whole.
    fn watch_pushes(
        &self,
        pushes: &mut JoinSet<()>,
        mut progress: watch::Receiver<Progress>,
        mut unpushed: Vec<AuditTip>,
    ) {
        let inbox = self.inbox.clone();
        pushes.spawn(async move {
            let mut told = true;
            loop {
                let problem = progress.borrow_and_update().problem.as_ref().map(ToString::to_string);
                let pushed = progress.borrow().pushed;
                if let Some(tip) = unpushed.iter().rfind(|tip| tip.sequence <= pushed).cloned() {
                    unpushed.retain(|tip| tip.sequence > pushed);
                    if inbox.send(Input::Anchored(tip)).is_err() {
                        return;
                    }
                }
                if problem.is_some() || told {
                    told = problem.is_some();
                    // A closed inbox means that the environment's task is gone.
                    if inbox.send(Input::Undelivered { sink: Sink::Evidence, message: problem }).is_err() {
                        return;
                    }
                }
                if progress.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Tells people.
    async fn tell(mut self, mut posted: BTreeMap<String, MessageState>) {
        while let Some(outbox) = self.waiting(|outgoing| !outgoing.notified).await {
            let key = self.environment().key();
            let Some(story) = Story::pending(&key, &outbox).into_iter().next() else {
                continue;
            };
            let mut told: BTreeSet<usize> = BTreeSet::new();
            let mut messages = Vec::new();
            loop {
                let environment = self.environment();
                let mut problem = None;
                for (i, receiver) in environment.spec.notify.iter().enumerate() {
                    if told.contains(&i) {
                        continue;
                    }
                    let key = format!("{}#{i}", story.key);
                    match self.slack(&environment, receiver, &story, posted.get(&key)).await {
                        Ok(state) => {
                            told.insert(i);
                            if let Some(state) = state.filter(|_| !story.alone) {
                                posted.insert(key.clone(), state.clone());
                                messages.push((key, state));
                            }
                        }
                        Err(error) => problem = Some(error),
                    }
                }
                match problem {
                    None => break,
                    Some(error) => {
                        self.services.telemetry.api_error(error.metric_label());
                        let wait = error.retry_after();
                        self.failed(Sink::Messages, error.to_string(), wait).await;
                    }
                }
            }
            // Only the newest few stories can still go on.
            while posted.len() > KEPT {
                posted.pop_first();
            }
            self.delivered(Delivery { sequence: story.sequence, sink: Sink::Messages, messages });
        }
    }

    async fn slack(
        &self,
        environment: &Environment,
        receiver: &NotifySpec,
        story: &Story,
        posted: Option<&MessageState>,
    ) -> Result<Option<MessageState>, SlackError> {
        let Some(spec) = &receiver.slack else {
            return Ok(None);
        };
        let options = &self.services.options;
        let channel = spec.channel.clone().or_else(|| options.slack_channel.clone()).unwrap_or_default();
        let target = match &spec.secret_ref {
            Some(reference) => {
                let data =
                    self.services.cluster.secret(environment.namespace(), &reference.name).await.map_err(
                        |error| SlackError::Configuration(format!("Secret {}: {error}", reference.name)),
                    )?;
                let text = |key: &str| {
                    let bytes = data.get(key)?;
                    Some(Secret::new(std::str::from_utf8(bytes).ok()?.trim().to_owned()))
                };
                match (text("token"), text("url")) {
                    (Some(token), _) => SlackTarget::Bot { token, channel },
                    (None, Some(url)) => SlackTarget::Webhook(url),
                    (None, None) => {
                        let message = format!("Secret {} has neither `token` nor `url`", reference.name);
                        return Err(SlackError::Configuration(message));
                    }
                }
            }
            None => match (&options.slack_token, &options.slack_webhook) {
                (Some(token), _) => SlackTarget::Bot { token: token.clone(), channel },
                (None, Some(url)) => SlackTarget::Webhook(url.clone()),
                (None, None) => {
                    let message =
                        "spec.notify.slack names no secretRef, and the agent has no token".to_owned();
                    return Err(SlackError::Configuration(message));
                }
            },
        };
        let config = SlackConfig { base_url: options.slack_api.clone(), ..SlackConfig::new(target) };
        let before = posted.map(|state| Posted { channel: state.channel.clone(), ts: state.ts.clone() });
        let posted = Slack::new(config)?.send(story, before.as_ref()).await?;
        Ok(Some(MessageState { channel: posted.channel, ts: posted.ts }))
    }
}

/// How many messages are remembered for being updated.
pub const KEPT: usize = 8;
