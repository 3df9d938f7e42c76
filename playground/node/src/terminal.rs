//! Terminals for programs that somebody types to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::net::unix::pipe;

use crate::process::{Command, Streams};

/// The side of a terminal at which somebody sits.
#[derive(Debug)]
pub struct Terminal {
    /// What is typed.
    pub input: pipe::Sender,
    /// What is shown. Once the last program at the other side has gone, it is an error to read it.
    pub output: pipe::Receiver,
    /// Its size.
    pub size: Size,
}

/// The size of a terminal.
#[derive(Debug)]
pub struct Size(OwnedFd);

impl Size {
    /// Sets width and height in characters.
    pub fn set(&self, width: u16, height: u16) {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(&self.0, size) {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }
}

/// Opens a terminal; the streams are the program's side of it.
pub(crate) fn open() -> io::Result<(Terminal, Streams)> {
    let own = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    pty::grantpt(&own)?;
    pty::unlockpt(&own)?;
    let name = pty::ptsname(&own, Vec::new())?;
    let path = std::path::PathBuf::from(name.into_string().map_err(io::Error::other)?);
    let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or_default();
    let other: File = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let streams =
        Streams { stdin: other.try_clone()?.into(), stdout: other.try_clone()?.into(), stderr: other.into() };
    rustix::fs::fcntl_setfl(&own, OFlags::RDWR | OFlags::NONBLOCK)?;
    // No pipe, but as well behaved as one.
    let input = pipe::Sender::from_owned_fd_unchecked(own.try_clone()?)?;
    let output = pipe::Receiver::from_owned_fd_unchecked(own.try_clone()?)?;
    Ok((Terminal { input, output, size: Size(own) }, streams))
}

/// The command as the leader of a session that the terminal controls, for which util-linux has a program.
pub(crate) fn leading(command: Command) -> Command {
    let mut args = vec!["--ctty".to_owned(), "--wait".to_owned(), command.program.display().to_string()];
    args.extend(command.args);
    Command { program: "setsid".into(), args, ..command }
}
