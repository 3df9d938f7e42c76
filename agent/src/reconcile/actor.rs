//! One environment, one task: it observes, calls [`step`], persists the new rollout, then executes the
//! effects, and feeds their outcomes back as events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::object::Digest;
use engine::plan::Marks;
use engine::rollout::{ApplyMode, Command, Effect, Event, Phase, Rollout, Sink, SourceProblem, step};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::candidate::{Candidate, Rendered};
use super::correct::Corrections;
use super::desired::Desired;
use super::materials::Supplies;
use super::outbox::{Delivery, Outbox};
use super::probe::Probes;
use super::requests;
use super::services::Services;
use super::status::{Handled, Persisted};
use super::write::{Checked, Writer};
use crate::api::{AuditTip, Environment, MessageState};
use crate::cluster::{Error, PodWatch, StatusWriter, Subscription};
use crate::retry::Backoff;
use crate::source::SourceState;

/// News of the gates' samples alone is stored this often: a canary of an hour must not cost a write for
/// each sample.
const SAMPLES_STORED_EVERY: Duration = Duration::from_secs(10);

/// When a bundle that could not be loaded is asked for again.
const LOADED_AGAIN_IN: Duration = Duration::from_secs(10);

/// What reaches an environment's task from outside or from its own helpers.
#[derive(Debug)]
pub enum Input {
    /// The Environment object as it is now.
    Environment(Arc<Environment>),
    /// The outcome of an effect.
    Event(Event),
    /// The source was rendered.
    Rendered(Box<Result<Rendered, SourceProblem>>),
    /// The checks at the door came to an end.
    Checked(Event, Option<Arc<Checked>>),
    /// A write came to an end; what is wanted since then, where that is known.
    Written {
        /// Number of the write.
        turn: u64,
        /// The outcome.
        event: Event,
        /// What is wanted.
        desired: Option<Arc<Desired>>,
    },
    /// Drift is looked for again after a correction that failed.
    LookAgain,
    /// What the cluster should hold is loaded again.
    LoadAgain,
    /// An evidence record has reached the repository.
    Anchored(AuditTip),
    /// Another environment, that this one may wait for, has changed.
    OtherChanged,
    /// Evidence or a message arrived.
    Delivered(Delivery),
    /// Evidence or a message cannot be delivered now; it is tried again.
    Undelivered {
        /// What cannot be reached.
        sink: Sink,
        /// Why, in a sentence; none when it can be delivered again.
        message: Option<String>,
    },
    /// The task ends.
    Stop,
}

/// The task of one environment.
pub struct Actor {
    pub(super) services: Arc<Services>,
    pub(super) environment: Arc<Environment>,
    pub(super) rollout: Rollout,
    pub(super) sender: mpsc::UnboundedSender<Input>,
    pub(super) inbox: mpsc::UnboundedReceiver<Input>,
    /// What was stored last: nothing is written when nothing changed.
    pub(super) persisted: Option<Persisted>,
    pub(super) stored_at: Instant,
    pub(super) status: StatusWriter,
    pub(super) source: Option<watch::Receiver<SourceState>>,
    /// What renders need from the cluster.
    pub(super) supplies: Supplies,
    pub(super) rendered: Option<Arc<Rendered>>,
    pub(super) rendering: Option<JoinHandle<()>>,
    pub(super) render_again: bool,
    /// A check that waits for its bundle.
    pub(super) awaited: Option<(Digest, bool)>,
    pub(super) candidates: HashMap<Digest, Candidate>,
    /// What the cluster should hold now, as it was last written.
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) members: Subscription,
    pub(super) pods: Option<PodWatch>,
    pub(super) writer: Writer,
    pub(super) probes: Probes,
    pub(super) outbox: Outbox,
    pub(super) audit: Option<AuditTip>,
    pub(super) messages: BTreeMap<String, MessageState>,
    pub(super) handled: Handled,
    /// What cannot be delivered now, and why.
    pub(super) undelivered: BTreeMap<Sink, String>,
    /// How eagerly drift is corrected.
    pub(super) corrections: Corrections,
    /// Whether what the cluster should hold has to be loaded again.
    pub(super) reload: bool,
    /// Deliveries that are stored with the next write, at the latest at that time.
    pub(super) acknowledged: Vec<Event>,
    pub(super) acknowledge_at: Option<Instant>,
    /// Whether there is something to store that no event tells of.
    pub(super) stale: bool,
    pub(super) told: u64,
}

