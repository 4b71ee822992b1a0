//! How the daemon's own threads share the cores with tokens that compute on them.
//!
//! Whoever sees whether a token does tells a [`Pace`], and the threads that serve connections and write the store go by it. It must not
//! know what a token is, nor what those threads do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getpriority_process;
use thread_priority::unix::thread_schedule_policy;
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy, unix};

/// `SCHED_BATCH` (sched(7)) needs no privilege, nor does the way back, and a thread of it never pre-empts another when it wakes.
const YIELDING: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);

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

/// The place of one thread in the scheduler. Threads that it starts while it yields have its place at first, and keep it unless they
/// go by a pace themselves.
#[derive(Debug)]
pub struct Paced {
    pace: Pace,
    /// The policy it had, while it yields.
    first: Option<ThreadSchedulePolicy>,
}

impl Paced {
    /// Of a thread that has its first place still.
    pub fn new(pace: Pace) -> Paced {
        Paced { pace, first: None }
    }

    /// Gives the calling thread, which must be its own, the place that its pace asks for now. Cheap where that is the one it has.
    /// A thread that cannot change goes on as it was.
    pub fn keep(&mut self) {
        let settled = match (self.pace.yields(), self.first) {
            (true, None) => thread_schedule_policy().map_err(|error| format!("{error:?}")).and_then(|first| {
                self.first = Some(first);
                settle(YIELDING)
            }),
            (false, Some(first)) => {
                self.first = None;
                settle(first)
            }
            (true, Some(_)) | (false, None) => return,
        };
        if let Err(error) = settled {
            tracing::debug!(error, "a thread keeps its place in the scheduler; signing is slower by a little");
        }
    }
}

/// Gives the calling thread another policy, and leaves its niceness, which is the operator's.
fn settle(policy: ThreadSchedulePolicy) -> Result<(), String> {
    let nice = getpriority_process(None).map_err(|error| error.to_string())?;
    // The crate sets the niceness, too: by a scale of its own, on which each has its place.
    let place = (0..=u8::from(ThreadPriorityValue::MAX))
        .filter_map(|value| ThreadPriorityValue::try_from(value).ok().map(ThreadPriority::Crossplatform))
        .find(|place| place.to_posix(policy).is_ok_and(|its| its == nice));
    let place = place.ok_or_else(|| format!("there is no place for niceness {nice}"))?;
    unix::set_thread_priority_and_policy(unix::thread_native_id(), place, policy).map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use rustix::process::setpriority_process;

    use super::*;

    #[test]
    fn a_thread_goes_by_its_pace_there_and_back_and_keeps_its_niceness() {
        let pace = Pace::default();
        let mut paced = Paced::new(pace.clone());
        let place = || (thread_schedule_policy().unwrap(), getpriority_process(None).unwrap());
        let (first, operators) = place();
        // Any thread may become nicer; and others than root may not take that back.
        for nice in operators..(operators + 4).min(19) {
            setpriority_process(None, nice).unwrap();
            for yields in [true, true, false, true, false] {
                pace.set_yields(yields);
                paced.keep();
                assert_eq!(place(), (if yields { YIELDING } else { first }, nice));
            }
        }
    }
}
