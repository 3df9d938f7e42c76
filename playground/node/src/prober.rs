//! Asks a container how it is: HTTP, TCP or a command.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::probe::Answer;
use crate::process::{Command, Processes, Streams};

/// Where and how to ask.
#[derive(Clone)]
pub(crate) struct Target {
    pub container: Arc<Container>,
    pub ip: Ipv4Addr,
    /// The container's program, environment and directory, for commands.
    pub command: Arc<Command>,
    pub rewrite: Arc<crate::rewrite::Mounts>,
    pub processes: Arc<Processes>,
}

impl Target {
    /// Runs one probe, at most for `timeout`.
    pub async fn probe(&self, probe: &Probe, timeout: std::time::Duration) -> Answer {
        let ask = async {
            if let Some(action) = &probe.http_get {
                self.http(action).await
            } else if let Some(action) = &probe.tcp_socket {
                self.tcp(&action.port, action.host.as_deref()).await
            } else if let Some(action) = &probe.exec {
                self.exec(action).await
            } else {
                Answer::Failure("the probe is of a kind that this node does not know".to_owned())
            }
        };
        match tokio::time::timeout(timeout, ask).await {
            Ok(answer) => answer,
            Err(_) => Answer::Failure(format!("no answer within {} s", timeout.as_secs())),
        }
    }

    /// Runs a lifecycle handler to its end.
    pub async fn handle(&self, handler: &LifecycleHandler) -> Answer {
        if let Some(action) = &handler.exec {
            self.exec(action).await
        } else if let Some(action) = &handler.http_get {
            self.http(action).await
        } else if let Some(action) = &handler.tcp_socket {
            self.tcp(&action.port, action.host.as_deref()).await
        } else if let Some(action) = &handler.sleep {
            let seconds = u64::try_from(action.seconds).unwrap_or(0);
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            Answer::Success
        } else {
            Answer::Success
        }
    }

    fn address(&self, port: &IntOrString, host: Option<&str>) -> Result<SocketAddr, Answer> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => name.parse().ok().or_else(|| {
                let ports = self.container.ports.iter().flatten();
                ports
                    .into_iter()
                    .find(|port| port.name.as_ref() == Some(name))
                    .map(|port| port.container_port)
            }),
        };
        let port = number
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| Answer::Failure(format!("the container has no port {port:?}")))?;
        let ip = match host.filter(|host| !host.is_empty()) {
            None | Some("localhost") => IpAddr::V4(self.ip),
            Some(host) => {
                host.parse().map_err(|_| Answer::Failure(format!("the host {host} is not an IP address")))?
            }
        };
        Ok(SocketAddr::new(ip, port))
    }

    async fn tcp(&self, port: &IntOrString, host: Option<&str>) -> Answer {
        match self.address(port, host) {
            Ok(address) => match TcpStream::connect(address).await {
                Ok(_) => Answer::Success,
                Err(error) => unconnected(address, &error),
            },
            Err(answer) => answer,
        }
    }

    async fn http(&self, action: &HTTPGetAction) -> Answer {
        if action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Answer::Failure(
                "HTTPS probes are not supported by this node; use HTTP or TCP".to_owned(),
            );
        }
        let address = match self.address(&action.port, action.host.as_deref()) {
            Ok(address) => address,
            Err(answer) => return answer,
        };
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => return unconnected(address, &error),
        };
        let path = action.path.as_deref().filter(|path| path.starts_with('/')).unwrap_or("/");
        let mut request = http::Request::builder()
            .uri(path)
            .header(http::header::USER_AGENT, "kube-probe/1.36")
            .header(http::header::ACCEPT, "*/*")
            .header(http::header::CONNECTION, "close");
        let mut host = address.to_string();
        for header in action.http_headers.iter().flatten() {
            if header.name.eq_ignore_ascii_case("host") {
                host.clone_from(&header.value);
            } else {
                request = request.header(&header.name, &header.value);
            }
        }
        let request = match request.header(http::header::HOST, host).body(Empty::<Bytes>::new()) {
            Ok(request) => request,
            Err(error) => return Answer::Failure(format!("the probe is not a valid request: {error}")),
        };
        let answer = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let exchange = sender.send_request(request);
            let mut exchange = std::pin::pin!(exchange);
            let mut connection = std::pin::pin!(connection);
            // The connection makes the exchange proceed; it may end with the answer.
            tokio::select! {
                biased;
                answer = &mut exchange => answer,
                _ = &mut connection => exchange.await,
            }
        };
        match answer.await {
            Ok(response) if (200..400).contains(&response.status().as_u16()) => Answer::Success,
            Ok(response) => {
                Answer::Failure(format!("HTTP probe failed with statuscode: {}", response.status().as_u16()))
            }
            Err(error) => Answer::Failure(format!("Get \"http://{address}{path}\": {error}")),
        }
    }

    async fn exec(&self, action: &ExecAction) -> Answer {
        let words: Vec<String> =
            action.command.iter().flatten().map(|word| self.rewrite.rewrite(word)).collect();
        let Some((program, args)) = words.split_first() else { return Answer::Success };
        let command = Command {
            program: program.into(),
            args: args.to_vec(),
            env: self.command.env.clone(),
            directory: self.command.directory.clone(),
        };
        // Dropped at a timeout, which kills its group.
        match self.processes.start(&command, Streams::none()) {
            Ok(mut process) => match process.wait().await.code {
                0 => Answer::Success,
                code => Answer::Failure(format!("command {program} ended with exit code {code}")),
            },
            Err(error) => Answer::Failure(format!("command {program} could not be started: {error}")),
        }
    }
}

fn unconnected(address: SocketAddr, error: &io::Error) -> Answer {
    let message = format!("dial tcp {address}: {error}");
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Answer::Refused(message)
    } else {
        Answer::Failure(message)
    }
}
