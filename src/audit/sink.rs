//! Where a device writes: a file, a socket, the system's log.

use std::io::{ErrorKind, IoSlice, Write};
use std::time::Duration;

use super::file::File;
use super::options::Kind;
use super::queue::Line;
use super::socket::Socket;
use super::syslog::Syslog;

/// Slices of one call: what Linux takes (`UIO_MAXIOV`).
const SLICES: usize = 1024;

/// What became of some records: so many of them, from the first on, are written; and why the others are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) lines: usize,
    pub(super) failure: Option<String>,
    /// Whether the failure is about the next one alone: it is longer than a message may be.
    pub(super) is_of_line: bool,
}

/// Where a device writes. Used by its thread alone, which may wait here.
pub(super) trait Sink: Send {
    /// Writes records, in order. Nothing of it is open yet, or any more, after a failure: the next call opens it.
    fn write(&mut self, lines: &[Line]) -> Written;

    /// Lets go of what is open in favour of what is at its path or address now. Else all stays as it is, and the text says why.
    fn reopen(&mut self) -> Result<(), String>;
}

/// The sink of this kind. Nothing is opened before the first record.
pub(super) fn open(kind: &Kind, write_timeout: Duration) -> Box<dyn Sink> {
    match kind {
        Kind::File { path, mode } => Box::new(File::new(path.clone(), *mode)),
        Kind::Stdout => Box::new(Stdout),
        Kind::Discard => Box::new(Discard),
        Kind::Socket { network, address } => Box::new(Socket::new(*network, address.clone(), write_timeout)),
        Kind::Syslog { facility, tag, address } => {
            Box::new(Syslog::new(*facility, tag.clone(), address.clone(), write_timeout))
        }
    }
}

/// The daemon's standard output.
struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, lines: &[Line]) -> Written {
        write_lines(&mut std::io::stdout().lock(), lines, |_| {})
    }

    fn reopen(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Nowhere: to see what records cost.
struct Discard;

impl Sink for Discard {
    fn write(&mut self, lines: &[Line]) -> Written {
        Written { lines: lines.len(), failure: None, is_of_line: false }
    }

    fn reopen(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Writes records by what was open; if that turns out to be gone, once more by what opens now. `try_to_write` opens what is not
/// open.
pub(super) fn write_twice(lines: &[Line], was_open: bool, mut try_to_write: impl FnMut(&[Line]) -> Written) -> Written {
    let first = try_to_write(lines);
    // Who listens may have been started anew since.
    if first.failure.is_none() || first.is_of_line || !was_open {
        return first;
    }
    let second = try_to_write(lines.get(first.lines..).unwrap_or_default());
    Written { lines: first.lines + second.lines, ..second }
}

/// Writes records by as few calls as may be. `torn` is told whether the last bytes that were written are in the middle of a
/// record.
pub(super) fn write_lines(to: &mut impl Write, lines: &[Line], torn: impl FnOnce(bool)) -> Written {
    let (mut done, mut within) = (0, 0);
    let failure = loop {
        let Some(rest) = lines.get(done..).filter(|rest| !rest.is_empty()) else { break to.flush().err() };
        let mut slices: Vec<IoSlice<'_>> = rest.iter().take(SLICES).map(|line| IoSlice::new(&line.bytes)).collect();
        let mut slices = slices.as_mut_slice();
        IoSlice::advance_slices(&mut slices, within);
        let mut written = match to.write_vectored(slices) {
            Ok(0) => break Some(ErrorKind::WriteZero.into()),
            Ok(written) => within + written,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break Some(error),
        };
        while let Some(line) = lines.get(done).filter(|line| line.bytes.len() <= written) {
            written -= line.bytes.len();
            done += 1;
        }
        within = written;
    };
    torn(within > 0);
    Written { lines: done, failure: failure.map(|error| error.to_string()), is_of_line: false }
}
