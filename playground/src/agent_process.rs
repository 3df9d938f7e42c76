//! The agent as a process of its own: the same program and the same code path as in a cluster.
//!
//! It ends with its parent, however that ends: it reads a pipe that only the parent holds open, and the
//! kernel closes that.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

use crate::http_client;

/// How long the agent may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Which Slack the agent talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlackTarget {
    /// A local endpoint.
    Local {
        /// What stands for `https://slack.com`.
        url: String,
        /// Its bot token.
        token: String,
        /// The channel.
        channel: String,
    },
    /// The real one, as the environment variables `SLACK_BOT_TOKEN` and `SLACK_CHANNEL`, or
    /// `SLACK_WEBHOOK_URL`, say; the agent reads them itself.
    Real,
    /// None.
    Nowhere,
}

impl SlackTarget {
    /// The real Slack, if the environment variables name one.
    pub fn from_environment() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        ((set("SLACK_BOT_TOKEN") && set("SLACK_CHANNEL")) || set("SLACK_WEBHOOK_URL")).then_some(Self::Real)
    }
}

/// How the agent is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program `holdfast`.
    pub program: PathBuf,
    /// The cluster.
    pub kubeconfig: PathBuf,
    /// Where it keeps mirrors of repositories and evidence; kept over restarts.
    pub data_dir: PathBuf,
    /// Where its log goes; appended to over restarts.
    pub log: PathBuf,
    /// Address of its web page and metrics.
    pub http: SocketAddr,
    /// Where messages go.
    pub slack: SlackTarget,
    /// Whether the log is for programs (JSON) rather than for people.
    pub json_log: bool,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program does not start.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The log cannot be written.
    #[error("cannot write the agent's log {}: {source}", log.display())]
    Log {
        /// The log.
        log: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the agent ended with {status} before it was ready; its log is {}", log.display())]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The log.
        log: PathBuf,
    },
    /// It did not become ready.
    #[error("the agent was not ready within {} s; its log is {}", within.as_secs(), log.display())]
    NotReady {
        /// How long it had.
        within: Duration,
        /// The log.
        log: PathBuf,
    },
    /// The process cannot be waited for.
    #[error("cannot wait for the agent: {0}")]
    Wait(#[source] io::Error),
    /// No HTTP client can be built.
    #[error("cannot ask the agent whether it is ready: {0}")]
    Client(#[source] reqwest::Error),
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct AgentProcess {
    settings: Settings,
    child: Child,
    /// The pipe whose end the agent waits for.
    stdin: Option<ChildStdin>,
}

impl AgentProcess {
    /// Starts the agent.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(settings: Settings) -> Result<Self, Error> {
        let log_error = |source| Error::Log { log: settings.log.clone(), source };
        let log = OpenOptions::new().create(true).append(true).open(&settings.log).map_err(log_error)?;
        let mut command = Command::new(&settings.program);
        command
            .arg("agent")
            .arg("--kubeconfig")
            .arg(&settings.kubeconfig)
            .arg("--data-dir")
            .arg(&settings.data_dir)
            .arg("--http")
            .arg(settings.http.to_string())
            .arg("--until-stdin-closes")
            .args(["--log-format", if settings.json_log { "json" } else { "text" }])
            .args(&settings.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(log_error)?)
            .stderr(log)
            .kill_on_drop(true)
            // What the agent is told is told here, not by the person's own cluster or shell.
            .env_remove("KUBECONFIG")
            .env_remove("POD_NAMESPACE")
            // One name over restarts: the next agent takes its own lease back at once.
            .env("POD_NAME", "holdfast-playground");
        // Ctrl-C goes to the terminal's foreground group; the agent stops when the parent says so.
        #[cfg(unix)]
        command.process_group(0);
        match &settings.slack {
            SlackTarget::Local { url, token, channel } => {
                command
                    .env("SLACK_API_URL", url)
                    .env("SLACK_BOT_TOKEN", token)
                    .env("SLACK_CHANNEL", channel)
                    .env_remove("SLACK_WEBHOOK_URL");
            }
            SlackTarget::Real => {}
            SlackTarget::Nowhere => {
                for name in ["SLACK_API_URL", "SLACK_BOT_TOKEN", "SLACK_CHANNEL", "SLACK_WEBHOOK_URL"] {
                    command.env_remove(name);
                }
            }
        }
        let mut child =
            command.spawn().map_err(|source| Error::Spawn { program: settings.program.clone(), source })?;
        let stdin = child.stdin.take();
        Ok(Self { settings, child, stdin })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it was started.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Address of its web page, metrics and probes.
    pub fn url(&self) -> String {
        format!("http://{}", self.settings.http)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// When it ends, or is not ready `within` the time.
    pub async fn ready(&mut self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        let client = http_client::builder().timeout(Duration::from_secs(2)).build().map_err(Error::Client)?;
        let url = format!("{}/readyz", self.url());
        // A process cannot be watched for an open port: it is asked, as the kubelet asks.
        let mut ticks = tokio::time::interval(Duration::from_millis(25));
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    let status = status.map_err(Error::Wait)?;
                    return Err(Error::Ended { status, log: self.settings.log.clone() });
                }
                _ = ticks.tick() => {}
            }
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::NotReady { within, log: self.settings.log.clone() });
            }
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// When the process cannot be waited for.
    pub async fn ended(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().await.map_err(Error::Wait)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the process cannot be killed.
    pub async fn kill(mut self) -> Result<Settings, Error> {
        self.child.kill().await.map_err(Error::Wait)?;
        Ok(self.settings)
    }

    /// Asks it to stop and waits; kills it after a few seconds.
    ///
    /// # Errors
    ///
    /// When the process cannot be killed.
    pub async fn stop(mut self) -> Result<Settings, Error> {
        drop(self.stdin.take());
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(ended) => {
                ended.map_err(Error::Wait)?;
            }
            Err(_) => self.child.kill().await.map_err(Error::Wait)?,
        }
        Ok(self.settings)
    }
}

/// A free port of the loopback interface. Another program may take it before it is used, which then says so.
///
/// # Errors
///
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The last lines of a log, for a message about what went wrong.
pub fn tail(log: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.take(64 * 1024).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path, program: &str) -> Settings {
        Settings {
            program: program.into(),
            kubeconfig: folder.join("kubeconfig"),
            data_dir: folder.join("data"),
            log: folder.join("agent.log"),
            http: free_address().unwrap(),
            slack: SlackTarget::Nowhere,
            json_log: false,
            arguments: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_agent_that_ends_at_once_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = AgentProcess::spawn(settings(folder.path(), "false")).unwrap();
        let error = agent.ready(Duration::from_secs(10)).await.unwrap_err();
        assert!(matches!(error, Error::Ended { .. }), "{error}");
        assert!(error.to_string().contains("agent.log"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = AgentProcess::spawn(settings(folder.path(), "/nowhere/holdfast")).unwrap_err();
        assert!(error.to_string().starts_with("cannot start /nowhere/holdfast"), "{error}");
    }

    #[test]
    fn a_tail_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2), "b\nc");
        assert_eq!(tail(&folder.path().join("none"), 2), "");
    }
}
