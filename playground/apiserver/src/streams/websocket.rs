//! WebSockets, as far as a server of byte streams needs them.
//!
//! Rules: RFC 6455.

use base64::Engine;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ring::digest;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A connection after its change of protocol.
pub type Stream = TokioIo<Upgraded>;

/// What a key is answered with.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest message that is taken, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    let text = format!("{key}{MAGIC}");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// What the other side sends.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// A binary or text message.
    Data(Vec<u8>),
    /// It wants to know whether somebody is here; the same is sent back.
    Ping(Vec<u8>),
    /// It is done.
    Close,
}

/// Reads the next message.
///
/// # Errors
/// The connection breaks, or what comes is no WebSocket frame of a client.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let mut whole = Vec::new();
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let (last, kind) = (head[0] & 0x80 != 0, head[0] & 0x0f);
        if head[1] & 0x80 == 0 {
            return Err(wrong("a frame of a client that is not masked"));
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).ok().filter(|length| length + whole.len() <= LONGEST);
        let Some(length) = length else { return Err(wrong("a message that is too long")) };
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
        match kind {
            0..=2 => whole.append(&mut payload),
            8 => return Ok(Message::Close),
            // A ping may come between the parts of a message; those of our clients are whole.
            9 => return Ok(Message::Ping(payload)),
            10 => continue,
            _ => return Err(wrong("a frame of an unknown kind")),
        }
        if last {
            return Ok(Message::Data(whole));
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is sent.
#[derive(Debug)]
pub enum Frame {
    /// A binary message.
    Data(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The last one.
    Close,
}

/// Writes a frame.
///
/// # Errors
/// The connection breaks.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: Frame) -> io::Result<()> {
    let (kind, payload) = match frame {
        Frame::Data(bytes) => (2, bytes),
        Frame::Pong(bytes) => (10, bytes),
        // 1000: it ends as it should.
        Frame::Close => (8, vec![0x03, 0xe8]),
    };
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(0x80 | kind);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&payload);
    stream.write_all(&out).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_are_read_and_written() {
        // "Hel" and "lo" in two masked parts, with a pong between that nobody asked for, then a close.
        let mask = [1, 2, 3, 4];
        let masked =
            |text: &[u8]| text.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect::<Vec<u8>>();
        let mut sent = Vec::new();
        for (first, text) in [(0x01, &b"Hel"[..]), (0x8a, b""), (0x80, b"lo"), (0x88, b"")] {
            sent.extend([first, 0x80 | text.len() as u8]);
            sent.extend(mask);
            sent.extend(masked(text));
        }
        let mut stream = &sent[..];
        assert_eq!(read(&mut stream).await.unwrap(), Message::Data(b"Hello".to_vec()));
        assert_eq!(read(&mut stream).await.unwrap(), Message::Close);
        assert!(read(&mut stream).await.is_err());
        assert!(read(&mut &[0x82, 0x01, b'a'][..]).await.is_err(), "not masked");

        let mut out = Vec::new();
        write(&mut out, Frame::Data(vec![7; 126])).await.unwrap();
        assert_eq!(out[..5], [0x82, 126, 0, 126, 7]);
    }
}
