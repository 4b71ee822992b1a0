//! Jobs that one thread submits in one go reach their lanes together: with one lock and one wake-up for all of them, and
//! whoever is woken finds them all.

use std::cell::RefCell;
use std::sync::Arc;

use super::job::Job;

thread_local! {
    static GATHERED: RefCell<Gathered> = const { RefCell::new(Gathered { is_on: false, jobs: Vec::new() }) };
}

/// What a thread has submitted since it began to gather.
struct Gathered {
    is_on: bool,
    /// Its room is kept for the next time.
    jobs: Vec<Job>,
}

/// Runs `work`, and pushes what it submits when it has ended. What a lane refuses is then answered so: whoever submitted it
/// learns of it by the answer.
pub fn together<R>(work: impl FnOnce() -> R) -> R {
    let is_outermost = GATHERED.with_borrow_mut(|gathered| !std::mem::replace(&mut gathered.is_on, true));
    // Made only here: whoever drops one pushes.
    let _end = is_outermost.then(|| End);
    work()
}

/// Takes a job if this thread gathers; else hands it back.
pub(super) fn gather(job: Job) -> Option<Job> {
    GATHERED.with_borrow_mut(|gathered| {
        if !gathered.is_on {
            return Some(job);
        }
        gathered.jobs.push(job);
        None
    })
}

/// Pushes what was gathered, even where the work panicked.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let mut jobs = GATHERED.with_borrow_mut(|gathered| {
            gathered.is_on = false;
            std::mem::take(&mut gathered.jobs)
        });
        while let Some(first) = jobs.first() {
            let lane = Arc::clone(first.key.lane());
            lane.push_all(jobs.extract_if(.., |job| Arc::ptr_eq(job.key.lane(), &lane)));
        }
        GATHERED.with_borrow_mut(|gathered| gathered.jobs = jobs);
    }
}
