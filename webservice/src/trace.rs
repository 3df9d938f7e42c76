//! Trace context after W3C's recommendation: one identifier follows a request through every service.

use std::fmt;

use http::{HeaderMap, HeaderValue};

/// Header that carries the context.
pub const TRACEPARENT: &str = "traceparent";

/// Which trace a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Continues the caller's trace with a span of one's own, or starts a trace.
    pub fn of(headers: &HeaderMap) -> Self {
        let span = random8();
        match headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse) {
            Some((trace, flags)) => Self { trace, span, flags },
            None => Self { trace: uuid::Uuid::new_v4().into_bytes(), span, flags: 0 },
        }
    }

    /// The trace's identifier as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// Passes the context on to the next service.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), self.flags)
    }
}

fn parse(text: &str) -> Option<([u8; 16], u8)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Later versions may add parts, but not to version 00.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let [_] = unhex::<1>(version)?;
    let (trace, span, [flags]) = (unhex::<16>(trace)?, unhex::<8>(span)?, unhex::<1>(flags)?);
    (trace != [0; 16] && span != [0; 8]).then_some((trace, flags))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * N || !lower {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random8() -> [u8; 8] {
    let mut span = [0; 8];
    span.copy_from_slice(&uuid::Uuid::new_v4().into_bytes()[..8]);
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(value: &str) -> TraceContext {
        TraceContext::of(&[(TRACEPARENT.parse().unwrap(), value.parse().unwrap())].into_iter().collect())
    }

    #[test]
    fn a_trace_is_continued_with_a_new_span() {
        let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let own = context(sent);
        assert_eq!(own.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(own.to_string().ends_with("-01"));
        assert_ne!(own.to_string(), sent);
    }

    #[test]
    fn nonsense_starts_a_new_trace() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_ne!(context(bad).trace_id(), "0af7651916cd43dd8448eb211c80319c", "{bad}");
        }
    }
}
