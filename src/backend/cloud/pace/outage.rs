//! What is to be told of a key or a domain that does not serve, or of one that is throttled: once when that begins and once when it
//! is over, however often requests fail between; and no more than once a minute, however often it comes and goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// That the same thing began is not told more often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

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

/// Why a request failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why<'a> {
    /// The word that metrics have for it, out of a closed set: all that others learn.
    pub(crate) cause: &'static str,
    /// The whole of it, by the word of whoever answered: for the log, and for those who use the same key.
    pub(crate) reason: &'a str,
}

/// Whether a breaker is not closed, and what failed last.
#[derive(Default)]
pub(super) struct Outage {
    is_on: AtomicBool,
    told: Mutex<Told>,
    last: Mutex<(&'static str, String)>,
}

impl Outage {
    /// Takes note of why a request failed.
    pub(super) fn note(&self, why: Why<'_>) {
        let (cause, reason) = &mut *self.last.lock();
        *cause = why.cause;
        why.reason.clone_into(reason);
    }

    /// What failed last, in a word.
    pub(super) fn cause(&self) -> &'static str {
        self.last.lock().0
    }

    /// What failed last.
    pub(super) fn reason(&self) -> String {
        self.last.lock().1.clone()
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The breaker is closed, or not.
    pub(super) fn look(&self, is_closed: bool, now: Instant) -> Option<Change> {
        // Nearly always there is nothing to tell, and nothing to write.
        if is_closed && !self.is_on() {
            return None;
        }
        let mut told = self.told.lock();
        self.is_on.store(!is_closed, Ordering::Relaxed);
        told.look(!is_closed, now)
    }
}

/// Whether it was told that something is the matter, and when last.
#[derive(Debug, Default)]
pub(super) struct Told {
    is_told: bool,
    last: Option<Instant>,
}

impl Told {
    /// Something is the matter, or nothing.
    pub(super) fn look(&mut self, is_on: bool, now: Instant) -> Option<Change> {
        let may_tell = self.last.is_none_or(|last| now >= last + TOLD_EVERY);
        match (is_on, self.is_told) {
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
        let (outage, begun) = (Outage::default(), Instant::now());
        assert_eq!(outage.look(true, begun), None);
        outage.note(Why { cause: "connection", reason: "reset" });
        let told = [false, false, false, true, true].map(|is_closed| outage.look(is_closed, begun));
        assert_eq!(told, [Some(Change::Began), None, None, Some(Change::Over), None]);
        assert_eq!((outage.cause(), &*outage.reason()), ("connection", "reset"));
    }

    #[test]
    fn an_outage_that_comes_and_goes_is_told_once_a_minute() {
        let (outage, begun) = (Outage::default(), Instant::now());
        let look = |is_closed, seconds| outage.look(is_closed, begun + Duration::from_secs(seconds));
        assert_eq!([look(false, 0), look(true, 1)], [Some(Change::Began), Some(Change::Over)]);
        for second in 2..59 {
            assert_eq!([look(false, second), look(true, second)], [None, None], "{second}");
        }
        // It is one all the same, and told of if it lasts.
        assert_eq!((look(false, 59), outage.is_on()), (None, true));
        assert_eq!([look(false, 60), look(true, 61)], [Some(Change::Began), Some(Change::Over)]);
        assert!(!outage.is_on());
    }

    #[test]
    fn the_same_is_told_once_in_a_while() {
        let (mut told, begun) = (Told::default(), Instant::now());
        let mut look = |is_on, seconds| told.look(is_on, begun + Duration::from_secs(seconds));
        assert_eq!([look(false, 0), look(true, 1), look(true, 2)], [None, Some(Change::Began), None]);
        assert_eq!([look(false, 5), look(false, 6)], [Some(Change::Over), None]);
        // What flaps is not told each time.
        assert_eq!([look(true, 7), look(false, 8), look(true, 61)], [None, None, Some(Change::Began)]);
    }
}
