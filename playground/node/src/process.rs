//! Process groups: started, signalled, and never left behind.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::ExitStatusExt;

/// The variable in every process of a node that names the node's folder, by which [`crate::reap`] finds them.
pub(crate) const MARKER: &str = "PLAYGROUND_NODE_ROOT";

/// Waits for the end of its input, which is the end of the node however it came, then kills what still runs.
const WATCHDOG: &str = r#"trap '' INT TERM HUP
while read -r _; do :; done
while read -r group; do kill -9 -"$group"; done <"$1" 2>/dev/null"#;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directory: PathBuf,
}

/// What a process reads from and writes to.
pub(crate) struct Streams {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl Streams {
    /// Nothing to read, and nobody who listens.
    pub fn none() -> Streams {
        Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }

    /// Pipes for everything; input only if it is wanted.
    pub fn piped(input: bool) -> Streams {
        let stdin = if input { Stdio::piped() } else { Stdio::null() };
        Streams { stdin, stdout: Stdio::piped(), stderr: Stdio::piped() }
    }

    /// Nothing to read, and both kinds of output to one place, in the order in which they come.
    pub fn joined(output: std::io::PipeWriter) -> io::Result<Streams> {
        Ok(Streams { stdin: Stdio::null(), stdout: output.try_clone()?.into(), stderr: output.into() })
    }
}

/// All process groups of a node. They are listed in a file, and a small shell process kills those in the list when
/// the node dies without having ended them itself, even by SIGKILL. (The kernel's parent-death signal would need
/// unsafe code, and does not reach grandchildren.)
pub(crate) struct Processes {
    root: PathBuf,
    groups: Mutex<BTreeSet<i32>>,
    /// Its standard input is held open as long as this lives.
    watchdog: std::process::Child,
}

impl Processes {
    pub fn new(root: &Path) -> io::Result<Processes> {
        use std::os::unix::process::CommandExt;
        let list = list_path(root);
        std::fs::write(&list, "")?;
        let watchdog = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(WATCHDOG)
            .arg("watchdog")
            .arg(&list)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Away from the terminal's Ctrl-C.
            .process_group(0)
            .spawn()?;
        Ok(Processes { root: root.to_owned(), groups: Mutex::default(), watchdog })
    }

    /// Starts a process as the leader of a new group.
    pub fn start(self: &Arc<Self>, command: &Command, streams: Streams) -> io::Result<Process> {
        // Held while the process starts, so that the list never lacks one for long.
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = tokio::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .env(MARKER, &self.root)
            .current_dir(&command.directory)
            .stdin(streams.stdin)
            .stdout(streams.stdout)
            .stderr(streams.stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let Some((number, group)) = id.and_then(|id| Some((id, Pid::from_raw(id)?))) else {
            let _ = child.start_kill();
            return Err(io::Error::other("the process ended before it had an id"));
        };
        groups.insert(number);
        self.write_list(&groups)?;
        drop(groups);
        Ok(Process { child, group, number, processes: Arc::clone(self), ended: false })
    }

    fn forget(&self, number: i32) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.remove(&number);
        if let Err(error) = self.write_list(&groups) {
            tracing::warn!(%error, "the list of processes is out of date");
        }
    }

    fn write_list(&self, groups: &BTreeSet<i32>) -> io::Result<()> {
        let text: String = groups.iter().map(|group| format!("{group}\n")).collect();
        let (path, next) = (list_path(&self.root), self.root.join("pids.next"));
        std::fs::write(&next, text)?;
        std::fs::rename(next, path)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // The end of its input makes the watchdog kill what is left and end.
        drop(self.watchdog.stdin.take());
        if let Err(error) = self.watchdog.wait() {
            tracing::warn!(%error, "the watchdog could not be waited for");
        }
    }
}

fn list_path(root: &Path) -> PathBuf {
    root.join("pids")
}

/// A running process group. Dropping it kills the whole group.
pub(crate) struct Process {
    child: tokio::process::Child,
    group: Pid,
    number: i32,
    processes: Arc<Processes>,
    ended: bool,
}

impl Process {
    /// The leader's process id.
    pub fn id(&self) -> i32 {
        self.number
    }

    /// Its ends of pipes, where it was started with pipes: input, output, errors.
    pub fn take_pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the leader; what it started and left is killed then, as with the first process of a container.
    pub async fn wait(&mut self) -> Exit {
        let status = self.child.wait().await;
        self.end();
        match status {
            Ok(status) => Exit::from(status),
            Err(error) => {
                tracing::warn!(%error, "a process could not be waited for");
                Exit { code: 255 }
            }
        }
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) {
        if !self.ended
            && let Err(error) = kill_process_group(self.group, signal)
        {
            tracing::debug!(%error, group = self.number, "signal not delivered");
        }
    }

    fn end(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
            self.ended = true;
            self.processes.forget(self.number);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code; 128 plus the signal's number when a signal ended it.
    pub code: i32,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
        Exit { code }
    }
}

/// Kills every process that a node with this folder has started and not ended, for instance because it was killed
/// itself together with its watchdog. Returns how many there were.
///
/// Processes are recognised by a marker in their environment, so another program's processes are never touched.
///
/// # Errors
/// `/proc` cannot be read.
pub fn reap(root: &Path) -> io::Result<usize> {
    let marker = format!("{MARKER}={}", absolute(root)?.display());
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // Processes of other users, and such that end meanwhile, cannot be read.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
            && rustix::process::kill_process(pid, Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    Ok(killed)
}

/// The folder's path from the root of the file system, whether it exists or not.
pub(crate) fn absolute(root: &Path) -> io::Result<PathBuf> {
    root.canonicalize().or_else(|_| std::path::absolute(root))
}

/// The signal of that name as `lifecycle.stopSignal` writes it.
pub(crate) fn signal_named(name: &str) -> Option<Signal> {
    Some(match name {
        "SIGTERM" => Signal::TERM,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGHUP" => Signal::HUP,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGKILL" => Signal::KILL,
        _ => return None,
    })
}
