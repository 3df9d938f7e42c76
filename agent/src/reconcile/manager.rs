//! All environments of a cluster: one [`Actor`] each, while this agent leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::actor::{Actor, Ended, Input};
use super::services::Services;
use crate::api::Environment;
use crate::cluster::{EnvironmentEvent, Leadership};

/// Reconciles every Environment until `stop` says so.
///
/// While this agent does not lead nothing is decided and nothing is written; the watches stay warm.
pub async fn run(services: Arc<Services>, leadership: Leadership, mut stop: watch::Receiver<bool>) {
    let mut environments = services.cluster.environments(services.options.namespace.as_deref());
    let mut manager = Manager {
        services: services.clone(),
        known: HashMap::new(),
        running: HashMap::new(),
        started: 0,
        tasks: JoinSet::new(),
    };
    let mut lead = false;
    loop {
        let turn = async { if lead { leadership.lost().await } else { leadership.acquired().await } };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = turn => {
                lead = !lead;
                tracing::info!(leading = lead, "leadership");
                services.telemetry.leading(lead);
                if lead { manager.start_all() } else { manager.stop_all().await }
            }
            event = environments.recv() => match event {
                Some(EnvironmentEvent::Applied(environment)) => manager.applied(Arc::from(environment), lead),
                Some(EnvironmentEvent::Deleted { namespace, name }) => manager.deleted(&format!("{namespace}/{name}")),
                Some(EnvironmentEvent::Invalid { namespace, name, message }) => {
                    tracing::error!(environment = format!("{namespace}/{name}"), "cannot be read: {message}");
                }
                Some(EnvironmentEvent::Synced) => services.ready.store(true, Ordering::Release),
                None => break,
            },
            Some(ended) = manager.tasks.join_next() => manager.ended(ended, lead).await,
        }
    }
    manager.stop_all().await;
}

/// How long the tasks of environments have to end.
const PATIENCE: Duration = Duration::from_secs(10);

struct Manager {
    services: Arc<Services>,
    known: HashMap<String, Arc<Environment>>,
    /// The newest task of each environment, by its number.
    running: HashMap<String, (u64, mpsc::UnboundedSender<Input>)>,
    started: u64,
    tasks: JoinSet<(String, u64, Ended)>,
}

impl Manager {
    fn applied(&mut self, environment: Arc<Environment>, lead: bool) {
        let key = environment.key();
        let before = self.known.insert(key.clone(), environment.clone());
        self.services.telemetry.environments(self.known.len());
        if !lead {
            return;
        }
        // An object of the same name with another UID is another environment: it starts from nothing.
        self.tell_those_who_wait(&environment);
        let same = before.is_some_and(|before| before.metadata.uid == environment.metadata.uid);
        match self.running.get(&key) {
            Some((_, sender)) if same && sender.send(Input::Environment(environment.clone())).is_ok() => {}
            _ => self.start(key, environment),
        }
    }

    /// Those that build on an environment, or come after it, look whether they have waited long enough.
    fn tell_those_who_wait(&self, changed: &Environment) {
        for (key, (_, sender)) in &self.running {
            if self.known.get(key).is_some_and(|known| known.waits_for(changed)) {
                // A task that is gone already needs no word.
                let _ = sender.send(Input::OtherChanged);
            }
        }
    }

    fn start(&mut self, key: String, environment: Arc<Environment>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let actor = Actor::new(self.services.clone(), environment, sender.clone(), inbox);
        self.started += 1;
        let number = self.started;
        if let Some((_, before)) = self.running.insert(key.clone(), (number, sender)) {
            // A task that is gone already needs no word.
            let _ = before.send(Input::Stop);
        }
        tracing::info!(environment = key, "taking over");
        self.tasks.spawn(async move { (key, number, actor.run().await) });
    }

    fn deleted(&mut self, key: &str) {
        self.known.remove(key);
        if let Some((_, sender)) = self.running.remove(key) {
            self.services.claims.release(key);
            self.services.telemetry.forget(key);
            self.services.board.forget(key);
            // The objects stay: taking an Environment away must never take a shop down.
            let _ = sender.send(Input::Stop);
            tracing::info!(environment = key, "released: its objects stay as they are");
        }
    }

    fn start_all(&mut self) {
        for (key, environment) in self.known.clone() {
            self.start(key, environment);
        }
    }

    async fn stop_all(&mut self) {
        for (_, sender) in self.running.drain().map(|(_, task)| task) {
            // A task that is gone already needs no word.
            let _ = sender.send(Input::Stop);
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            // They wait for an API server that does not answer; their state is stored up to there.
            self.tasks.shutdown().await;
        }
    }

    /// A task that lost a race for the status starts again from what is stored now, if this agent still
    /// leads. A task that panicked is an internal error: its environment starts again too.
    async fn ended(&mut self, ended: Result<(String, u64, Ended), tokio::task::JoinError>, lead: bool) {
        match ended {
            // Another task has taken its place already.
            Ok((key, number, _)) if self.running.get(&key).is_none_or(|(newest, _)| *newest != number) => {}
            Ok((_, _, Ended::Stopped)) => {}
            Ok((key, _, Ended::Superseded)) => {
                self.running.remove(&key);
                let Some(environment) = self.known.get(&key).filter(|_| lead) else {
                    return;
                };
                match self.services.cluster.environment(environment.namespace(), environment.name()).await {
                    Ok(Some(fresh)) => self.applied(fresh, lead),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(environment = key, %error, "cannot be read again");
                        let known = environment.clone();
                        self.start(key, known);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "an environment's task failed; all tasks that ended start again");
                let gone: Vec<String> = self
                    .running
                    .iter()
                    .filter(|(_, (_, sender))| sender.is_closed())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    self.running.remove(&key);
                    if let Some(environment) = self.known.get(&key).cloned().filter(|_| lead) {
                        self.start(key, environment);
                    }
                }
            }
        }
    }
}
