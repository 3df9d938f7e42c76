//! One container: started, probed, restarted, ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::command;
use crate::logs;
use crate::pod::{Stop, Worker, find_container};
use crate::probe::{Answer, Timing, Verdict};
use crate::prober::Target;
use crate::process::{Exit, Process, Streams, signal_named};
use crate::rewrite::Mounts;
use crate::status::{Ended, State, is_sidecar};

/// How long the output of a container that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a container's story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It ended well and is not restarted.
    Succeeded,
    /// It failed and is not restarted, or the pod had to go.
    Failed,
}

/// Runs a container until it is not to be restarted.
pub(crate) async fn run(worker: Arc<Worker>, mounts: Arc<Mounts>, name: String) -> Finish {
    let runner = Runner { worker, mounts, name };
    let mut restarts = Backoff::default();
    let mut pulls = Backoff::default();
    loop {
        if runner.worker.is_stopping() {
            return runner.never_ran();
        }
        let Some((container, program)) = runner.resolve(&mut pulls).await else { return runner.never_ran() };
        let Some(target) = runner.configure(&container, &program).await else { return runner.never_ran() };
        let ended = runner.run_once(&container, &target).await;
        let succeeded = ended.code == 0;
        let finished = ended.finished;
        let spec_policy = runner.worker.pod().spec.as_ref().and_then(|spec| spec.restart_policy.clone());
        let init = runner.is_init();
        let restart = !runner.worker.is_stopping()
            && match spec_policy.as_deref().unwrap_or("Always") {
                _ if is_sidecar(&container) => true,
                "Never" => false,
                "OnFailure" => !succeeded,
                _ => !(init && succeeded),
            };
        runner.worker.update(&runner.name, |record| {
            record.state = State::Terminated(ended.clone());
            record.ready = init && succeeded;
            record.started = false;
        });
        if !restart {
            return if succeeded { Finish::Succeeded } else { Finish::Failed };
        }
        let pause = restarts.next(finished);
        if !runner.pause_before_restart(pause, ended).await {
            return Finish::Failed;
        }
    }
}

struct Runner {
    worker: Arc<Worker>,
    mounts: Arc<Mounts>,
    name: String,
}

impl Runner {
    fn is_init(&self) -> bool {
        let pod = self.worker.pod();
        let inits = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        inits.iter().any(|container| container.name == self.name)
    }

    fn wait_as(&self, reason: &str, message: Option<String>) {
        self.worker.update(&self.name, |record| {
            record.state = State::Waiting { reason: reason.to_owned(), message };
            record.ready = false;
            record.started = false;
        });
    }

    fn event(&self, warning: bool, reason: &str, message: String) {
        let pod = self.worker.pod();
        match warning {
            true => self.worker.context.events.warning(pod.as_ref(), reason, message),
            false => self.worker.context.events.normal(pod.as_ref(), reason, message),
        }
    }

    /// A container that was never started ends as kubelet reports it.
    fn never_ran(&self) -> Finish {
        let now = Timestamp::now();
        self.worker.update(&self.name, |record| {
            if let State::Waiting { .. } = record.state {
                record.state = State::Terminated(Ended {
                    code: 137,
                    reason: "ContainerStatusUnknown".to_owned(),
                    message: Some("The container was not running when the pod was deleted".to_owned()),
                    started: None,
                    finished: now,
                    id: None,
                });
            }
        });
        Finish::Failed
    }

