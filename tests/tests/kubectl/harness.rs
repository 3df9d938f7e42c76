//! A cluster, a namespace of one's own in it, and a shell with a kubectl.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use playground::cluster::Cluster;
use playground::programs::Programs;
use playground::shop;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::script::{self, Entry, Step};

/// Longest time for one command: a machine under load takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a shell finds the kubectl of its test.
const PREAMBLE: &str = r#"kubectl() { command "$KUBECTL" --cache-dir "$KUBECTL_CACHE" --namespace "$NAMESPACE" "$@"; }
"#;

/// A namespace on some cluster, and a folder for files.
#[derive(Debug)]
pub struct Shell {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    folder: TempDir,
}

impl Shell {
    /// Makes the namespace. None where there is no kubectl.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub async fn open(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let shell = Self {
            program,
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.to_owned(),
            folder: tempfile::tempdir()?,
        };
        shell.expect("kubectl create namespace $NAMESPACE").await?;
        // Pods are refused before it is there.
        let account = "kubectl wait serviceaccount/default --for=create --timeout=60s";
        shell.expect(account).await?;
        Ok(Some(shell))
    }

    /// The minor version of the kubectl.
    ///
    /// # Errors
    ///
    /// When it does not tell.
    pub async fn version(&self) -> anyhow::Result<u32> {
        let said = self.expect("kubectl version --client -o json").await?;
        let version: serde_json::Value = serde_json::from_str(&said)?;
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("kubectl tells no version: {said}"))
    }

    /// Runs a script.
    ///
    /// # Errors
    ///
    /// At the first command that says something else than is written down.
    pub async fn run(&self, path: &Path) -> anyhow::Result<()> {
        for entry in script::parse(path)? {
            match entry {
                Entry::File { name, content } => self.write(&name, &content)?,
                Entry::Command(step) => self.step(path, &step).await?,
            }
        }
        Ok(())
    }

    async fn step(&self, path: &Path, step: &Step) -> anyhow::Result<()> {
        let (code, text) = self.say(&step.command).await?;
        let expected: Vec<String> =
            step.says.iter().map(|line| line.replace("<namespace>", &self.namespace)).collect();
        ensure!(
            code == step.code && script::matches(&expected, &script::lines_of(&text)),
            "{}:{}: {}\nexpected (exit {}):\n{}\nsaid (exit {code}):\n{text}",
            path.display(),
            step.line,
            step.command,
            step.code,
            expected.join("\n"),
        );
        Ok(())
    }

    /// Writes a file that commands find by its name.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written to.
    pub fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.path().join(name), content)?)
    }

    /// Runs a command; returns its exit code and what it said on both outputs.
    ///
    /// # Errors
    ///
    /// When it cannot be run, or does not end.
    pub async fn say(&self, command: &str) -> anyhow::Result<(i32, String)> {
        let mut joined = String::from(PREAMBLE);
        joined.push_str("exec 2>&1\n");
        joined.push_str(command);
        let child = self.spawn(&joined)?;
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .with_context(|| format!("{command} has not ended after {PATIENCE:?}"))??;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Runs a command that has to succeed; returns what it said.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub async fn expect(&self, command: &str) -> anyhow::Result<String> {
        let (code, text) = self.say(command).await?;
        ensure!(code == 0, "{command} ended with {code}:\n{text}");
        Ok(text)
    }

    /// Starts a command that goes on; dropping it ends it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&self, command: &str) -> anyhow::Result<Running> {
        // A signal for the shell has to reach kubectl.
        let command = command.replacen(
            "kubectl",
            r#"exec "$KUBECTL" --cache-dir "$KUBECTL_CACHE" --namespace "$NAMESPACE""#,
            1,
        );
        let mut child = self.spawn(&format!("exec 2>&1\n{command}"))?;
        let output = child.stdout.take().context("a command without output")?;
        Ok(Running {
            _child: child,
            lines: BufReader::new(Box::new(output) as Box<dyn AsyncRead + Send + Unpin>),
        })
    }

    fn spawn(&self, script: &str) -> anyhow::Result<Child> {
        let spawned = Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .env("KUBECTL", &self.program)
            .env("KUBECTL_CACHE", self.folder.path().join("cache"))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("NAMESPACE", &self.namespace)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        spawned.context("/bin/sh cannot be started")
    }
}

/// A command that goes on.
pub struct Running {
    _child: Child,
    lines: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Running {
    /// Waits for a line with this text.
    ///
    /// # Errors
    ///
    /// When the command ends before, or says nothing of it for long; with what it said.
    pub async fn line_with(&mut self, text: &str) -> anyhow::Result<String> {
        let mut said = String::new();
        let found = async {
            loop {
                let mut line = String::new();
                if self.lines.read_line(&mut line).await? == 0 {
                    return Ok::<_, std::io::Error>(None);
                }
                if line.contains(text) {
                    return Ok(Some(line));
                }
                said.push_str(&line);
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        match found {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(result) => anyhow::bail!("the command ended without {text:?} ({result:?}); it said:\n{said}"),
            Err(_) => anyhow::bail!("{text:?} was not said within {PATIENCE:?}, but:\n{said}"),
        }
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECTL").map(PathBuf::from);
    named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|program| program.is_file())
    })
}

/// The cluster that the suite runs against: a new embedded one, or the one of `KUBECTL_SUITE_KUBECONFIG`.
pub enum Ground {
    /// Of this test.
    Embedded {
        /// It ends with this value.
        cluster: Box<Cluster>,
        /// Its files.
        folder: TempDir,
    },
    /// Somebody else's, perhaps without a node.
    Given(PathBuf),
}

impl Ground {
    /// Brings it up.
    ///
    /// # Errors
    ///
    /// When the embedded cluster does not start.
    pub async fn start() -> anyhow::Result<Self> {
        if let Some(given) = std::env::var_os("KUBECTL_SUITE_KUBECONFIG") {
            return Ok(Self::Given(given.into()));
        }
        let folder = tempfile::tempdir()?;
        // Pods run a shell, so nothing has to be built for them.
        let shell = PathBuf::from("/bin/sh");
        let programs = Programs { holdfast: shell.clone(), shop: shell, built: false };
        let cluster = Box::new(Cluster::start(folder.path(), &programs).await?);
        Ok(Self::Embedded { cluster, folder })
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        match self {
            Self::Embedded { cluster, .. } => cluster.kubeconfig(),
            Self::Given(path) => path,
        }
    }

    /// Whether the shop's image can run in it.
    pub fn runs_pods(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }

    /// Ends it in order.
    pub async fn stop(self) {
        if let Self::Embedded { cluster, folder } = self {
            cluster.stop().await;
            drop(folder);
        }
    }
}

/// An image that runs wherever pods run; with `command: [/bin/sh, -c, ...]` it does whatever a test needs.
pub const IMAGE: &str = shop::IMAGE;
