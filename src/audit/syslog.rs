//! The local log: records as messages of syslog (RFC 3164), one datagram each.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::queue::Line;
use super::sink::{Sink, Written, write_twice};
use super::socket::write_datagrams;

/// The severity "informational".
const INFO: u8 = 6;

/// The local log as a device.
pub(super) struct Syslog {
    /// What begins every message. Its time is left to the log, which knows it better.
    head: Vec<u8>,
    address: PathBuf,
    timeout: Duration,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    pub(super) fn new(facility: u8, tag: String, address: PathBuf, timeout: Duration) -> Syslog {
        let priority = u32::from(facility) * 8 + u32::from(INFO);
        let head = format!("<{priority}>{tag}[{}]: ", std::process::id()).into_bytes();
        Syslog { head, address, timeout, socket: None }
    }

    fn connect(&self) -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(self.timeout))?;
        socket.connect(&self.address)?;
        Ok(socket)
    }

    fn try_to_write(&mut self, lines: &[Line]) -> Written {
        let connected = self.socket.take().map_or_else(|| self.connect(), Ok);
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => return Written { lines: 0, failure: Some(error.to_string()), is_of_line: false },
        };
        let mut message = self.head.clone();
        let written = write_datagrams(lines, |line| {
            message.truncate(self.head.len());
            message.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            socket.send(&message)
        });
        if written.failure.is_none() {
            self.socket = Some(socket);
        }
        written
    }
}

impl Sink for Syslog {
    fn write(&mut self, lines: &[Line]) -> Written {
        let was_open = self.socket.is_some();
        write_twice(lines, was_open, |lines| self.try_to_write(lines))
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.socket = Some(self.connect().map_err(|error| error.to_string())?);
        Ok(())
    }
}
