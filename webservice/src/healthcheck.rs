//! A container's health check for images without a shell or curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for each of connecting, sending and receiving.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The shop is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// No answer.
    #[error("the shop at {address} does not answer: {source}")]
    NoAnswer {
        /// Where it was asked.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// An answer that is not 200.
    #[error("the shop at {address} answered {answer:?} instead of 200")]
    Unhealthy {
        /// Where it was asked.
        address: SocketAddr,
        /// The first line of the answer.
        answer: String,
    },
}

/// Asks the shop that listens on one of `candidates` for `/health`: the first one that answers at all counts.
///
/// # Errors
/// None answers within two seconds, or it answers not with 200.
pub fn healthcheck(candidates: &[SocketAddr]) -> Result<(), HealthcheckError> {
    let mut outcome = Ok(());
    for listen in candidates {
        outcome = check(*listen);
        if !matches!(outcome, Err(HealthcheckError::NoAnswer { .. })) {
            break;
        }
    }
    outcome
}

fn check(listen: SocketAddr) -> Result<(), HealthcheckError> {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    let answer = ask(address).map_err(|source| HealthcheckError::NoAnswer { address, source })?;
    if answer.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(HealthcheckError::Unhealthy { address, answer })
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut start = Vec::with_capacity(256);
    stream.take(256).read_to_end(&mut start)?;
    let text = String::from_utf8_lossy(&start);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
