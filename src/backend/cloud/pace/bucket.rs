//! A token bucket whose clock is passed in.

use std::time::{Duration, Instant};

/// Longest time anything is put off by, so that no sum of times overflows.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Tokens that come at a rate, up to a depth.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Tokens a second.
    rate: f64,
    depth: f64,
    held: f64,
    /// When `held` was true. It may lie ahead: until then no token comes.
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: f64, depth: f64, now: Instant) -> Bucket {
        Bucket { rate, depth, held: depth, at: now }
    }

    /// Takes `cost` tokens if they are there.
    pub(super) fn take(&mut self, cost: f64, now: Instant) -> bool {
        self.fill(now);
        if self.held + 1e-9 < cost.min(self.depth) {
            return false;
        }
        // What costs more than the bucket is deep takes it full, and leaves a debt.
        self.held -= cost;
        true
    }

    /// When so many tokens will be there if nobody takes any.
    pub(super) fn ready(&self, tokens: f64) -> Instant {
        let missing = ((tokens - self.held) / self.rate).max(0.0);
        self.at + Duration::try_from_secs_f64(missing).unwrap_or(LONGEST).min(LONGEST)
    }

    /// When what costs so much can be taken.
    pub(super) fn next(&self, cost: f64) -> Instant {
        self.ready(cost.min(self.depth))
    }

    /// Changes the rate and the depth.
    pub(super) fn set(&mut self, rate: f64, depth: f64, now: Instant) {
        self.fill(now);
        (self.rate, self.depth) = (rate, depth);
        self.held = self.held.min(depth);
    }

    /// Empties it, and lets no token come before `until`.
    pub(super) fn empty(&mut self, until: Instant) {
        self.held = self.held.min(0.0);
        self.at = self.at.max(until);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        if passed > 0.0 {
            self.held = (self.held + passed * self.rate).min(self.depth);
            self.at = now;
        }
    }
}
