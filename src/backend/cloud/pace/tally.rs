//! How much was accepted lately.

use std::time::{Duration, Instant};

const SLOTS: usize = 21;

/// Sums over the last window, and up to a twentieth more: what is on its way belongs to it, too.
#[derive(Debug)]
pub(super) struct Tally {
    slot: Duration,
    sums: [f64; SLOTS],
    /// The slot that is filled now, and when the next one begins.
    current: usize,
    until: Instant,
}

impl Tally {
    pub(super) fn new(window: Duration, now: Instant) -> Tally {
        let slot = (window / 20).max(Duration::from_millis(1));
        Tally { slot, sums: [0.0; SLOTS], current: 0, until: now + slot }
    }

    pub(super) fn add(&mut self, more: f64, now: Instant) {
        self.turn(now);
        self.sums[self.current] += more;
    }

    pub(super) fn sum(&mut self, now: Instant) -> f64 {
        self.turn(now);
        self.sums.iter().sum()
    }

    fn turn(&mut self, now: Instant) {
        for _ in 0..SLOTS {
            if now < self.until {
                return;
            }
            self.until += self.slot;
            self.current = (self.current + 1) % SLOTS;
            self.sums[self.current] = 0.0;
        }
        // After a long rest every sum is 0.
        if now >= self.until {
            self.until = now + self.slot;
        }
    }
}
