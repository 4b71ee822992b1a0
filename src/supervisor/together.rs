//! Jobs that one thread submits in one go reach their lanes together: with one lock and one wake-up for all of them, and
//! whoever is woken finds them all.

use std::cell::RefCell;
use std::sync::Arc;

use super::job::Job;

thread_local! {
    /// What this thread has submitted since it began to gather; `None` while it does not.
    static GATHERED: RefCell<Option<Vec<Job>>> = const { RefCell::new(None) };
}

/// Runs `work`, and pushes what it submits when it has ended. What a lane refuses is then answered so: whoever submitted it
/// learns of it by the answer.
pub fn together<R>(work: impl FnOnce() -> R) -> R {
    let is_outermost = GATHERED.with_borrow_mut(|gathered| {
        let is_outermost = gathered.is_none();
        gathered.get_or_insert_default();
        is_outermost
    });
    // Made only here: whoever drops one pushes.
    let _end = is_outermost.then(|| End);
    work()
}

/// Takes a job if this thread gathers; else hands it back.
pub(super) fn gather(job: Job) -> Option<Job> {
    GATHERED.with_borrow_mut(|gathered| match gathered {
        Some(jobs) => {
            jobs.push(job);
            None
        }
        None => Some(job),
    })
}

/// Pushes what was gathered, even where the work panicked.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let mut jobs = GATHERED.take().unwrap_or_default();
        while let Some(first) = jobs.first() {
            let lane = Arc::clone(first.key.lane());
            lane.push_all(jobs.extract_if(.., |job| Arc::ptr_eq(job.key.lane(), &lane)));
        }
    }
}
