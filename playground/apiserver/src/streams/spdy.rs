//! SPDY frames, as far as port forwarding needs them: `kubectl` sends them through a WebSocket.
//!
//! Rules: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>. Our clients know no flow control.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use std::io;

/// The words that compressed headers refer to, each written after its length.
const WORDS: [&str; 61] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
];
const MORE_WORDS: [&str; 4] = ["public", "set-cookie", "keep-alive", "origin"];
/// What follows the words.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::new();
    for word in WORDS.iter().chain(&MORE_WORDS) {
        out.extend((word.len() as u32).to_be_bytes());
        out.extend(word.as_bytes());
    }
    out.extend(TAIL.as_bytes());
    out
}

/// The longest frame that is taken, and the most that its headers may grow to.
const LONGEST: usize = 1024 * 1024;
/// How far back compressed headers may refer.
const WINDOW: usize = 32 * 1024;

/// What a client sends.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A new stream with its headers; names are in lower case.
    Open {
        /// Its number.
        id: u32,
        /// Names and values.
        headers: Vec<(String, String)>,
    },
    /// Bytes.
    Data {
        /// The stream.
        id: u32,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether no more will come.
        last: bool,
    },
    /// A stream is given up.
    Reset {
        /// Which.
        id: u32,
    },
    /// Is anybody here? The number is sent back.
    Ping(u32),
    /// The client is done.
    GoAway,
}

/// Frames as they come, wherever the bytes were cut.
pub struct Parser {
    buffer: Vec<u8>,
    inflater: Box<DecompressorOxide>,
    /// What headers so far were decompressed to, the dictionary first.
    window: Vec<u8>,
    begun: bool,
}

impl Parser {
    /// For a new connection.
    pub fn new() -> Parser {
        Parser { buffer: Vec::new(), inflater: Box::default(), window: dictionary(), begun: false }
    }

    /// Takes further bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame that means something here.
    ///
    /// # Errors
    /// What came is not SPDY.
    pub fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            let Some(head) = self.buffer.first_chunk::<8>().copied() else { return Ok(None) };
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if length > LONGEST {
                return Err(wrong("a frame that is too long"));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            let payload: Vec<u8> = self.buffer.drain(..8 + length).skip(8).collect();
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if let Some(frame) = self.frame(first, head[4], payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn frame(&mut self, first: u32, flags: u8, payload: Vec<u8>) -> io::Result<Option<Incoming>> {
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Incoming::Data { id: first, bytes: payload, last: flags & 1 != 0 }));
        }
        let number = || payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(short);
        Ok(match first & 0xffff {
            1 => {
                let id = number()? & 0x7fff_ffff;
                let headers = self.headers(payload.get(10..).ok_or_else(short)?)?;
                Some(Incoming::Open { id, headers })
            }
            3 => Some(Incoming::Reset { id: number()? & 0x7fff_ffff }),
            6 => Some(Incoming::Ping(number()?)),
            7 => Some(Incoming::GoAway),
            // More headers would change the decompressor's state; nobody sends them.
            8 => {
                self.headers(payload.get(4..).ok_or_else(short)?)?;
                None
            }
            _ => None,
        })
    }

    fn headers(&mut self, mut compressed: &[u8]) -> io::Result<Vec<(String, String)>> {
        if !self.begun {
            self.begun = true;
            // Two bytes of zlib, then the dictionary's checksum: there is only one dictionary.
            compressed = compressed.get(6..).ok_or_else(short)?;
        }
        let surplus = self.window.len().saturating_sub(WINDOW + 2 * TAIL.len());
        self.window.drain(..surplus);
        let start = self.window.len();
        self.window.resize(start + LONGEST, 0);
        let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
            | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, written) = decompress(&mut self.inflater, compressed, &mut self.window, start, flags);
        self.window.truncate(start + written);
        if status != TINFLStatus::NeedsMoreInput {
            return Err(wrong("headers that cannot be decompressed"));
        }
        let mut rest = &self.window[start..];
        let mut take = |length: usize| -> io::Result<&[u8]> {
            let (head, tail) = rest.split_at_checked(length).ok_or_else(short)?;
            rest = tail;
            Ok(head)
        };
        let number = |take: &mut dyn FnMut(usize) -> io::Result<Vec<u8>>| -> io::Result<usize> {
            let bytes = take(4)?;
            Ok(bytes.iter().fold(0, |n, byte| (n << 8) | usize::from(*byte)))
        };
        let mut take = |length: usize| take(length).map(<[u8]>::to_vec);
        let count = number(&mut take)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let length = number(&mut take)?;
            let name = take(length)?;
            let length = number(&mut take)?;
            let value = take(length)?;
            let text =
                |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| wrong("headers that are no text"));
            headers.push((text(name)?.to_lowercase(), text(value)?));
        }
        Ok(headers)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn short() -> io::Error {
    wrong("a frame that ends early")
}

fn control(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3, 0, kind, 0];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(payload);
    out
}

/// A stream is taken. Its answer has no headers; `first` says whether it is the first of the connection.
pub fn reply(id: u32, first: bool) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    if first {
        // zlib without a dictionary.
        payload.extend([0x78, 0x01]);
    }
    // The number of headers, 0, in a block that is not compressed, and an empty block, at which a reader stops.
    payload.extend([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
    payload.extend([0, 0, 0, 0xff, 0xff]);
    control(2, &payload)
}

/// Bytes of a stream; `last` says that no more will come.
pub fn data(id: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut out = (id & 0x7fff_ffff).to_be_bytes().to_vec();
    out.push(u8::from(last));
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(bytes);
    out
}

/// The answer to a ping.
pub fn ping(number: u32) -> Vec<u8> {
    control(6, &number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn open(id: u32, block: &str) -> Vec<u8> {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(bytes(block));
        control(1, &payload)
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_standard() {
        let words = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &words {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((words.len(), (b << 16) | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn streams_are_opened_with_headers_that_refer_to_earlier_ones() {
        // Made with zlib and the standard's dictionary.
        let first = "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c0600000000ffff";
        let second = "c2aa15540a2512d209000000ffff";
        let mut all = open(1, first);
        all.extend(open(3, second));
        all.extend(data(3, b"hi", true));
        all.extend(ping(7));
        let mut parser = Parser::new();
        let mut seen = Vec::new();
        for byte in all {
            parser.push(&[byte]);
            seen.extend(parser.next().unwrap());
        }
        let headers = |kind: &str| {
            [("streamtype", kind), ("port", "80"), ("requestid", "0")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .to_vec()
        };
        assert_eq!(
            seen,
            [
                Incoming::Open { id: 1, headers: headers("error") },
                Incoming::Open { id: 3, headers: headers("data") },
                Incoming::Data { id: 3, bytes: b"hi".to_vec(), last: true },
                Incoming::Ping(7),
            ]
        );
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        let mut parser = Parser::new();
        parser.push(&control(1, &[0; 12]));
        assert!(parser.next().is_err());
        let mut parser = Parser::new();
        parser.push(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert!(parser.next().is_err());
    }
}
