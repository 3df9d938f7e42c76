//! A program's streams as channels of a WebSocket: the first byte of a message says which.

use super::websocket::{self, Frame, Message, Stream};
use super::{CommandRequest, Output, PodStreams, Session};
use crate::status::Refusal;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// A client of version 5 says with it that a channel is at its end.
const CLOSE: u8 = 255;

/// Bytes of output in a message.
const BLOCK: usize = 32 * 1024;
/// How long a terminal's size is waited for before the program starts.
const SIZE: Duration = Duration::from_millis(250);

/// Opens a session and serves it until the program ends or the client goes.
pub async fn run(stream: Stream, source: Arc<dyn PodStreams>, request: CommandRequest) {
    let (mut reader, writer) = tokio::io::split(stream);
    let (taken, messages) = mpsc::channel(16);
    let reading = async move {
        while let Ok(message) = websocket::read(&mut reader).await {
            if message == Message::Close || taken.send(message).await.is_err() {
                return;
            }
        }
    };
    let serving = open(writer, messages, source, request);
    tokio::pin!(serving);
    tokio::select! {
        // The end of its messages tells the session that the client has gone.
        () = reading => serving.await,
        () = &mut serving => {}
    }
}

async fn open(
    mut writer: WriteHalf<Stream>,
    mut messages: mpsc::Receiver<Message>,
    source: Arc<dyn PodStreams>,
    mut request: CommandRequest,
) {
    let mut early = Vec::new();
    if request.tty {
        request.size = first_size(&mut messages, &mut early).await;
    }
    match source.open(request).await {
        Ok(session) => serve(writer, early, messages, session).await,
        Err(why) => {
            let status = Refusal::internal_error(&why).body();
            for frame in [Frame::Data(message(STATUS, status.to_string().as_bytes())), Frame::Close] {
                if let Err(error) = websocket::write(&mut writer, frame).await {
                    tracing::debug!(%error, "a client of streams has gone");
                    return;
                }
            }
        }
    }
}

/// Waits a moment for the size of the client's terminal, which it tells at once; what else comes is kept.
async fn first_size(messages: &mut mpsc::Receiver<Message>, early: &mut Vec<Message>) -> Option<(u16, u16)> {
    let end = Instant::now() + SIZE;
    while let Ok(Some(message)) = tokio::time::timeout_at(end, messages.recv()).await {
        if let Message::Data(data) = &message
            && let Some((&RESIZE, size)) = data.split_first()
        {
            return read_size(size);
        }
        early.push(message);
    }
    None
}

fn read_size(message: &[u8]) -> Option<(u16, u16)> {
    let size: Value = serde_json::from_slice(message).ok()?;
    let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some((side("Width")?, side("Height")?))
}

fn message(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(channel);
    out.extend_from_slice(bytes);
    out
}

async fn serve(
    mut writer: WriteHalf<Stream>,
    early: Vec<Message>,
    mut messages: mpsc::Receiver<Message>,
    session: Session,
) {
    let Session { mut stdin, stdout, stderr, resize, end } = session;
    let (send, mut frames) = mpsc::channel::<Frame>(16);
    let write = async {
        while let Some(frame) = frames.recv().await {
            let last = matches!(frame, Frame::Close);
            if let Err(error) = websocket::write(&mut writer, frame).await {
                tracing::debug!(%error, "a client of streams has gone");
                return;
            }
            if last {
                return;
            }
        }
    };
    let program = async {
        let (_, _, code) =
            tokio::join!(pump(STDOUT, stdout, send.clone()), pump(STDERR, stderr, send.clone()), end);
        // Who has gone does not want to know.
        let _ = send.send(Frame::Data(message(STATUS, status(code).to_string().as_bytes()))).await;
        let _ = send.send(Frame::Close).await;
    };
    let listen = async {
        let mut early = early.into_iter();
        while let Some(next) = match early.next() {
            Some(message) => Some(message),
            None => messages.recv().await,
        } {
            match next {
                Message::Data(data) => match data.split_first() {
                    Some((&STDIN, input)) => {
                        if let Some(to) = &mut stdin
                            && (to.write_all(input).await.is_err() || to.flush().await.is_err())
                        {
                            stdin = None;
                        }
                    }
                    Some((&CLOSE, [STDIN])) => stdin = None,
                    Some((&RESIZE, size)) => {
                        if let (Some(resize), Some((width, height))) = (&resize, read_size(size)) {
                            resize(width, height);
                        }
                    }
                    _ => {}
                },
                Message::Ping(data) => {
                    let _ = send.send(Frame::Pong(data)).await;
                }
                Message::Close => return,
            }
        }
    };
    let both = async {
        tokio::select! {
            () = program => true,
            () = listen => false,
        }
    };
    tokio::pin!(both);
    tokio::pin!(write);
    let ended = tokio::select! {
        () = &mut write => false,
        ended = &mut both => ended,
    };
    if ended {
        // What the program said last is on its way.
        write.await;
    }
}

async fn pump(channel: u8, output: Option<Output>, send: mpsc::Sender<Frame>) {
    let Some(mut output) = output else { return };
    let mut block = vec![0; BLOCK];
    loop {
        // A terminal whose program has ended is an error to read from.
        let Ok(read @ 1..) = output.read(&mut block).await else { return };
        if send.send(Frame::Data(message(channel, &block[..read]))).await.is_err() {
            return;
        }
    }
}

/// What a client is told of the end.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_size_is_waited_for_and_other_messages_are_kept() {
        let (send, mut messages) = mpsc::channel(4);
        let typed = Message::Data(vec![STDIN, b'a']);
        send.send(typed).await.unwrap();
        send.send(Message::Data(message(RESIZE, br#"{"Width":80,"Height":24}"#))).await.unwrap();
        let mut early = Vec::new();
        assert_eq!(first_size(&mut messages, &mut early).await, Some((80, 24)));
        assert_eq!(early, [Message::Data(vec![STDIN, b'a'])]);
        assert_eq!(first_size(&mut messages, &mut early).await, None, "none comes");
        assert_eq!(read_size(br#"{"Width":-1,"Height":70000}"#), None);
    }
}
