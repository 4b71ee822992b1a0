//! When an answer stops being of use.

use std::time::{Duration, Instant};

/// The moment after which a job must not be started and its asker is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `span` from now.
    pub fn after(span: Duration) -> Deadline {
        Deadline(Instant::now() + span)
    }

    /// At this instant.
    pub const fn at(instant: Instant) -> Deadline {
        Deadline(instant)
    }

    /// The instant itself.
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// Whether it has passed at `now`.
    pub fn passed(self, now: Instant) -> bool {
        now >= self.0
    }

    /// What is left of it, zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
