//! Chance for what must not happen at once everywhere. Not for secrets.

use std::hash::{BuildHasher, RandomState};

/// A stream of numbers that differs from process to process (xorshift64*).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeded from what the standard library seeds its hash maps with.
    pub(crate) fn new() -> Dice {
        Dice::seeded(RandomState::new().hash_one(0_u8))
    }

    pub(crate) fn seeded(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// At least 0, less than 1.
    pub(crate) fn part(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = u32::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(0);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}