    /// Finds the program for the container's image; waits, as for a registry, while there is none.
    async fn resolve(&self, pulls: &mut Backoff) -> Option<(Container, crate::Program)> {
        let mut orders = self.worker.changes();
        loop {
            let container = find_container(&self.worker.pod(), &self.name)?;
            let image = container.image.clone().unwrap_or_default();
            if let Some(program) = self.worker.context.config.images.find(&image) {
                let message = format!("Container image \"{image}\" already present on machine");
                self.event(false, "Pulled", message);
                return Some((container, program.clone()));
            }
            let message = format!(
                "failed to pull image \"{image}\": no program of this machine stands for it; add it to the image map"
            );
            self.event(true, "Failed", message.clone());
            self.wait_as("ErrImagePull", Some(message));
            // Shown at least once before it becomes a pause.
            if let Err(error) = self.worker.publish().await {
                tracing::debug!(%error, "a pod's status could not be written");
            }
            pulls.next(Timestamp::now());
            let pause = pulls.next(Timestamp::now());
            self.wait_as("ImagePullBackOff", Some(format!("Back-off pulling image \"{image}\"")));
            self.event(false, "BackOff", format!("Back-off pulling image \"{image}\""));
            let deadline = Instant::now() + pause;
            loop {
                tokio::select! {
                    _ = self.worker.stopped() => return None,
                    () = tokio::time::sleep_until(deadline) => break,
                    changed = orders.changed() => {
                        changed.ok()?;
                        let now = find_container(&self.worker.pod(), &self.name)?;
                        if now.image.as_ref() != Some(&image) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Builds the command; waits while something that it refers to is missing.
    async fn configure(&self, container: &Container, program: &crate::Program) -> Option<Target> {
        let context = &self.worker.context;
        let mut changed = context.changed.subscribe();
        let mut told = None;
        loop {
            changed.borrow_and_update();
            let pod = self.worker.pod();
            match command::build(context, &pod, self.worker.ip, container, program, &self.mounts) {
                Ok(command) => {
                    return Some(Target {
                        container: Arc::new(container.clone()),
                        ip: self.worker.ip,
                        command: Arc::new(command),
                        rewrite: Arc::clone(&self.mounts),
                        processes: Arc::clone(&context.processes),
                    });
                }
                Err(message) => {
                    if told.as_ref() != Some(&message) {
                        self.event(true, "Failed", format!("Error: {message}"));
                        self.wait_as("CreateContainerConfigError", Some(message.clone()));
                        told = Some(message);
                    }
                }
            }
            tokio::select! {
                _ = self.worker.stopped() => return None,
                result = changed.changed() => result.ok()?,
            }
        }
    }

    /// One run of the program, from start to end.
    async fn run_once(&self, container: &Container, target: &Target) -> Ended {
        let pod = self.worker.pod();
        let restarts = self.worker.record(&self.name).map_or(0, |record| record.restarts);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let id = format!("playground://{uid}/{}/{restarts}", self.name);
        let path = logs::path(
            &self.worker.context.config.root,
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default(),
            &self.name,
        );
        let process = self.start(target, &path, restarts > 0);
        let running = logs::Running::mark(&path);
        let since = Timestamp::now();
        let (mut process, recorder) = match process {
            Ok(started) => started,
            Err(error) => {
                let message = format!("failed to start {}: {error}", target.command.program.display());
                self.event(true, "Failed", format!("Error: {message}"));
                return Ended {
                    code: 128,
                    reason: "StartError".to_owned(),
                    message: Some(message),
                    started: None,
                    finished: since,
                    id: Some(id),
                };
            }
        };
        let image = container.image.clone().unwrap_or_default();
        let probed = container.readiness_probe.is_some() || container.startup_probe.is_some();
        self.worker.update(&self.name, |record| {
            record.state = State::Running { since };
            record.started = container.startup_probe.is_none() && container.lifecycle.is_none();
            record.ready = record.started && !probed;
            record.id = Some(id.clone());
            record.image_id = format!("playground://{image}");
        });
        self.event(false, "Started", format!("Started container {}", self.name));
        tracing::debug!(container = self.name, process = process.id(), "started");
        let _measured = self.worker.context.config.usage.track(
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default(),
            &self.name,
            process.id(),
        );
        let _reachable = self.worker.context.config.sessions.track(
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default(),
            &self.name,
            target,
        );
        let exit = self.attend(container, target, &mut process).await;
        // The last words are in the pipe still; a process that has left the group may hold it open for ever.
        if tokio::time::timeout(LAST_WORDS, recorder).await.is_err() {
            tracing::debug!(
                container = self.name,
                "somebody outlives the container and holds its output open"
            );
        }
        drop(running);
        let tail = (exit.code != 0
            && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"))
        .then(|| logs::tail(&path, 2048))
        .flatten();
        Ended {
            code: exit.code,
            reason: if exit.code == 0 { "Completed" } else { "Error" }.to_owned(),
            message: tail,
            started: Some(since),
            finished: Timestamp::now(),
            id: Some(id),
        }
    }

    /// Starts the program, with the task that writes down its output.
    fn start(
        &self,
        target: &Target,
        log: &std::path::Path,
        keep: bool,
    ) -> std::io::Result<(Process, tokio::task::JoinHandle<()>)> {
        let file = logs::create(log, keep)?;
        let (reader, writer) = std::io::pipe()?;
        let process = self.worker.context.processes.start(&target.command, Streams::joined(writer)?)?;
        Ok((process, tokio::spawn(logs::record(reader, file)?)))
    }

    /// Watches over a running process until its end.
    async fn attend(&self, container: &Container, target: &Target, process: &mut Process) -> Exit {
        let unhealthy = tokio::select! {
            exit = process.wait() => return exit,
            stop = self.worker.stopped() => Err(stop),
            message = self.probe(container, target) => Ok(message),
        };
        match unhealthy {
            Ok((message, grace)) => {
                self.event(false, "Killing", message);
                let stop = Stop { deadline: Instant::now() + grace };
                self.end(container, target, process, stop).await
            }
            Err(stop) => {
                self.event(false, "Killing", format!("Stopping container {}", self.name));
                self.end(container, target, process, stop).await
            }
        }
    }

    /// preStop, then the stop signal, then patience, then SIGKILL.
    async fn end(&self, container: &Container, target: &Target, process: &mut Process, stop: Stop) -> Exit {
        let lifecycle = container.lifecycle.as_ref();
        if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
            tokio::select! {
                answer = target.handle(handler) => {
                    if let Answer::Failure(message) | Answer::Refused(message) = answer {
                        self.event(true, "FailedPreStopHook", message);
                    }
                }
                () = self.out_of_patience(stop) => {}
                exit = process.wait() => return exit,
            }
        }
        let signal = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.as_deref()).and_then(signal_named);
        process.signal(signal.unwrap_or(Signal::TERM));
        tokio::select! {
            exit = process.wait() => return exit,
            () = self.out_of_patience(stop) => {}
        }
        process.signal(Signal::KILL);
        process.wait().await
    }

    /// Waits until the deadline, or an earlier one that is ordered meanwhile.
    async fn out_of_patience(&self, stop: Stop) {
        let mut orders = self.worker.stop.subscribe();
        let mut deadline = stop.deadline;
        loop {
            if let Some(newer) = *orders.borrow_and_update() {
                deadline = deadline.min(newer.deadline);
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                changed = orders.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Probes until the container has to be killed; returns why, and how much time it has to end.
    async fn probe(&self, container: &Container, target: &Target) -> (String, Duration) {
        let grace = |probe: &Probe| {
            let spec = self.worker.pod().spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            let seconds = probe.termination_grace_period_seconds.or(spec).unwrap_or(30);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(30))
        };
        let lifecycle = container.lifecycle.as_ref();
        if let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())
            && let Answer::Failure(message) | Answer::Refused(message) = target.handle(handler).await
        {
            self.event(true, "FailedPostStartHook", message);
            return ("FailedPostStartHook".to_owned(), Duration::from_secs(30));
        }
        if let Some(probe) = &container.startup_probe
            && !self.ask(target, probe, "Startup", true, |_| {}, true).await
        {
            return (
                format!("Container {} failed startup probe, will be restarted", self.name),
                grace(probe),
            );
        }
        let ready_at_once = container.readiness_probe.is_none();
        self.worker.update(&self.name, |record| {
            record.started = true;
            record.ready |= ready_at_once;
        });
        let eager = container.startup_probe.is_none();
        let readiness = async {
            if let Some(probe) = &container.readiness_probe {
                let tell = |ready| self.worker.update(&self.name, |record| record.ready = ready);
                self.ask(target, probe, "Readiness", eager, tell, false).await;
            }
            std::future::pending().await
        };
        let liveness = async {
            match &container.liveness_probe {
                Some(probe) => loop {
                    if !self.ask(target, probe, "Liveness", eager, |_| {}, false).await {
                        return grace(probe);
                    }
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            grace = liveness => {
                (format!("Container {} failed liveness probe, will be restarted", self.name), grace)
            }
            never = readiness => never,
        }
    }

    /// Asks again and again and tells every change of the verdict. Returns true at the first success if that is
    /// all that is wanted, false when a startup or liveness probe has failed.
    async fn ask(
        &self,
        target: &Target,
        probe: &Probe,
        kind: &str,
        eager: bool,
        tell: impl Fn(bool),
        until_success: bool,
    ) -> bool {
        let timing = Timing::of(probe);
        let mut verdict = Verdict::new(timing, eager);
        let mut told = String::new();
        tokio::time::sleep(timing.initial_delay).await;
        loop {
            let asked = Instant::now();
            let answer = target.probe(probe, timing.timeout).await;
            let (changed, pause) = verdict.record(&answer);
            if let Answer::Failure(message) = &answer
                && told != *message
            {
                self.event(true, "Unhealthy", format!("{kind} probe failed: {message}"));
                told.clone_from(message);
            }
            if let Some(healthy) = changed {
                tell(healthy);
                match (kind, healthy) {
                    (_, true) if until_success => return true,
                    ("Readiness", _) | (_, true) => {}
                    (_, false) => return false,
                }
            }
            // Counted from one question to the next, as kubelet's ticker does.
            tokio::time::sleep_until(asked + pause).await;
        }
    }

    /// Waits before a restart; false if the pod has to go meanwhile.
    async fn pause_before_restart(&self, pause: Duration, ended: Ended) -> bool {
        let pod = self.worker.pod();
        if !pause.is_zero() {
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                readable(pause),
                self.name,
                pod.metadata.name.as_deref().unwrap_or_default(),
                pod.metadata.namespace.as_deref().unwrap_or_default(),
                pod.metadata.uid.as_deref().unwrap_or_default(),
            );
            self.event(true, "BackOff", format!("Back-off restarting failed container {}", self.name));
            self.worker.update(&self.name, |record| {
                record.state =
                    State::Waiting { reason: "CrashLoopBackOff".to_owned(), message: Some(message) };
                record.last = Some(ended.clone());
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.worker.stopped() => {
                    self.worker.update(&self.name, |record| record.state = State::Terminated(ended));
                    return false;
                }
            }
        }
        self.worker.update(&self.name, |record| {
            record.last = Some(match &record.state {
                State::Terminated(ended) => ended.clone(),
                _ => ended,
            });
            record.restarts = record.restarts.saturating_add(1);
        });
        true
    }
}

/// A pause as kubelet writes it: `10s`, `1m20s`, `5m0s`.
fn readable(pause: Duration) -> String {
    let seconds = pause.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
