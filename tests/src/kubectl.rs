//! A stock kubectl, where there is one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A kubectl and the cluster that it talks to.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Discovery is cached on disk per server address; a test has a cache of its own.
    cache: PathBuf,
}

impl Kubectl {
    /// The kubectl named by `KUBECTL`, or the one on `PATH`.
    pub fn find(kubeconfig: &Path, cache: &Path) -> Option<Self> {
        let named = std::env::var_os("KUBECTL").map(PathBuf::from);
        let program = named.or_else(|| {
            let path: OsString = std::env::var_os("PATH")?;
            std::env::split_paths(&path)
                .map(|folder| folder.join("kubectl"))
                .find(|program| program.is_file())
        })?;
        Some(Self { program, kubeconfig: kubeconfig.to_owned(), cache: cache.to_owned() })
    }

    /// Runs it, and returns what it said whatever its exit code.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub async fn say(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<Said> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and returns its output.
    ///
    /// # Errors
    ///
    /// When it fails; with what it said.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with(arguments, None).await
    }

    /// Runs it with standard input and returns its output.
    ///
    /// # Errors
    ///
    /// When it fails; with what it said.
    pub async fn run_with(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let said = self.say(arguments, input).await?;
        anyhow::ensure!(
            said.code == 0,
            "kubectl {} ended with {}:\n{}{}",
            arguments.join(" "),
            said.code,
            said.out,
            said.err
        );
        Ok(said.out)
    }
}
