//! The parts of what threads change all the time. A line of memory that all of them write to goes from processor to processor with
//! each change; so each thread has a part of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that ask one after the other for the first time have a part each; where there are more, some share one.
pub const PARTS: usize = 8;

/// Threads that have had a part.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PART: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PARTS;
}

/// The calling thread's part: below [`PARTS`].
pub fn part() -> usize {
    // Where a thread is about to end, it may have forgotten its own.
    PART.try_with(|part| *part).unwrap_or(0)
}
