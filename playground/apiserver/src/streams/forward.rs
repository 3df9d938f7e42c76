//! Port forwarding: connections to ports of a pod, each as two streams of a SPDY connection inside a WebSocket.
//!
//! Rules: KEP-4006 and Kubernetes' `portforward.k8s.io`: for each connection a client opens a stream for errors and one for
//! data, which name the port and belong together by their request id.

use super::spdy::{self, Incoming, Parser};
use super::websocket::{self, Frame, Message, Stream};
use super::{PodStreams, negotiate, upgrade};
use crate::app::App;
use crate::respond::Body;
use crate::status::Refusal;
use crate::write::Call;
use http::Response;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes of a connection in a frame.
const BLOCK: usize = 16 * 1024;

/// Answers a request for port forwarding.
pub fn answer(
    app: &Arc<App>,
    call: &Call<'_>,
    source: Arc<dyn PodStreams>,
) -> Result<Response<Body>, Refusal> {
    let protocol = negotiate(call, &[PROTOCOL])?;
    let (namespace, pod) = (call.target.namespace.clone(), call.target.name.clone());
    upgrade(app, call, protocol, move |stream| async move {
        let forwarding = Forwarding { source, namespace, pod };
        if let Err(error) = forwarding.run(stream).await {
            tracing::debug!(%error, "port forwarding ended early");
        }
    })
}

struct Forwarding {
    source: Arc<dyn PodStreams>,
    namespace: String,
    pod: String,
}

/// The two streams of a connection, as far as they are open.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<u32>,
}

impl Forwarding {
    async fn run(&self, stream: Stream) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (send, mut frames) = mpsc::channel::<Frame>(64);
        let write = async {
            while let Some(frame) = frames.recv().await {
                websocket::write(&mut writer, frame).await?;
            }
            Ok(())
        };
        let serve = async {
            let mut state = State::new(send);
            loop {
                match websocket::read(&mut reader).await? {
                    Message::Data(bytes) => state.parser.push(&bytes),
                    Message::Ping(bytes) => state.send(Frame::Pong(bytes)).await,
                    Message::Close => return Ok(()),
                }
                while let Some(incoming) = state.parser.next()? {
                    if matches!(incoming, Incoming::GoAway) {
                        return Ok(());
                    }
                    self.handle(&mut state, incoming).await;
                }
            }
        };
        tokio::select! {
            result = write => result,
            result = serve => result,
        }
    }

    async fn handle(&self, state: &mut State, incoming: Incoming) {
        match incoming {
            Incoming::Open { id, headers } => {
                let header = |name: &str| {
                    headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
                };
                let first = std::mem::replace(&mut state.replied, true);
                state.send(Frame::Data(spdy::reply(id, !first))).await;
                let (request, port) = (header("requestid").to_owned(), header("port").to_owned());
                let pair = state.pairs.entry(request.clone()).or_default();
                match header("streamtype") {
                    "error" => pair.error = Some(id),
                    _ => pair.data = Some(id),
                }
                if let Pair { error: Some(error), data: Some(data) } = *pair {
                    state.pairs.remove(&request);
                    let (to_pod, from_client) = mpsc::channel(16);
                    state.open.insert(data, to_pod);
                    let connecting = match port.parse() {
                        Ok(port) => self.source.connect(&self.namespace, &self.pod, port),
                        Err(_) => Box::pin(async move { Err(format!("{port:?} is not a port")) }),
                    };
                    let sender = state.sender.clone();
                    state.connections.spawn(async move {
                        let ended = match connecting.await {
                            Ok(connection) => carry(connection, data, from_client, &sender).await,
                            Err(why) => Err(why),
                        };
                        let why = ended.err().unwrap_or_default();
                        // A client that has gone does not want to know.
                        let _ = sender.send(Frame::Data(spdy::data(error, why.as_bytes(), true))).await;
                        let _ = sender.send(Frame::Data(spdy::data(data, &[], true))).await;
                    });
                }
            }
            Incoming::Data { id, bytes, last } => {
                if let Some(to_pod) = state.open.get(&id)
                    && !bytes.is_empty()
                    && to_pod.send(bytes).await.is_err()
                {
                    state.open.remove(&id);
                }
                if last {
                    state.open.remove(&id);
                }
            }
            Incoming::Reset { id } => {
                state.open.remove(&id);
            }
            Incoming::Ping(number) => state.send(Frame::Data(spdy::ping(number))).await,
            Incoming::GoAway => {}
        }
    }
}

struct State {
    parser: Parser,
    sender: mpsc::Sender<Frame>,
    /// Whether a stream was answered already.
    replied: bool,
    pairs: HashMap<String, Pair>,
    /// Where the bytes of a data stream go.
    open: HashMap<u32, mpsc::Sender<Vec<u8>>>,
    connections: JoinSet<()>,
}

impl State {
    fn new(sender: mpsc::Sender<Frame>) -> State {
        State {
            parser: Parser::new(),
            sender,
            replied: false,
            pairs: HashMap::new(),
            open: HashMap::new(),
            connections: JoinSet::new(),
        }
    }

    async fn send(&self, frame: Frame) {
        // The writer ends only with the connection, which the reader notices.
        let _ = self.sender.send(frame).await;
    }
}

/// Carries bytes both ways until the pod closes the connection.
async fn carry(
    connection: TcpStream,
    id: u32,
    mut from_client: mpsc::Receiver<Vec<u8>>,
    sender: &mpsc::Sender<Frame>,
) -> Result<(), String> {
    let (mut reader, mut writer) = connection.into_split();
    let upwards = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let downwards = async {
        let mut block = vec![0; BLOCK];
        loop {
            match reader.read(&mut block).await {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    let frame = Frame::Data(spdy::data(id, &block[..read], false));
                    if sender.send(frame).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::pin!(upwards);
    tokio::pin!(downwards);
    tokio::select! {
        result = &mut downwards => result,
        // The client has no more to say, and still listens.
        () = &mut upwards => downwards.await,
    }
}
