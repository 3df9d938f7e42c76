//! `pods/exec`, `pods/attach` and `pods/portforward`: byte streams between a client and a pod, over WebSockets.
//!
//! Rules: KEP-4006; k8s.io/apimachinery `pkg/util/remotecommand` for the names of the protocols.

mod command;
mod forward;
mod spdy;
mod websocket;

use crate::app::App;
use crate::respond::{self, Body};
use crate::status::{About, Refusal};
use crate::write::Call;
use futures::future::BoxFuture;
use http::Response;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Which program to run in which container, or which container to attach to.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Program and arguments; empty to attach.
    pub command: Vec<String>,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether it is at a terminal.
    pub tty: bool,
    /// Width and height of the terminal in characters, if they are known at the start.
    pub size: Option<(u16, u16)>,
}

/// Where input goes.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// Where output comes from.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A program that runs, or a container that is attached to. Dropping it ends what was started for it.
pub struct Session {
    /// Its input, unless it has none.
    pub stdin: Option<Input>,
    /// Its output.
    pub stdout: Option<Output>,
    /// What it says of errors; at a terminal that is part of the output.
    pub stderr: Option<Output>,
    /// Tells the terminal its width and height in characters.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// Its exit code, at its end.
    pub end: BoxFuture<'static, i32>,
}

/// Whoever runs pods.
pub trait PodStreams: Send + Sync {
    /// Runs a program in a container, or attaches to it. The error is a sentence for the user.
    fn open(&self, request: CommandRequest) -> BoxFuture<'static, Result<Session, String>>;
    /// Connects to a port of a pod. The error is a sentence for the user.
    fn connect(&self, namespace: &str, pod: &str, port: u16)
    -> BoxFuture<'static, Result<TcpStream, String>>;
}

/// Answers a request for streams with a change of protocol.
pub async fn answer(app: &Arc<App>, call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let pod = call.live()?;
    let Some(source) = app.config.pod_streams.clone() else {
        let about = About::new("", &format!("pods/{}", call.target.subresource), &call.target.name);
        let message = "no node runs pods here".into();
        return Err(Refusal { message, ..Refusal::not_found(about) });
    };
    if call.target.subresource == "portforward" {
        if pod.value["status"]["phase"] != "Running" {
            let phase = pod.value["status"]["phase"].as_str().unwrap_or("Unknown");
            return Err(Refusal::bad_request(format!(
                "unable to forward port because pod is not running. Current status={phase}"
            )));
        }
        return forward::answer(app, call, source);
    }
    let query = &call.request.query;
    let container = crate::logs::container(&pod.value, query.get("container"), &call.target.name)?;
    let request = CommandRequest {
        namespace: call.target.namespace.clone(),
        pod: call.target.name.clone(),
        container,
        command: query.all("command").to_vec(),
        stdin: query.is_true("stdin"),
        tty: query.is_true("tty"),
        size: None,
    };
    let attach = call.target.subresource == "attach";
    if !attach && request.command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least 1 command for the container"));
    }
    let protocol = negotiate(call, &["v5.channel.k8s.io", "v4.channel.k8s.io"])?;
    let request = if attach { CommandRequest { command: Vec::new(), ..request } } else { request };
    // What goes wrong from here on is told in the new protocol: an older one would be tried otherwise.
    upgrade(app, call, protocol, move |stream| command::run(stream, source, request))
}

/// The protocol to speak: the first of ours that the client knows.
fn negotiate(call: &Call<'_>, ours: &[&'static str]) -> Result<&'static str, Refusal> {
    let request = call.request;
    if !request.header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(Refusal::bad_request("this server speaks WebSockets here: send Upgrade: websocket"));
    }
    let all =
        request.headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    let theirs: Vec<&str> = all.flat_map(|value| value.split(',')).map(str::trim).collect();
    ours.iter().find(|known| theirs.contains(known)).copied().ok_or_else(|| {
        Refusal::bad_request(format!(
            "unable to negotiate a protocol: client supports {theirs:?}, server accepts {ours:?}"
        ))
    })
}

/// Changes the protocol of the connection, and hands it to `serve` then.
fn upgrade<F>(
    app: &Arc<App>,
    call: &Call<'_>,
    protocol: &'static str,
    serve: impl FnOnce(websocket::Stream) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = call.request.header("sec-websocket-key");
    let taken = call.request.take_upgrade().filter(|_| !key.is_empty());
    let Some(upgraded) = taken else {
        return Err(Refusal::bad_request(
            "a WebSocket needs a connection of its own and a Sec-WebSocket-Key",
        ));
    };
    app.spawn(async move {
        match upgraded.await {
            Ok(stream) => serve(hyper_util::rt::TokioIo::new(stream)).await,
            Err(error) => tracing::debug!(%error, "a client asked for streams and went away"),
        }
    });
    let mut response = respond::raw(101, bytes::Bytes::new(), "application/octet-stream");
    let headers = response.headers_mut();
    headers.remove(http::header::CONTENT_TYPE);
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    let accept = HeaderValue::from_str(&websocket::accept(key));
    headers.insert("sec-websocket-accept", accept.map_err(|e| Refusal::bad_request(e.to_string()))?);
    Ok(response)
}
