//! One device: its settings, its key, and the thread that writes for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::{Text, TooLong};
use super::hash::Hasher;
use super::options::Settings;
use super::queue::{Line, Queue, Refused, Work};
use super::sink::{self, Sink};
use super::ticket::{Taken, Ticket};
use crate::model::Fault;
use crate::telemetry::{AuditLabel, Telemetry};

/// A device that is on.
pub(super) struct Device {
    /// Its path, ending in `/`.
    pub(super) path: String,
    pub(super) settings: Settings,
    pub(super) hasher: Hasher,
    label: AuditLabel,
    telemetry: Telemetry,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Device {
    /// Starts its thread. Nothing is opened before the first record.
    pub(super) fn start(
        path: String,
        settings: Settings,
        salt: &[u8],
        queue_bytes: usize,
        telemetry: Telemetry,
    ) -> Result<Device, Fault> {
        let queue = Arc::new(Queue::new(queue_bytes, settings.write_timeout));
        let label = settings.kind.label();
        let writer = Writer {
            path: path.clone(),
            sink: sink::open(&settings.kind, settings.write_timeout),
            is_failing: false,
            label,
            telemetry: telemetry.clone(),
        };
        let waiting = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("keyway-audit".to_owned())
            .spawn(move || writer.serve(&waiting))
            .map_err(|error| Fault::Unavailable { what: format!("cannot start a thread: {error}") })?;
        let thread = Mutex::new(Some(thread));
        Ok(Device { path, hasher: Hasher::new(salt), settings, label, telemetry, queue, thread })
    }

    /// A text for its records.
    pub(super) fn text(&self, bytes_max: usize) -> Text<'_> {
        Text::new(&self.hasher, &self.settings, bytes_max)
    }

    /// Hands a record over.
    pub(super) fn push(&self, bytes: Vec<u8>, ticket: Ticket, now: Instant) {
        let Err((refused, line)) = self.queue.push(Line { bytes, ticket }, now) else { return };
        let why = match refused {
            Refused::Closed => return line.ticket.unasked(),
            Refused::Full => "too many records wait for it",
            Refused::Stuck => "it has not finished a write for longer than its write_timeout",
        };
        self.telemetry.audit_failed(self.label, 1);
        line.ticket.failed(format!("audit device {}: {why}", self.path));
    }

    /// Writes a record that tells of nothing.
    pub(super) async fn try_out(&self) -> Result<(), String> {
        let ticket = Ticket::of(1);
        let trial = self.text(usize::MAX).trial().map_err(|TooLong| "the first record is too long".to_owned())?;
        self.push(trial, ticket.clone(), Instant::now());
        Taken::new(ticket, self.settings.write_timeout).by(None).await
    }

    /// Has it let go of its file or connection in favour of what is at its path or address then.
    pub(super) fn reopen(&self) {
        self.queue.reopen();
    }

    /// Takes no record any more. Those that wait are still written.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Waits until its thread has ended, `end` at the longest. False if it has not.
    pub(super) fn join(&self, end: Instant) -> bool {
        let Some(thread) = self.thread.lock().take() else { return true };
        while !thread.is_finished() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().is_ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What the thread works with.
struct Writer {
    path: String,
    sink: Box<dyn Sink>,
    /// Whether the last write failed: one that does is told of once.
    is_failing: bool,
    label: AuditLabel,
    telemetry: Telemetry,
}

impl Writer {
    fn serve(mut self, queue: &Queue) {
        while let Some(Work { lines, reopen }) = queue.take() {
            if reopen {
                self.reopen();
            }
            if !lines.is_empty() {
                self.write(&lines);
            }
        }
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(()) => tracing::info!(device = self.path, "audit device opened"),
            Err(error) => {
                self.telemetry.audit_failed(self.label, 1);
                tracing::error!(
                    device = self.path,
                    error,
                    "the audit device could not be opened anew: it goes on with what it has open, if anything; mend that, and \
                     send SIGHUP again"
                );
            }
        }
    }

    fn write(&mut self, mut lines: &[Line]) {
        while !lines.is_empty() {
            let written = self.sink.write(lines);
            let (taken, failed) = lines.split_at_checked(written.lines).unwrap_or((lines, &[]));
            self.telemetry.audit_written(self.label, taken.len());
            taken.iter().for_each(|line| line.ticket.taken());
            let Some(error) = written.failure.filter(|_| !failed.is_empty()) else {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(device = self.path, "the audit device is written again");
                }
                return;
            };
            // One that is too long holds up none of those behind it.
            let (failed, rest) = failed.split_at(if written.is_of_line { 1 } else { failed.len() });
            self.fail(failed, &error, written.is_of_line);
            lines = rest;
        }
    }

    fn fail(&mut self, lines: &[Line], error: &str, is_too_long: bool) {
        self.telemetry.audit_failed(self.label, lines.len());
        if is_too_long {
            tracing::warn!(device = self.path, error, "a record is longer than the audit device takes");
        } else if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                device = self.path,
                error,
                "the audit device cannot be written: requests are refused that no other device records"
            );
        }
        lines.iter().for_each(|line| line.ticket.failed(format!("audit device {}: {error}", self.path)));
    }
}
