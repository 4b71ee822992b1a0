//! What is under way, where nobody has to know how much: whether anything is.
//!
//! A count that all threads change is passed from processor to processor with each change. Here each thread has a part, which
//! others read only when they ask.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use super::part::{PARTS, part};

/// Counts its holders, in cache lines of its own.
type Part = Arc<CachePadded<()>>;

/// Things that were begun, and have not ended.
#[derive(Default)]
pub struct UnderWay([OnceLock<Part>; PARTS]);

/// One of them: it ends when this is dropped, on whichever thread.
#[must_use]
pub struct Begun {
    _part: Part,
}

impl UnderWay {
    /// Begins one.
    pub fn begin(&self) -> Begun {
        Begun { _part: Arc::clone(self.0[part()].get_or_init(Arc::default)) }
    }

    /// Whether there is any: of those, too, that were begun before whatever the caller has seen just now.
    pub fn is_any(&self) -> bool {
        fence(Ordering::Acquire);
        self.0.iter().filter_map(OnceLock::get).any(|part| Arc::strong_count(part) > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_under_way_until_all_that_was_begun_has_ended_whoever_ends_it() {
        let under_way = UnderWay::default();
        assert!(!under_way.is_any());
        let mine = under_way.begin();
        let begun: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * PARTS).map(|_| scope.spawn(|| under_way.begin())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        drop(mine);
        assert!(under_way.is_any());
        let last = begun.into_iter().reduce(|_, last| last);
        assert!(under_way.is_any());
        std::thread::spawn(move || drop(last)).join().unwrap();
        assert!(!under_way.is_any());
    }
}
