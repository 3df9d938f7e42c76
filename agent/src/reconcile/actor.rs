//! One environment, one task: it observes, calls [`step`], persists the new rollout, then executes the
//! effects, and feeds their outcomes back as events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use engine::object::{Digest, ObjectRef};
use engine::plan::Marks;
use engine::rollout::{
    ApplyMode, Command, Effect, Event, HealthSummary, Phase, Rollout, Sink, SourceProblem, step,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::candidate::{Candidate, Rendered};
use super::desired::Desired;
use super::outbox::{Delivery, Outbox};
use super::probe::Probes;
use super::requests;
use super::services::Services;
use super::status::{Handled, Persisted};
use super::write::{Checked, Order, Writer};
use crate::api::{AuditTip, Environment, MessageState};
use crate::cluster::{ChangeKind, EnvironmentNotice, Error, PodWatch, StatusWriter, Subscription};
use crate::retry::Backoff;
use crate::source::SourceState;

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
    inbox: mpsc::UnboundedReceiver<Input>,
    /// What was stored last: nothing is written when nothing changed.
    persisted: Option<Persisted>,
    status: StatusWriter,
    source: Option<watch::Receiver<SourceState>>,
    rendered: Option<Arc<Rendered>>,
    rendering: Option<JoinHandle<()>>,
    render_again: bool,
    /// A check that waits for its bundle.
    awaited: Option<(Digest, bool)>,
    pub(super) candidates: HashMap<Digest, Candidate>,
    /// What the cluster should hold now, as it was last written.
    pub(super) desired: Option<Arc<Desired>>,
    members: Subscription,
    pods: Option<PodWatch>,
    writer: Writer,
    probes: Probes,
    outbox: Outbox,
    audit: Option<AuditTip>,
    messages: BTreeMap<String, MessageState>,
    handled: Handled,
    /// What cannot be delivered now, and why.
    undelivered: BTreeMap<Sink, String>,
    /// Whether there is something to store that no event tells of.
    stale: bool,
    told: u64,
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
            stale: false,
            told: rollout.sequence,
            rollout,
            environment,
            services,
            sender,
            inbox,
            persisted: None,
            status,
            source: None,
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
            if (!queue.is_empty() || std::mem::take(&mut self.stale))
                && let Err(ended) = self.turn(&mut queue).await
            {
                return ended;
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
                () = sleep(wake) => queue.push_back(Event::Tick),
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
        let status = Persisted {
            rollout: self.rollout.clone(),
            audit: self.audit.clone(),
            messages: self.messages.clone(),
            handled: self.handled.clone(),
            generation: self.environment.metadata.generation,
            undelivered: self.undelivered.clone(),
        };
        if self.persisted.as_ref().is_some_and(|before| before.same(&status)) {
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
                Err(error) => {
                    let delay = backoff.next_delay();
                    self.services.telemetry.api_error(error.metric_label());
                    tracing::warn!(environment = %self.environment.key(), %error, ?delay, "the status cannot be stored");
                    tokio::time::sleep(delay).await;
                }
            }
        }
        self.persisted = Some(status);
        Ok(())
    }

    fn execute(&mut self, effect: Effect, queue: &mut VecDeque<Event>) {
        match effect {
            Effect::Check { digest, approved } => self.check(digest, approved),
            Effect::Apply { digest, mode } => self.apply(digest, mode),
            Effect::Prune { digest } => {
                let rollback = matches!(self.rollout.phase, Phase::RollingBack | Phase::RollbackFailed);
                self.writer.prune(&self.environment, digest, self.desired.clone(), rollback);
            }
            Effect::Sample { gate } => self.sample(&gate),
            Effect::Observe => self.observe(queue),
            Effect::Announce => self.announce(),
            Effect::Warn { reason, message } => self.warn(&reason, message),
        }
    }

    /// Tells whoever looks at the Environment: a log line and a Kubernetes event.
    fn warn(&self, reason: &str, message: String) {
        tracing::warn!(environment = %self.environment.key(), reason, "{message}");
        self.tell(EnvironmentNotice {
            key: format!("{reason}-{}", Timestamp::now().as_millisecond()),
            warning: true,
            reason: reason.to_owned(),
            action: "Reconcile".to_owned(),
            note: message,
        });
    }

    /// Writes a Kubernetes event, in the background: nothing waits for it.
    fn tell(&self, notice: EnvironmentNotice) {
        let (services, environment) = (self.services.clone(), self.environment.clone());
        tokio::spawn(async move {
            if let Err(error) = services.cluster.tell(&environment, &notice).await {
                tracing::debug!(environment = %environment.key(), %error, "an event was not written");
            }
        });
    }

    fn announce(&mut self) {
        let key = self.environment.key();
        let mut notices = Vec::new();
        for outgoing in &self.rollout.outbox {
            let transition = &outgoing.transition;
            if transition.sequence > self.told {
                self.told = transition.sequence;
                let event = engine::message::kubernetes_event(transition);
                self.services.telemetry.transition(&key, &event.reason);
                tracing::info!(
                    environment = %self.environment.key(),
                    sequence = transition.sequence,
                    reason = ?transition.reason,
                    "{}", transition.message
                );
                notices.push(EnvironmentNotice {
                    key: transition.sequence.to_string(),
                    warning: event.type_ == "Warning",
                    action: transition.to.to_string(),
                    reason: event.reason,
                    note: event.note,
                });
            }
        }
        for notice in notices {
            self.tell(notice);
        }
        self.outbox.offer(&self.rollout.outbox);
    }

    fn check(&mut self, digest: Digest, approved: bool) {
        let Some(candidate) = self.candidates.get(&digest).cloned() else {
            // After a restart: the check follows as soon as the source is rendered.
            self.awaited = Some((digest, approved));
            self.render();
            return;
        };
        let baseline = self.bundle_of_settled();
        let mode = self.next_mode(&digest);
        self.writer.check(&self.environment, candidate, baseline, mode, approved);
    }

    /// How a release would be applied if it passed the door now.
    fn next_mode(&self, digest: &Digest) -> ApplyMode {
        let pods = self.rollout.settings.canary_pods;
        match &self.rollout.settled {
            Some(settled) if pods > 0 && settled.digest != *digest => ApplyMode::Canary { pods },
            _ => ApplyMode::Full,
        }
    }

    fn bundle_of_settled(&self) -> Option<Digest> {
        self.rollout.settled.as_ref().map(|settled| settled.digest)
    }

    fn apply(&mut self, digest: Digest, mode: ApplyMode) {
        let candidate = self.candidates.get(&digest).cloned();
        let baseline = self.bundle_of_settled().filter(|settled| *settled != digest);
        self.writer.apply(
            &self.environment,
            Order { digest, mode, candidate, baseline, desired: self.desired.clone() },
        );
    }

    fn sample(&mut self, gate: &str) {
        if let Some(gate) = self.rollout.settings.gates.iter().find(|g| g.name == gate) {
            let workloads = match (&self.rollout.canaries, &self.desired) {
                (canaries, _) if !canaries.is_empty() => canaries.clone(),
                (_, Some(desired)) => desired.deployments(),
                _ => Vec::new(),
            };
            self.probes.sample(gate, workloads, self.rollout.since);
        }
    }

    /// Says anew how ready the members are, and whether they are what they should be.
    fn observe(&mut self, queue: &mut VecDeque<Event>) {
        let Some(desired) = &self.desired else {
            return;
        };
        queue.push_back(Event::Health(self.health(desired)));
        if !self.writer.is_writing() {
            let key = self.environment.key();
            let mut objects = self.services.cluster.members(|index| desired.drifted(index));
            objects.retain(|object| self.services.claims.other(object, &key).is_none());
            if !objects.is_empty() {
                queue.push_back(Event::Drifted { objects });
            }
        }
    }

    fn health(&self, desired: &Desired) -> HealthSummary {
        let pods = self.rollout.settings.canary_pods;
        self.services.cluster.health(&desired.digest, desired.refs(), &desired.canaries, pods)
    }

    fn members_changed(&mut self, changes: Vec<(ObjectRef, ChangeKind)>, queue: &mut VecDeque<Event>) {
        let Some(desired) = &self.desired else {
            return;
        };
        let changed: Vec<ObjectRef> =
            changes.into_iter().map(|(object, _)| object).filter(|object| desired.wants(object)).collect();
        if changed.is_empty() {
            return;
        }
        let key = self.environment.key();
        if !self.writer.is_writing() {
            let claims = &self.services.claims;
            let objects: Vec<ObjectRef> = self.services.cluster.members(|index| {
                changed
                    .into_iter()
                    .filter(|object| {
                        desired.has_drifted(index, object) && claims.other(object, &key).is_none()
                    })
                    .collect()
            });
            if !objects.is_empty() {
                self.services.telemetry.drifted(&key, objects.len());
                queue.push_back(Event::Drifted { objects });
            }
        }
        queue.push_back(Event::Health(self.health(desired)));
    }

    fn take(&mut self, input: Input, queue: &mut VecDeque<Event>) {
        match input {
            Input::Environment(environment) => self.environment_changed(environment, queue),
            Input::Event(event) => queue.push_back(event),
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
                if let Event::ApplyFailed { mode: ApplyMode::Correct(_), .. } = &event {
                    self.look_again_later();
                }
                queue.push_back(event);
                // What changed while the write was under way was not looked at.
                queue.retain(|event| !matches!(event, Event::Health(_)));
                self.observe(queue);
            }
            Input::LookAgain => self.observe(queue),
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
                self.audit = delivery.audit.or(self.audit.take());
                self.messages.extend(delivery.messages);
                while self.messages.len() > super::outbox::KEPT {
                    self.messages.pop_first();
                }
                if delivery.sink == Sink::Messages {
                    self.undelivered.remove(&delivery.sink);
                }
                queue.push_back(Event::Delivered { sequence: delivery.sequence, sink: delivery.sink });
            }
        }
    }

    /// While a rollout is under way the newest pods are watched: what keeps them from running is told at
    /// once, not at the deadline.
    fn watch_pods(&mut self, desired: &Desired) {
        let marks = Marks::of_environment(self.environment.namespace(), self.environment.name());
        self.pods = Some(self.services.cluster.watch_pods(&marks, desired.refs()));
    }

    fn look_again_later(&self) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::LookAgain);
        });
    }

    fn environment_changed(&mut self, environment: Arc<Environment>, queue: &mut VecDeque<Event>) {
        let same_spec = environment.spec == self.environment.spec;
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

    /// Reads the specification: its settings, and where the source is.
    fn configured(&mut self) -> Option<Event> {
        let spec = &self.environment.spec;
        let unsupported = spec.not_yet_supported();
        let settings = match spec.settings() {
            _ if !unsupported.is_empty() => Err(format!(
                "this version of the agent does not act on {}: remove it",
                unsupported.join(", ")
            )),
            Ok(settings) => Ok(settings),
            Err(error) => Err(error.to_string()),
        };
        match settings {
            Ok(settings) => {
                self.source = None;
                self.subscribe();
                Some(Event::Configured(settings))
            }
            Err(message) => {
                self.source = None;
                Some(Event::SourceFailed(SourceProblem {
                    reason: "InvalidSpec".to_owned(),
                    message,
                    commit_at_fault: true,
                }))
            }
        }
    }

    fn subscribe(&mut self) {
        let (services, environment, sender) =
            (self.services.clone(), self.environment.clone(), self.sender.clone());
        let (forward, receiver) = watch::channel(SourceState::Pending);
        self.source = Some(receiver);
        tokio::spawn(async move {
            match services.subscribe(&environment).await {
                Ok(mut states) => loop {
                    let state = states.borrow_and_update().clone();
                    if forward.send(state).is_err() || states.changed().await.is_err() {
                        return;
                    }
                },
                Err(problem) => {
                    // A closed inbox means that the environment's task is gone.
                    let _ = sender.send(Input::Event(Event::SourceFailed(problem)));
                }
            }
        });
    }

    /// Renders what the source gives now, off this task. While a render is under way the next one waits:
    /// only the newest state matters.
    fn render(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        if self.rendering.as_ref().is_some_and(|rendering| !rendering.is_finished()) {
            self.render_again = true;
            return;
        }
        let state = source.borrow_and_update().clone();
        let snapshot = match state {
            SourceState::Pending => return,
            SourceState::Ready(snapshot) => snapshot,
            SourceState::Failed { problem, .. } => {
                // A closed inbox means that the environment's task is gone.
                let _ = self.sender.send(Input::Event(Event::SourceFailed(problem)));
                return;
            }
        };
        let (environment, last, sender) =
            (self.environment.clone(), self.rendered.clone(), self.sender.clone());
        let telemetry = self.services.telemetry.clone();
        self.rendering = Some(tokio::task::spawn_blocking(move || {
            let started = std::time::Instant::now();
            let render = || super::candidate::candidate(&snapshot, &environment.spec, last.as_deref());
            let result = std::panic::catch_unwind(AssertUnwindSafe(render)).unwrap_or_else(|_| {
                // An error of ours must not silence the environment: the log has the trace.
                Err(SourceProblem {
                    reason: "InternalError".to_owned(),
                    message: "the renderer failed; please report this with the commit".to_owned(),
                    commit_at_fault: true,
                })
            });
            // The commit at fault is not the one that serves: evidence and people must see which it is.
            let result = result.map_err(|problem| SourceProblem {
                message: format!("{}: {}", snapshot.revision.short(), problem.message),
                ..problem
            });
            telemetry.rendered(&environment.key(), started.elapsed(), result.is_ok());
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::Rendered(Box::new(result)));
        }));
    }

    fn rendered(&mut self, result: Result<Rendered, SourceProblem>, queue: &mut VecDeque<Event>) {
        self.rendering = None;
        match result {
            Ok(rendered) => {
                let candidate = rendered.candidate().clone();
                let release = candidate.release.clone();
                self.candidates.insert(release.digest, candidate);
                self.rendered = Some(Arc::new(rendered));
                if let Some((digest, approved)) =
                    self.awaited.take_if(|(digest, _)| *digest == release.digest)
                {
                    self.check(digest, approved);
                }
                queue.push_back(Event::Candidate(release));
            }
            Err(problem) => queue.push_back(Event::SourceFailed(problem)),
        }
        if std::mem::take(&mut self.render_again) {
            self.render();
        }
    }

    /// After a restart: what the cluster should hold, from the bundle that is kept there.
    async fn load_desired(&mut self) {
        let Some(serving) = self.rollout.serving().map(|serving| serving.digest) else {
            return;
        };
        match self.writer.load(&self.environment, serving, &self.rollout).await {
            Ok(desired) => {
                self.services.claims.claim(&self.environment.key(), desired.refs().iter());
                if self.rollout.phase.in_progress() {
                    self.watch_pods(&desired);
                }
                self.desired = Some(Arc::new(desired));
            }
            Err(message) => self.warn("BundleUnreadable", message),
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
