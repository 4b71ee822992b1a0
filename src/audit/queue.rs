//! The records that wait for a device's thread: never more than so many, and none behind a device that does not move.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::ticket::Ticket;

/// Records that may wait for one device.
const LINES_MAX: usize = 65_536;

/// A record, as it is written.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    pub(super) ticket: Ticket,
}

/// Why a record is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too much waits.
    Full,
    /// The device has been at one write for longer than it may.
    Stuck,
    /// The device is off.
    Closed,
}

/// What the thread is to do next.
pub(super) struct Work {
    pub(super) lines: Vec<Line>,
    /// First the file, or the connection, is to be opened anew.
    pub(super) reopen: bool,
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
    stuck_after: Duration,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    bytes: usize,
    /// Since when the thread has been at what it took; none while it waits.
    busy_since: Option<Instant>,
    reopen: bool,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, stuck_after: Duration) -> Queue {
        Queue { state: Mutex::default(), changed: Condvar::new(), bytes_max, stuck_after }
    }

    /// Takes a record in, or gives it back. One alone is taken whatever its size.
    pub(super) fn push(&self, line: Line, now: Instant) -> Result<(), (Refused, Line)> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err((Refused::Closed, line));
        }
        if state.busy_since.is_some_and(|since| now.saturating_duration_since(since) > self.stuck_after) {
            return Err((Refused::Stuck, line));
        }
        let is_over = state.bytes + line.bytes.len() > self.bytes_max || state.lines.len() >= LINES_MAX;
        if is_over && !state.lines.is_empty() {
            return Err((Refused::Full, line));
        }
        state.bytes += line.bytes.len();
        state.lines.push(line);
        let is_idle = state.busy_since.is_none();
        drop(state);
        // A busy thread looks by itself.
        if is_idle {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// All that waits, once there is something. `None` when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = self.state.lock();
        state.busy_since = None;
        while state.lines.is_empty() && !state.reopen {
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        state.busy_since = Some(Instant::now());
        state.bytes = 0;
        Some(Work { lines: std::mem::take(&mut state.lines), reopen: std::mem::take(&mut state.reopen) })
    }

    /// Has the thread open its file, or its connection, anew before it writes the next record.
    pub(super) fn reopen(&self) {
        self.state.lock().reopen = true;
        self.changed.notify_one();
    }

    /// Takes nothing more in. What waits is still written.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }
}