/// Why an environment's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Another agent wrote the status: whoever leads has to load it again.
    Superseded,
}

impl Actor {
    /// Takes an environment over, from the state in its status.
    pub fn new(
        services: Arc<Services>,
        environment: Arc<Environment>,
        sender: mpsc::UnboundedSender<Input>,
        inbox: mpsc::UnboundedReceiver<Input>,
    ) -> Self {
        let saved = environment.status.clone().unwrap_or_default();
        let key = environment.key();
        let rollout = match saved.rollout() {
            Ok(Some(rollout)) => rollout,
            Ok(None) => Rollout::new(key.clone(), Timestamp::now()),
            Err(error) => {
                tracing::error!(environment = key, %error, "the stored state cannot be read; starting over");
                Rollout::new(key.clone(), Timestamp::now())
            }
        };
        let marks = Marks::of_environment(environment.namespace(), environment.name());
        let members = services.cluster.subscribe(&marks);
        let status = StatusWriter::new(&environment);
        let outbox = Outbox::start(services.clone(), environment.clone(), saved.clone(), sender.clone());
        Self {
            writer: Writer::new(services.clone(), sender.clone()),
            probes: Probes::new(services.clone(), sender.clone()),
            outbox,
            members,
            pods: None,
            handled: Handled::from(&saved),
            audit: saved.audit,
            messages: saved.messages,
            undelivered: BTreeMap::new(),
            corrections: Corrections::default(),
            reload: false,
            acknowledged: Vec::new(),
            acknowledge_at: None,
            stale: false,
            told: rollout.sequence,
            rollout,
            environment,
            services,
            sender,
            inbox,
            persisted: None,
            stored_at: Instant::now(),
            status,
            source: None,
            supplies: Supplies::default(),
            rendered: None,
            rendering: None,
            render_again: false,
            awaited: None,
            candidates: HashMap::new(),
            desired: None,
        }
    }

    /// Runs until the inbox closes or another agent takes over.
    pub async fn run(mut self) -> Ended {
        let mut queue = VecDeque::from([Event::Started]);
        if let Some(event) = self.configured() {
            queue.push_front(event);
        }
        self.load_desired().await;
        self.requested(&mut queue);
        loop {
            if std::mem::take(&mut self.reload) {
                self.load_desired().await;
                self.observe(&mut queue);
            }
            // Effects can cause events at once: the turn is over when none is left.
            while !queue.is_empty() || std::mem::take(&mut self.stale) {
                queue.extend(self.acknowledged.drain(..));
                self.acknowledge_at = None;
                if let Err(ended) = self.turn(&mut queue).await {
                    return ended;
                }
            }
            let wake = self.rollout.next_wake().map(until);
            tokio::select! {
                biased;
                input = self.inbox.recv() => match input {
                    Some(Input::Stop) | None => return Ended::Stopped,
                    Some(input) => self.take(input, &mut queue),
                },
                changes = self.members.next() => self.members_changed(changes, &mut queue),
                () = changed(&mut self.source) => self.render(),
                () = self.supplies.changed() => self.render(),
                () = sleep(wake) => queue.push_back(Event::Tick),
                () = sleep(self.acknowledge_at.map(|at| at.saturating_duration_since(Instant::now()))) => {
                    // There may be no event among it: a new anchor is news too.
                    self.stale = true;
                    queue.extend(self.acknowledged.drain(..));
                    self.acknowledge_at = None;
                }
            }
            while let Ok(input) = self.inbox.try_recv() {
                if matches!(input, Input::Stop) {
                    return Ended::Stopped;
                }
                self.take(input, &mut queue);
            }
        }
    }

