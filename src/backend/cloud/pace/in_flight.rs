//! How many requests may be in flight at once: additive increase, multiplicative decrease. A pure machine.
//!
//! The limit doubles from round to round until something is amiss for the first time, and grows by one a round from then on,
//! always only while it is met. Timeouts, resets and errors of the service lower it; so do answers that take many times as
//! long as they did: a service that queues is not made faster by more.

use std::time::Duration;

/// The limit at first.
const FIRST: f64 = 32.0;
/// The least limit.
const LEAST: f64 = 4.0;
/// Answers that take so many times as long as they can, and longer than [`NOTABLE`] more, are a sign of a queue.
const SLOW: f64 = 5.0;
const NOTABLE: f64 = 0.05;

/// No answer for so many times as long as answers take of late, and for so long, is silence; of a service that has not answered
/// yet, for so long as the last of these.
const SILENT: f64 = 10.0;
const SILENCE: (f64, f64) = (0.25, 1.0);

/// Requests in flight, and their limit.
#[derive(Debug)]
pub(super) struct InFlight {
    count: usize,
    limit: f64,
    most: f64,
    /// Whether something was ever amiss.
    steady: bool,
    /// Seconds an answer takes at best, and takes of late.
    best: Option<f64>,
    recent: f64,
    /// Requests before this one know nothing of the last change.
    changed_at: u64,
    next_number: u64,
}

impl InFlight {
    pub(super) fn new(most: usize) -> InFlight {
        let most = bounded(most);
        let limit = FIRST.min(most);
        InFlight { count: 0, limit, most, steady: false, best: None, recent: 0.0, changed_at: 0, next_number: 0 }
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = bounded(most);
        self.limit = self.limit.min(self.most);
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many may be in flight: between 1 and what `bounded` allows.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limit()
    }

    pub(super) fn sent(&mut self, number: u64) {
        self.count += 1;
        self.next_number = number + 1;
    }

    /// One is in flight no longer.
    pub(super) fn over(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// One was answered after so long, before [`InFlight::over`].
    pub(super) fn answered(&mut self, number: u64, latency: Duration) {
        let latency = latency.as_secs_f64();
        let best = self.best.map_or(latency, |best| best.min(latency));
        self.recent = if self.best.is_none() { latency } else { self.recent + (latency - self.recent) / 16.0 };
        // What was best once is forgotten slowly: it may have been another network.
        self.best = Some(best + (self.recent - best) / 65_536.0);
        if self.recent > best * SLOW && self.recent > best + NOTABLE {
            return self.shrink(number, 0.9);
        }
        if self.is_full() {
            self.limit = (self.limit + if self.steady { 1.0 / self.limit } else { 1.0 }).min(self.most);
        }
    }

    /// Whether no answer within this time says that the service is ill, and not that somebody was in a hurry.
    pub(super) fn is_silence(&self, took: Duration) -> bool {
        let least = if self.best.is_some() { SILENCE.0.max(self.recent * SILENT) } else { SILENCE.1 };
        took.as_secs_f64() >= least
    }

    /// One met a failure of transport or of the service.
    pub(super) fn failed(&mut self, number: u64) {
        self.shrink(number, 0.7);
    }

    /// Once a round: who was sent before the last change says nothing about it.
    fn shrink(&mut self, number: u64, factor: f64) {
        if number >= self.changed_at {
            self.limit = (self.limit * factor).max(LEAST.min(self.limit));
            self.changed_at = self.next_number;
            self.steady = true;
        }
    }
}

fn bounded(most: usize) -> f64 {
    f64::from(u32::try_from(most.clamp(1, 65_536)).unwrap_or(1))
}
