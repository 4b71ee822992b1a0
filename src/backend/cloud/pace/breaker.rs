//! When to stop asking who does not answer. A pure machine: the clock is passed in.

use std::time::{Duration, Instant};

use crate::model::Dice;

/// First and longest time a breaker stays open.
const OPEN_FIRST: Duration = Duration::from_millis(500);
const OPEN_MAX: Duration = Duration::from_secs(5);

/// Failures that are over sooner are for further tries to get over, which come later by chance.
const LASTING: Duration = Duration::from_millis(250);

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// All may pass.
    Closed,
    /// None may pass.
    Open,
    /// One may pass, to see.
    HalfOpen,
}

/// Opens after failures in a row, at least one of them of a request that was sent after the first was known: a volley lost
/// with one connection is one event. Nor does it open before they have gone on for [`LASTING`]. Stays open for half a second at
/// first, up to five when it does not help: one call in so long a time is no burden, and whoever serves again is used in seconds.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Failures in a row that open it.
    threshold: u32,
    failures: u32,
    /// When the first of them was sent, and when it was known.
    first: Option<(Instant, Instant)>,
    /// Set while it is not closed: it opens for one probe then.
    open_until: Option<Instant>,
    probing: bool,
    opened_in_row: u32,
}

/// Who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Yes,
    /// As the one who sees how it is: its end must be told.
    Probe,
    /// Not before then.
    No(Instant),
}

impl Breaker {
    pub(super) fn new(threshold: u32) -> Breaker {
        Breaker { threshold, failures: 0, first: None, open_until: None, probing: false, opened_in_row: 0 }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.open_until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Whether somebody could pass, without doing so.
    pub(super) fn check(&self, now: Instant) -> Pass {
        match self.open_until {
            None => Pass::Yes,
            Some(until) if now < until => Pass::No(until),
            Some(_) if self.probing => Pass::No(now + OPEN_FIRST),
            Some(_) => Pass::Probe,
        }
    }

    /// Lets somebody pass, or not.
    pub(super) fn pass(&mut self, now: Instant) -> Pass {
        let pass = self.check(now);
        self.probing |= pass == Pass::Probe;
        pass
    }

    /// Somebody was answered, with whatever.
    pub(super) fn answered(&mut self) {
        *self = Breaker::new(self.threshold);
    }

    /// A probe ended without a word.
    pub(super) fn gave_up(&mut self) {
        self.probing = false;
    }

    /// Somebody failed. True if that opened it, which it does only if it `may`.
    pub(super) fn failed(&mut self, sent_at: Instant, probe: bool, may: bool, dice: &mut Dice, now: Instant) -> bool {
        if self.open_until.is_some() {
            // What was sent before it opened is no news.
            if probe {
                self.open(dice, now);
            }
            return probe;
        }
        let (first_sent, first_known) = *self.first.get_or_insert((sent_at, now));
        self.failures = self.failures.saturating_add(1);
        let lasts = sent_at >= first_known && now.saturating_duration_since(first_sent) >= LASTING;
        let opens = may && self.failures >= self.threshold && lasts;
        if opens {
            self.open(dice, now);
        }
        opens
    }

    fn open(&mut self, dice: &mut Dice, now: Instant) {
        let pause = OPEN_FIRST.saturating_mul(1 << self.opened_in_row.min(8)).min(OPEN_MAX);
        self.opened_in_row = self.opened_in_row.saturating_add(1);
        self.open_until = Some(now + pause.mul_f64(0.75 + 0.25 * dice.part()));
        self.probing = false;
    }
}
