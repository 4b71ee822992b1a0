//! Counting what comes in each second, so that the rest of it can be let go.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many there were in the second that is being counted, without a lock.
#[derive(Debug, Default)]
pub struct EachSecond(
    /// The second, and the count in its lower half.
    AtomicU64,
);

impl EachSecond {
    /// Counts one that comes in `second`, and tells which of that second's it is, from 1 on.
    pub fn count(&self, second: u64) -> u64 {
        let second = second << 32;
        let next = |known: u64| if known >> 32 == second >> 32 { known.saturating_add(1) } else { second + 1 };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| Some(next(known)));
        next(before.unwrap_or_else(|known| known)) & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_begins_anew() {
        let counted = EachSecond::default();
        assert_eq!([7, 7, 7, 8, 8, 10].map(|second| counted.count(second)), [1, 2, 3, 1, 2, 1]);
    }
}