    /// Folds the queued events, stores the outcome, and only then lets the effects happen.
    async fn turn(&mut self, queue: &mut VecDeque<Event>) -> Result<(), Ended> {
        let mut effects: Vec<Effect> = Vec::new();
        while let Some(event) = queue.pop_front() {
            let before = self.rollout.phase;
            let (rollout, caused) = step(&self.rollout, &event, Timestamp::now());
            tracing::debug!(environment = %self.environment.key(), ?event, effects = ?caused, "step");
            self.rollout = rollout;
            for effect in caused {
                if !effects.contains(&effect) {
                    effects.push(effect);
                }
            }
            if before != self.rollout.phase {
                self.entered(before);
                // Git may ask for something else than what just came to rest.
                if !self.rollout.phase.in_progress()
                    && let Some(rendered) = &self.rendered
                {
                    queue.push_back(Event::Candidate(rendered.candidate().release.clone()));
                }
            }
        }
        self.persist().await?;
        self.services.board.show(&self.rollout);
        for effect in effects {
            self.execute(effect, queue);
        }
        self.forget_unneeded();
        Ok(())
    }

    fn entered(&self, before: Phase) {
        let release = self.rollout.target.as_ref().or(self.rollout.settled.as_ref());
        tracing::info!(
            environment = %self.environment.key(),
            from = %before,
            to = %self.rollout.phase,
            revision = release.map(|release| release.revision.short()),
            digest = release.map(|release| release.digest.short()),
            "phase"
        );
        self.services.telemetry.phase(&self.environment.key(), self.rollout.phase);
    }

