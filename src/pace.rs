//! How the daemon's own threads share the cores with tokens that compute on them.
//!
//! Whoever sees whether a token does tells a [`Pace`], and the threads that serve connections and write the store go by it. It must not
//! know what a token is, nor what those threads do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy, unix};

/// Niceness 0 on the crate's scale, which runs from 0 (niceness 19) to 99 (niceness -20).
const NICE_ZERO: u8 = 48;

/// How eagerly threads take a core from another when they have something to do: at first as any thread. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    yields: Arc<AtomicBool>,
}

impl Pace {
    /// Whether its threads wait from now on until a core is free, or its thread's turn is over. Where tokens compute on this host's own
    /// cores, each answer and each commit would else interrupt a signature; so they gather, and one wake-up serves several.
    pub fn set_yields(&self, yields: bool) {
        self.yields.store(yields, Ordering::Relaxed);
    }

    /// Whether its threads wait for others.
    pub fn yields(&self) -> bool {
        self.yields.load(Ordering::Relaxed)
    }
}

/// The place of one thread in the scheduler.
#[derive(Debug)]
pub struct Paced {
    pace: Pace,
    yields: bool,
}

impl Paced {
    /// Of a thread that has its first place still.
    pub fn new(pace: Pace) -> Paced {
        Paced { pace, yields: false }
    }

    /// Gives the calling thread, which must be its own, the place that its pace asks for now. Cheap where that is the one it has.
    /// A thread that cannot change goes on as it was.
    pub fn keep(&mut self) {
        let yields = self.pace.yields();
        if yields == self.yields {
            return;
        }
        self.yields = yields;
        // `SCHED_BATCH` (sched(7)) needs no privilege, nor does the way back, and a thread of it never pre-empts another when it wakes.
        let policy = if yields { NormalThreadSchedulePolicy::Batch } else { NormalThreadSchedulePolicy::Other };
        let nice = getpriority_process(None);
        let settled = ThreadPriorityValue::try_from(NICE_ZERO).map_err(|error| error.to_string()).and_then(|nice| {
            let (nice, policy) = (ThreadPriority::Crossplatform(nice), ThreadSchedulePolicy::Normal(policy));
            unix::set_thread_priority_and_policy(unix::thread_native_id(), nice, policy)
                .map_err(|error| format!("{error:?}"))
        });
        // The crate sets a niceness too; the operator's stands.
        let kept = nice.and_then(|nice| setpriority_process(None, nice));
        if let Err(error) = settled.and(kept.map_err(|error| error.to_string())) {
            tracing::debug!(error, "a thread keeps its place in the scheduler; signing is slower by a little");
        }
    }
}

#[cfg(test)]
mod tests {
    use thread_priority::unix::thread_schedule_policy;

    use super::*;

    #[test]
    fn a_thread_goes_by_its_pace_there_and_back() {
        let pace = Pace::default();
        let mut paced = Paced::new(pace.clone());
        let nice = || getpriority_process(None).unwrap();
        let operators = nice();
        for yields in [true, true, false, true, false] {
            pace.set_yields(yields);
            paced.keep();
            let policy = if yields { NormalThreadSchedulePolicy::Batch } else { NormalThreadSchedulePolicy::Other };
            assert_eq!(thread_schedule_policy().unwrap(), ThreadSchedulePolicy::Normal(policy));
            assert_eq!(nice(), operators);
        }
    }
}
