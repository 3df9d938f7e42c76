//! `kubectl exec`, `attach` and `port-forward`: the API server asks, the node does.

use std::path::PathBuf;

use apiserver::{CommandRequest, PodStreams, Session};
use futures::future::{self, BoxFuture};
use futures::{FutureExt, StreamExt};
use node::{ExecOptions, LogOptions, Logs, Sessions};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Bytes of output that wait for whoever is attached.
const BUFFER: usize = 64 * 1024;

/// The containers of a node.
#[derive(Debug, Clone)]
pub struct NodeStreams {
    sessions: Sessions,
    logs: Logs,
}

impl NodeStreams {
    /// The containers of the node that has these sessions and this folder.
    pub fn new(sessions: Sessions, root: impl Into<PathBuf>) -> Self {
        Self { sessions, logs: Logs::new(root) }
    }

    fn exec(&self, request: &CommandRequest) -> Result<Session, String> {
        let CommandRequest { namespace, pod, container, command, stdin, tty, size } = request;
        let how = ExecOptions { stdin: *stdin, tty: *tty, size: *size };
        let mut exec = self.sessions.exec(namespace, pod, container, command, how)?;
        if let Some(terminal) = exec.terminal.take() {
            let (input, size) = (terminal.input, terminal.size);
            return Ok(Session {
                stdin: stdin.then(|| Box::pin(input) as _),
                stdout: Some(Box::pin(terminal.output)),
                stderr: None,
                resize: Some(Box::new(move |width, height| size.set(width, height))),
                end: async move { exec.end().await }.boxed(),
            });
        }
        Ok(Session {
            stdin: exec.stdin.take().map(|pipe| Box::pin(pipe) as _),
            stdout: exec.stdout.take().map(|pipe| Box::pin(pipe) as _),
            stderr: exec.stderr.take().map(|pipe| Box::pin(pipe) as _),
            resize: None,
            end: async move { exec.end().await }.boxed(),
        })
    }

    /// What a container says from now on. Containers have no input here.
    fn attach(&self, request: &CommandRequest) -> Result<Session, String> {
        let options = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
        let mut log = self.logs.open(&request.namespace, &request.pod, &request.container, options)?;
        let (mut sink, output) = tokio::io::duplex(BUFFER);
        let end = async move {
            while let Some(bytes) = log.next().await {
                if sink.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            0
        };
        Ok(Session {
            stdin: None,
            stdout: Some(Box::pin(output)),
            stderr: None,
            resize: None,
            end: end.boxed(),
        })
    }
}

impl PodStreams for NodeStreams {
    fn open(&self, request: CommandRequest) -> BoxFuture<'static, Result<Session, String>> {
        let opened = if request.command.is_empty() { self.attach(&request) } else { self.exec(&request) };
        future::ready(opened).boxed()
    }

    fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<TcpStream, String>> {
        let address = self.sessions.address(namespace, pod);
        let pod = pod.to_owned();
        async move {
            let address = address.ok_or_else(|| format!("pod {pod} does not run"))?;
            TcpStream::connect((address, port)).await.map_err(|error| {
                format!("error forwarding port {port} to pod {pod}: dial tcp {address}:{port}: {error}")
            })
        }
        .boxed()
    }
}