    /// Stores the state with what people see of it, in one write. While the API server does not answer
    /// nothing else can be done for this environment, so this waits for it.
    async fn persist(&mut self) -> Result<(), Ended> {
        let mut status = Persisted {
            rollout: self.rollout.clone(),
            audit: self.audit.clone(),
            messages: self.messages.clone(),
            handled: self.handled.clone(),
            generation: self.environment.metadata.generation,
            undelivered: self.undelivered.clone(),
        };
        let fresh = self.stored_at.elapsed() < SAMPLES_STORED_EVERY;
        if self
            .persisted
            .as_ref()
            .is_some_and(|before| before.same(&status) || (fresh && before.same_but_for_samples(&status)))
        {
            return Ok(());
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        loop {
            let written = match status.status(self.status.status()) {
                Ok(text) => self.status.write(&self.services.cluster, text).await,
                Err(error) => {
                    tracing::error!(environment = %self.environment.key(), %error, "the state cannot be written as JSON");
                    return Err(Ended::Stopped);
                }
            };
            match written {
                Ok(()) => break,
                Err(error @ (Error::Superseded(_) | Error::NotLeader)) => {
                    tracing::warn!(environment = %self.environment.key(), %error, "stopping");
                    return Err(Ended::Superseded);
                }
                Err(Error::NotFound { .. }) => return Err(Ended::Stopped),
                Err(error @ Error::Invalid { .. }) if self.rollout.has_samples() => {
                    // Too large, perhaps: the samples are what can be done without.
                    tracing::error!(environment = %self.environment.key(), %error, "storing without samples");
                    self.rollout.drop_samples();
                    status.rollout = self.rollout.clone();
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    self.services.telemetry.api_error(error.metric_label());
                    tracing::warn!(environment = %self.environment.key(), %error, ?delay, "the status cannot be stored");
                    tokio::time::sleep(delay).await;
                }
            }
        }
        self.persisted = Some(status);
        self.stored_at = Instant::now();
        Ok(())
    }

    fn acknowledge_soon(&mut self) {
        self.acknowledge_at.get_or_insert_with(|| Instant::now() + Duration::from_secs(1));
    }

    fn take(&mut self, input: Input, queue: &mut VecDeque<Event>) {
        match input {
            Input::Environment(environment) => self.environment_changed(environment, queue),
            Input::Event(event) => queue.push_back(event),
            Input::OtherChanged => queue.push_back(Event::OtherChanged),
            Input::Rendered(result) => self.rendered(*result, queue),
            Input::Checked(event, checked) => {
                self.writer.checked(checked);
                queue.push_back(event);
            }
            Input::Written { turn, event, desired } => {
                if !self.writer.ended(turn) {
                    return;
                }
                if let Some(desired) = desired {
                    self.watch_pods(&desired);
                    self.desired = Some(desired);
                }
                let now = Instant::now();
                let pause = match &event {
                    Event::ApplyFailed { mode: ApplyMode::Correct(_), .. }
                    | Event::Applied { mode: ApplyMode::Correct(_), changed: 0, .. } => {
                        Some(self.corrections.failed(now))
                    }
                    Event::Applied { mode: ApplyMode::Correct(objects), .. } => {
                        let truce = self.corrections.succeeded(now);
                        if truce.is_some() {
                            let message = format!(
                                "another writer keeps changing {}: corrections pause",
                                objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                            );
                            self.warn("DriftFight", message);
                        }
                        truce
                    }
                    _ => None,
                };
                if let Some(pause) = pause {
                    self.look_again_in(pause);
                }
                queue.push_back(event);
                // What changed while the write was under way was not looked at.
                queue.retain(|event| !matches!(event, Event::Health(_)));
                self.observe(queue);
            }
            Input::LookAgain => self.observe(queue),
            Input::LoadAgain => self.reload = true,
            Input::Anchored(tip) => {
                if self.audit.as_ref().is_none_or(|audit| audit.sequence < tip.sequence) {
                    self.audit = Some(tip);
                    self.acknowledge_soon();
                }
            }
            Input::Undelivered { sink, message } => {
                let reason = match sink {
                    Sink::Evidence => "EvidenceFailed",
                    Sink::Messages => "MessageFailed",
                };
                let known = self.undelivered.remove(&sink);
                if let Some(message) = message {
                    if known.as_ref() != Some(&message) {
                        self.warn(reason, message.clone());
                    }
                    self.undelivered.insert(sink, message);
                }
                self.stale = true;
            }
            Input::Stop => {}
            Input::Delivered(delivery) => {
                self.messages.extend(delivery.messages);
                while self.messages.len() > super::outbox::KEPT {
                    self.messages.pop_first();
                }
                let delivered = Event::Delivered { sequence: delivery.sequence, sink: delivery.sink };
                match delivery.sink {
                    // Telling people twice would show: this is stored at once.
                    Sink::Messages => {
                        self.undelivered.remove(&delivery.sink);
                        queue.push_back(delivered);
                    }
                    // Recording twice does no harm: this goes along with the next write.
                    Sink::Evidence => {
                        self.acknowledged.push(delivered);
                        self.acknowledge_soon();
                    }
                }
            }
        }
    }

    fn environment_changed(&mut self, environment: Arc<Environment>, queue: &mut VecDeque<Event>) {
        let same_spec = environment.spec == self.environment.spec;
        self.reload |= environment.spec.ignore != self.environment.spec.ignore;
        self.environment = environment;
        self.outbox.environment(&self.environment);
        if !same_spec {
            self.rendered = None;
            queue.extend(self.configured());
            self.render();
        }
        self.requested(queue);
    }

    /// Acts on what people asked for by annotations.
    fn requested(&mut self, queue: &mut VecDeque<Event>) {
        for request in requests::new(&self.environment, &mut self.handled, &self.rollout) {
            match request {
                requests::Request::Reconcile => {
                    self.services.sources.poke(Some(&self.environment.spec.source.url));
                    self.render();
                }
                requests::Request::Command(command, actor) => {
                    if command == Command::Retry {
                        self.render();
                    }
                    queue.push_back(Event::Commanded { command, actor });
                }
            }
        }
    }

    /// After a restart: what the cluster should hold, from the bundle that is kept there.
    async fn load_desired(&mut self) {
        let Some(wanted) = self.rollout.wanted().map(|wanted| wanted.digest) else {
            return;
        };
        match self.writer.load(&self.environment, self.candidates.get(&wanted), wanted, &self.rollout).await {
            Ok(desired) => {
                self.services.claims.claim(&self.environment.key(), desired.refs());
                if self.rollout.phase.in_progress() {
                    self.watch_pods(&desired);
                }
                self.desired = Some(Arc::new(desired));
            }
            Err(message) => {
                self.warn("BundleUnreadable", message);
                self.send_in(LOADED_AGAIN_IN, Input::LoadAgain);
            }
        }
    }

    /// Drops bundles that nothing refers to any more, here and in the cluster.
    fn forget_unneeded(&mut self) {
        let mut needed = self.rollout.bundles_needed();
        needed.extend(self.rendered.as_ref().map(|rendered| rendered.candidate().release.digest));
        self.candidates.retain(|digest, _| needed.contains(digest));
        if !self.rollout.phase.in_progress() {
            self.pods = None;
            self.writer.keep_only(&self.environment, self.rollout.bundles_needed());
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn changed(source: &mut Option<watch::Receiver<SourceState>>) {
    match source {
        // The subscription's task ended: it said why.
        Some(source) => {
            if source.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}
