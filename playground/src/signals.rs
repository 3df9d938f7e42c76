//! The requests to end: Ctrl-C, a polite kill, a closed terminal.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from here on.
    ///
    /// # Errors
    ///
    /// When the system does not allow it.
    #[cfg(unix)]
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Takes the signals over from here on.
    ///
    /// # Errors
    ///
    /// Never on this system.
    #[cfg(not(unix))]
    pub fn take() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for one of them, and returns the exit code that tells of it: 128 and its number, as shells have it.
    #[cfg(unix)]
    pub async fn received(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }

    /// Waits for Ctrl-C.
    #[cfg(not(unix))]
    pub async fn received(&mut self) -> u8 {
        let _ = tokio::signal::ctrl_c().await;
        130
    }
}
