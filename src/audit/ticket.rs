//! Waiting for one of several devices to take a record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How one record fares at the devices it was handed to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Mutex<State>>);

struct State {
    /// Devices that have not said anything yet.
    outstanding: usize,
    /// Whether one has it.
    is_taken: bool,
    /// Whether one was disabled meanwhile: nobody asks for it there any more.
    is_unasked: bool,
    /// What the others said.
    failures: Vec<String>,
    waker: Option<Waker>,
}

impl Ticket {
    /// One for so many devices.
    pub(super) fn of(devices: usize) -> Ticket {
        let (is_taken, is_unasked) = (false, false);
        Ticket(Arc::new(Mutex::new(State {
            outstanding: devices,
            is_taken,
            is_unasked,
            failures: Vec::new(),
            waker: None,
        })))
    }

    /// A device has written it.
    pub(super) fn taken(&self) {
        self.tell(|state| state.is_taken = true);
    }

    /// A device could not write it.
    pub(super) fn failed(&self, why: String) {
        self.tell(|state| state.failures.push(why));
    }

    /// A device is on no more.
    pub(super) fn unasked(&self) {
        self.tell(|state| state.is_unasked = true);
    }

    fn tell(&self, what: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        what(&mut state);
        state.outstanding = state.outstanding.saturating_sub(1);
        let waker = if state.is_settled() { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn is_settled(&self) -> bool {
        self.is_taken || self.outstanding == 0
    }
}

/// Resolves once one device has the record, or none will; after `limit` at the latest. The error says of each why.
#[must_use = "a record counts when a device has it: await it"]
pub struct Taken {
    ticket: Ticket,
    limit: Duration,
}

impl Taken {
    pub(super) fn new(ticket: Ticket, limit: Duration) -> Taken {
        Taken { ticket, limit }
    }

    /// Waits, until `deadline` at the longest.
    pub async fn by(self, deadline: Option<Instant>) -> Result<(), String> {
        let end = Instant::now() + self.limit;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        let ticket = self.ticket.clone();
        match tokio::time::timeout_at(end.into(), self).await {
            Ok(settled) => settled,
            Err(_) => {
                let mut failures = std::mem::take(&mut ticket.0.lock().failures);
                failures.push("it was not written in time".to_owned());
                Err(failures.join("; "))
            }
        }
    }
}

impl Future for Taken {
    type Output = Result<(), String>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.ticket.0.lock();
        if !state.is_settled() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Where every device that was asked is gone, nothing has to be written.
        let is_good = state.is_taken || state.failures.is_empty();
        Poll::Ready(if is_good { Ok(()) } else { Err(state.failures.join("; ")) })
    }
}
