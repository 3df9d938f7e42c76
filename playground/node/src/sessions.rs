//! Programs that people run in containers, and the way to the ports of pods.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use crate::prober::Target;
use crate::process::{Command, Process, Streams};
use crate::terminal::{self, Terminal};

/// Namespace, pod and container.
type Place = (String, String, String);

/// The running containers of a node. It can exist before the node, which is told of it by its configuration.
#[derive(Clone, Default)]
pub struct Sessions {
    running: Arc<Mutex<HashMap<Place, (u64, Target)>>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// A container runs as long as this lives.
pub(crate) struct Tracked {
    sessions: Sessions,
    place: Place,
    number: u64,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut running = self.sessions.running();
        // Another run of the container may have taken the place.
        if running.get(&self.place).is_some_and(|(number, _)| *number == self.number) {
            running.remove(&self.place);
        }
    }
}

/// How a program is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// With input; otherwise it reads nothing.
    pub stdin: bool,
    /// At a terminal.
    pub tty: bool,
    /// The terminal's width and height in characters.
    pub size: Option<(u16, u16)>,
}

/// A program that somebody runs in a container. Dropping it ends the program.
pub struct Exec {
    /// Its input, if that was wanted.
    pub stdin: Option<ChildStdin>,
    /// Its output, unless it is at a terminal.
    pub stdout: Option<ChildStdout>,
    /// What it says of errors, unless it is at a terminal.
    pub stderr: Option<ChildStderr>,
    /// Its terminal, if it is at one.
    pub terminal: Option<Terminal>,
    process: Process,
}

impl Exec {
    /// Waits for the end; returns the exit code.
    pub async fn end(&mut self) -> i32 {
        self.process.wait().await.code
    }
}

impl Sessions {
    fn running(&self) -> MutexGuard<'_, HashMap<Place, (u64, Target)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a container runs.
    pub(crate) fn track(&self, namespace: &str, pod: &str, container: &str, target: &Target) -> Tracked {
        let place = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let mut running = self.running();
        let number = running.get(&place).map_or(0, |(number, _)| number.wrapping_add(1));
        running.insert(place.clone(), (number, target.clone()));
        drop(running);
        Tracked { sessions: self.clone(), place, number }
    }

    /// Runs a program in a container, with the environment and folder of the container's own.
    ///
    /// # Errors
    /// A sentence that says why not: the container does not run, there is no such program.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[String],
        how: ExecOptions,
    ) -> Result<Exec, String> {
        let place = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let found = self.running().get(&place).map(|(_, target)| target.clone());
        let target = found.ok_or_else(|| format!("container not found (\"{container}\")"))?;
        let words: Vec<String> = command.iter().map(|word| target.rewrite.rewrite(word)).collect();
        let (program, args) = words.split_first().ok_or("no program was named")?;
        let command = Command {
            program: PathBuf::from(program),
            args: args.to_vec(),
            env: target.command.env.clone(),
            directory: target.command.directory.clone(),
        };
        let (command, streams, terminal) = if how.tty {
            let opened = terminal::open().map_err(|error| format!("there is no terminal: {error}"));
            let (terminal, streams) = opened?;
            if let Some((width, height)) = how.size {
                terminal.size.set(width, height);
            }
            (terminal::leading(command), streams, Some(terminal))
        } else {
            (command, Streams::piped(how.stdin), None)
        };
        let started = target.processes.start(&command, streams);
        let mut process = started.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
                _ => error.to_string(),
            };
            format!("error executing command in container: exec: {program:?}: {why}")
        })?;
        let (stdin, stdout, stderr) = process.take_pipes();
        Ok(Exec { stdin, stdout, stderr, terminal, process })
    }

    /// The address of a pod that runs.
    pub fn address(&self, namespace: &str, pod: &str) -> Option<Ipv4Addr> {
        let running = self.running();
        let mut of_pod = running.iter().filter(|((space, name, _), _)| space == namespace && name == pod);
        of_pod.next().map(|(_, (_, target))| target.ip)
    }
}
