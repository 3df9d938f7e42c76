//! How an environment's task follows its specification and its source.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use engine::rollout::{Event, SourceProblem};
use tokio::sync::watch;

use super::actor::{Actor, Input};
use super::candidate::Rendered;
use super::materials::Supplies;
use crate::retry::Backoff;
use crate::source::SourceState;

impl Actor {
    /// Reads the specification: its settings, and where the source is.
    pub(super) fn configured(&mut self) -> Option<Event> {
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
                self.supplies = Supplies::follow(&self.services.cluster, &self.environment);
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

    pub(super) fn subscribe(&mut self) {
        let (services, environment, sender) =
            (self.services.clone(), self.environment.clone(), self.sender.clone());
        let (forward, receiver) = watch::channel(SourceState::Pending);
        self.source = Some(receiver);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
            loop {
                match services.subscribe(&environment).await {
                    Ok(mut states) => loop {
                        let state = states.borrow_and_update().clone();
                        if forward.send(state).is_err() || states.changed().await.is_err() {
                            return;
                        }
                    },
                    // Its Secret may come later, as when a folder is applied at once.
                    Err(problem) => {
                        if sender.send(Input::Event(Event::SourceFailed(problem))).is_err() {
                            return;
                        }
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                    () = forward.closed() => return,
                }
            }
        });
    }

    /// Renders what the source gives now, off this task. While a render is under way the next one waits:
    /// only the newest state matters.
    pub(super) fn render(&mut self) {
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
        let materials = match self.supplies.materials(&self.environment.spec) {
            Ok(Some(materials)) => materials,
            // What is missing is followed: its arrival renders.
            Ok(None) => return,
            Err(problem) => {
                // A closed inbox means that the environment's task is gone.
                let _ = self.sender.send(Input::Event(Event::SourceFailed(problem)));
                return;
            }
        };
        let (environment, last, sender) =
            (self.environment.clone(), self.rendered.clone(), self.sender.clone());
        let services = self.services.clone();
        self.rendering = Some(tokio::task::spawn_blocking(move || {
            let started = std::time::Instant::now();
            let render = || {
                super::candidate::candidate(
                    &snapshot,
                    &environment.spec,
                    &materials,
                    last.as_deref(),
                    &services.renders,
                )
            };
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
            services.telemetry.rendered(&environment.key(), started.elapsed(), result.is_ok());
            // A closed inbox means that the environment's task is gone.
            let _ = sender.send(Input::Rendered(Box::new(result)));
        }));
    }

    pub(super) fn rendered(&mut self, result: Result<Rendered, SourceProblem>, queue: &mut VecDeque<Event>) {
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
}
