//! One run from start to end: everything that is up between the first line and the last.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::agent_process::{self, AgentProcess, SlackTarget};
use crate::cluster::{self, Cluster};
use crate::print::Printer;
use crate::programs::{self, Programs};
use crate::repository::{self, Repository};
use crate::slack::Slack;
use crate::state::{self, State};
use crate::{environment, shop};

/// The channel of the local Slack.
const CHANNEL: &str = "#deploys";
/// How long the agent may take to become ready.
const AGENT_READY: Duration = Duration::from_secs(20);
/// The pause before an agent that ended is started again, as the kubelet's first.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Why a run does not come up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The programs.
    #[error(transparent)]
    Programs(#[from] programs::Error),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] agent_process::Error),
    /// The custom resource.
    #[error(transparent)]
    Environment(#[from] environment::Error),
    /// A port or a thread cannot be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// The folder, the programs and the cluster: what `serve` and the tour both begin with.
#[derive(Debug)]
pub struct Ground {
    /// The folder `.playground`.
    pub state: State,
    /// The programs.
    pub programs: Programs,
    /// The cluster.
    pub cluster: Cluster,
}

impl Ground {
    /// Brings up the cluster in the checkout's folder `.playground`.
    ///
    /// # Errors
    ///
    /// When something does not start; it says what.
    pub async fn start(printer: &Printer, checkout: &Path) -> Result<Self, Error> {
        let state = State::claim(&checkout.join(".playground"))?;
        let begin = Instant::now();
        let programs = tokio::task::spawn_blocking(|| programs::ensure(programs::Selection::Playground))
            .await
            .map_err(|source| Error::Io { what: "the build was given up", source: source.into() })??;
        printer.done(begin.elapsed(), "programs: holdfast (the agent) and shop (what it deploys)");

        let begin = Instant::now();
        let cluster = Cluster::start(state.root(), &programs).await?;
        printer.done(begin.elapsed(), format!("Kubernetes API, controllers and a node at {}", cluster.url()));
        printer.note(format!("export KUBECONFIG={}", cluster.kubeconfig().display()));
        Ok(Self { state, programs, cluster })
    }
}

/// A whole run: ground, repository, Slack and agent.
#[derive(Debug)]
pub struct Session {
    /// The agent, which is started again when it ends.
    pub agent: AgentKeeper,
    /// The local Slack, unless messages go to the real one.
    pub slack: Option<Slack>,
    /// The team's repository.
    pub repository: Repository,
    /// Folder, programs and cluster.
    pub ground: Ground,
}

impl Session {
    /// Brings everything up.
    ///
    /// # Errors
    ///
    /// When something does not start; it says what.
    pub async fn start(printer: &Arc<Printer>, checkout: &Path) -> Result<Self, Error> {
        let ground = Ground::start(printer, checkout).await?;
        let begin = Instant::now();
        let repository =
            Repository::seed(checkout, &ground.state.path("shop.git"), &ground.state.path("shop"))?;
        printer.done(
            begin.elapsed(),
            format!(
                "Git repository {}, with a clone to work in at {}",
                repository.url(),
                shown(repository.work())
            ),
        );

        let (slack, target) = match SlackTarget::from_environment() {
            Some(target) => {
                printer.note("messages go to the real Slack");
                (None, target)
            }
            None => {
                let slack = Slack::start("xoxb-playground")
                    .await
                    .map_err(|source| Error::Io { what: "no port for the local Slack", source })?;
                printer.note(format!("Slack: a local endpoint at {}", slack.url()));
                let target = SlackTarget::Local {
                    url: slack.url(),
                    token: slack.token().to_owned(),
                    channel: CHANNEL.to_owned(),
                };
                (Some(slack), target)
            }
        };

        let begin = Instant::now();
        environment::install(ground.cluster.client()).await?;
        let settings = agent_process::Settings {
            program: ground.programs.holdfast.clone(),
            kubeconfig: ground.cluster.kubeconfig().to_owned(),
            data_dir: ground.state.path("agent"),
            log: ground.state.logs().join("agent.log"),
            http: agent_process::free_address()
                .map_err(|source| Error::Io { what: "no port for the agent", source })?,
            slack: target,
            json_log: false,
            arguments: Vec::new(),
        };
        let agent = AgentKeeper::start(settings, Arc::clone(printer)).await?;
        printer.done(
            begin.elapsed(),
            format!("agent: process {}, {}, log in {}", agent.pid(), agent.url(), shown(agent.log())),
        );
        Ok(Self { agent, slack, repository, ground })
    }

    /// Ends agent, pods and cluster, in this order.
    pub async fn stop(self) {
        self.agent.stop().await;
        self.ground.cluster.stop().await;
    }

    /// What a person can try now.
    pub fn suggestions(&self, printer: &Printer) {
        let kubectl = format!("KUBECONFIG={} kubectl", shown(self.ground.cluster.kubeconfig()));
        let clone = shown(self.repository.work());
        printer.heading("It stays up until Ctrl-C. Things to try:");
        printer.pair("look", format!("{kubectl} get environments,pods -A"));
        printer.pair("shop", self.ground.cluster.ingress_url());
        printer.pair(
            "release",
            format!(
                "edit {clone}/{}, then git -C {clone} commit -am 'Release' && git -C {clone} push",
                shop::KUSTOMIZATION
            ),
        );
        printer.pair(
            "break it",
            "set FAULT_ERROR_PERCENT=40 beside SHOP_VERSION there, change the version, commit, push",
        );
        printer
            .pair("drift", format!("{kubectl} -n {} edit deployment {}", shop::NAMESPACE, shop::DEPLOYMENT));
        printer.pair(
            "kill",
            format!("kill -9 {} (the agent) or any process of the shop: both come back", self.agent.pid()),
        );
        printer.pair("agent", format!("{} (web page), {}", self.agent.url(), shown(self.agent.log())));
        printer
            .pair("evidence", format!("git -C {} log audit/{}", shown(self.repository.bare()), shop::NAME));
    }
}

/// A path as a person types it: from the current folder where that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}

/// Keeps an agent running: what the kubelet does in a cluster.
#[derive(Debug)]
pub struct AgentKeeper {
    url: String,
    log: PathBuf,
    pid: watch::Receiver<u32>,
    stop: mpsc::Sender<()>,
    keeper: JoinHandle<()>,
}

impl AgentKeeper {
    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn start(
        settings: agent_process::Settings,
        printer: Arc<Printer>,
    ) -> Result<Self, agent_process::Error> {
        let mut agent = AgentProcess::spawn(settings)?;
        agent.ready(AGENT_READY).await?;
        let (url, log) = (agent.url(), agent.settings().log.clone());
        let (pid, pids) = watch::channel(agent.pid().unwrap_or_default());
        let (stop, stopped) = mpsc::channel(1);
        let keeper = tokio::spawn(keep(agent, printer, pid, stopped));
        Ok(Self { url, log, pid: pids, stop, keeper })
    }

    /// Address of its web page, metrics and probes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process id of the agent that runs now.
    pub fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    /// Ends the agent.
    pub async fn stop(self) {
        // An error says that the keeper is gone, and its agent with it.
        let _ = self.stop.send(()).await;
        let _ = self.keeper.await;
    }
}

async fn keep(
    mut agent: AgentProcess,
    printer: Arc<Printer>,
    pid: watch::Sender<u32>,
    mut stopped: mpsc::Receiver<()>,
) {
    loop {
        let status = tokio::select! {
            // A closed channel is a dropped keeper: its agent ends too.
            _ = stopped.recv() => {
                if let Err(error) = agent.stop().await {
                    printer.failed(error);
                }
                return;
            }
            status = agent.ended() => status,
        };
        let settings = agent.settings().clone();
        printer.note(format!("the agent ended{}; it is started again", described(status)));
        let restarted = tokio::select! {
            _ = stopped.recv() => return,
            () = tokio::time::sleep(RESTART_AFTER) => AgentProcess::spawn(settings),
        };
        match restarted {
            Ok(next) => {
                pid.send_replace(next.pid().unwrap_or_default());
                agent = next;
            }
            Err(error) => {
                printer.failed(error);
                return;
            }
        }
    }
}

fn described(status: Result<ExitStatus, agent_process::Error>) -> String {
    status.map(|status| format!(" with {status}")).unwrap_or_default()
}
