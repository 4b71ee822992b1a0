//! What is to be told of a key or a domain that does not serve, or of one that is throttled: once when that begins and once when it
//! is over, however often requests fail between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// That a domain is throttled is not told more often.
const THROTTLED_EVERY: Duration = Duration::from_secs(60);

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Began,
    Over,
}

/// What there is to tell after a request: of its key's breaker, of its domain's, and of the domain's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) key: Option<Change>,
    pub(crate) domain: Option<Change>,
    pub(crate) rate: Option<Change>,
}

/// Whether a breaker has not been closed since it was told of, and what failed last.
#[derive(Default)]
pub(super) struct Outage {
    is_on: AtomicBool,
    reason: Mutex<String>,
}

impl Outage {
    /// Takes note of why a request failed.
    pub(super) fn note(&self, why: &str) {
        why.clone_into(&mut self.reason.lock());
    }

    /// What failed last.
    pub(super) fn reason(&self) -> String {
        self.reason.lock().clone()
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The breaker is closed, or not.
    pub(super) fn look(&self, is_closed: bool) -> Option<Change> {
        // Nearly always there is nothing to tell, and nothing to write.
        if self.is_on() != is_closed || self.is_on.swap(!is_closed, Ordering::Relaxed) != is_closed {
            return None;
        }
        Some(if is_closed { Change::Over } else { Change::Began })
    }
}

/// Whether it was told that a domain is throttled, and when last.
#[derive(Debug, Default)]
pub(super) struct Throttling {
    is_told: bool,
    last: Option<Instant>,
}

impl Throttling {
    /// The domain is throttled, or not.
    pub(super) fn look(&mut self, is_throttled: bool, now: Instant) -> Option<Change> {
        let may_tell = self.last.is_none_or(|last| now >= last + THROTTLED_EVERY);
        match (is_throttled, self.is_told) {
            (true, false) if may_tell => {
                (self.is_told, self.last) = (true, Some(now));
                Some(Change::Began)
            }
            (false, true) => {
                self.is_told = false;
                Some(Change::Over)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_when_it_begins_and_once_when_it_is_over() {
        let outage = Outage::default();
        assert_eq!(outage.look(true), None);
        outage.note("reset");
        let told = [false, false, false, true, true, false].map(|is_closed| outage.look(is_closed));
        assert_eq!(told, [Some(Change::Began), None, None, Some(Change::Over), None, Some(Change::Began)]);
        assert_eq!(outage.reason(), "reset");
    }

    #[test]
    fn throttling_is_told_once_in_a_while() {
        let (mut throttling, begun) = (Throttling::default(), Instant::now());
        let mut look = |is_throttled, seconds| throttling.look(is_throttled, begun + Duration::from_secs(seconds));
        assert_eq!([look(false, 0), look(true, 1), look(true, 2)], [None, Some(Change::Began), None]);
        assert_eq!([look(false, 5), look(false, 6)], [Some(Change::Over), None]);
        // What flaps is not told each time.
        assert_eq!([look(true, 7), look(false, 8), look(true, 61)], [None, None, Some(Change::Began)]);
    }
}
