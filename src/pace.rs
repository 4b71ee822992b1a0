//! How the daemon's own threads share the cores with tokens that compute on them.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy, unix};

use super::Config;

/// Niceness 0 on the crate's scale, which runs from 0 (niceness 19) to 99 (niceness -20).
const NICE_ZERO: u8 = 48;

/// How eagerly a thread takes a core from another when it has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As any thread.
    Prompt,
    /// It waits until a core is free or its thread's turn is over. Where tokens compute on this host's own cores, each
    /// answer and each commit would else interrupt a signature; so they gather, and one wake-up serves several.
    Yielding,
}

impl Config {
    /// The pace of the threads that serve connections and write the store: tokens that compute here come before them.
    pub fn pace(&self) -> Pace {
        let here = self.kms_libraries.iter().any(|library| library.configured_traits().computes_here);
        if here { Pace::Yielding } else { Pace::Prompt }
    }
}

impl Pace {
    /// Gives the calling thread its place in the scheduler. `SCHED_BATCH` (sched(7)) needs no privilege, and a thread of it
    /// never pre-empts another when it wakes. A thread that cannot change goes on as it was.
    pub fn settle_into(self) {
        if self == Pace::Prompt {
            return;
        }
        let nice = getpriority_process(None);
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let settled = ThreadPriorityValue::try_from(NICE_ZERO).map_err(|error| error.to_string()).and_then(|nice| {
            let nice = ThreadPriority::Crossplatform(nice);
            unix::set_thread_priority_and_policy(unix::thread_native_id(), nice, batch)
                .map_err(|error| format!("{error:?}"))
        });
        // The crate sets a niceness too; the operator's stands.
        let kept = nice.and_then(|nice| setpriority_process(None, nice));
        if let Err(error) = settled.and(kept.map_err(|error| error.to_string())) {
            tracing::debug!(error, "a thread keeps its place in the scheduler; signing is slower by a little");
        }
    }
}
