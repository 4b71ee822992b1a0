//! What the watchdog sees of a session thread: since when its call goes on, and the jobs it has taken, which can be taken
//! back from it, even the one that hangs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::job::{Job, Work};
use super::route::MemberId;

/// One session thread, watched.
pub(super) struct Watch {
    started: Instant,
    /// When the call that is going on began, in microseconds since `started`, plus one; 0 between calls.
    call_since: AtomicU64,
    taken: Mutex<Taken>,
}

/// The jobs of a session.
#[derive(Default)]
struct Taken {
    jobs: VecDeque<Job>,
    /// So many at the front are with the token now.
    running: usize,
    /// So many were done.
    served: usize,
    /// The session was given up: should its call return after all, nobody wants to know.
    given_up: bool,
}

/// What a session that was given up leaves.
pub(super) struct Left {
    /// Jobs that were with the token: their answers may never come.
    pub(super) hung: Vec<Job>,
    /// Jobs that were not.
    pub(super) unstarted: VecDeque<Job>,
}

/// What the front of the queue has for a session.
pub(super) enum Front {
    /// Jobs were started.
    Started,
    /// Nothing is left.
    Nothing,
    /// The session was given up.
    GivenUp,
}

impl Watch {
    pub(super) fn new() -> Arc<Watch> {
        Arc::new(Watch { started: Instant::now(), call_since: AtomicU64::new(0), taken: Mutex::default() })
    }

    // === the watchdog's side ===

    /// How long the native call that is going on has taken.
    pub(super) fn in_call(&self) -> Option<Duration> {
        match self.call_since.load(Ordering::Acquire) {
            0 => None,
            since => Some(self.started.elapsed().saturating_sub(Duration::from_micros(since - 1))),
        }
    }

    /// Gives the session up and takes its jobs.
    pub(super) fn give_up(&self) -> Left {
        let mut taken = self.taken.lock();
        taken.given_up = true;
        let running = std::mem::take(&mut taken.running);
        let mut jobs = std::mem::take(&mut taken.jobs);
        let unstarted = jobs.split_off(running.min(jobs.len()));
        Left { hung: jobs.into(), unstarted }
    }

    /// Takes back what was not started.
    pub(super) fn reclaim(&self) -> VecDeque<Job> {
        let mut taken = self.taken.lock();
        let running = taken.running.min(taken.jobs.len());
        taken.jobs.split_off(running)
    }

    /// How many jobs it has done.
    pub(super) fn served(&self) -> usize {
        self.taken.lock().served
    }

    // === the session's side ===

    /// Notes that a call begins now.
    pub(super) fn begin_call(&self, now: Instant) {
        let micros = u64::try_from((now - self.started).as_micros()).unwrap_or(u64::MAX - 1);
        self.call_since.store(micros + 1, Ordering::Release);
    }

    /// Notes that it has ended.
    pub(super) fn end_call(&self) {
        self.call_since.store(0, Ordering::Release);
    }

    /// Whether jobs are left from before; `None` where the session was given up meanwhile, in a call without a job.
    pub(super) fn has_jobs(&self) -> Option<bool> {
        let taken = self.taken.lock();
        (!taken.given_up).then(|| !taken.jobs.is_empty())
    }

    /// What the next job is about, if one is left that this session may start, and which member is not to have it.
    pub(super) fn next(&self) -> Option<(Arc<Work>, Option<MemberId>)> {
        let taken = self.taken.lock();
        taken.jobs.front().filter(|_| !taken.given_up).map(|job| (Arc::clone(job.work()), job.avoid))
    }

    /// Whether somebody still waits for the next job, and this session may start it.
    pub(super) fn is_wanted(&self) -> bool {
        let taken = self.taken.lock();
        taken.jobs.front().is_some_and(|job| !taken.given_up && !job.abandoned())
    }

    /// Takes over a batch. One that comes after the session was given up is handed back.
    pub(super) fn take_over(&self, batch: &mut VecDeque<Job>) -> bool {
        let mut taken = self.taken.lock();
        if taken.given_up {
            return false;
        }
        taken.jobs.append(batch);
        true
    }

    /// Looks at the front jobs, `most` of them: `start` says of each whether it is started (true); by false it is handed
    /// `elsewhere`.
    pub(super) fn start(
        &self,
        most: usize,
        mut start: impl FnMut(&Job) -> bool,
        mut elsewhere: impl FnMut(Job),
    ) -> Front {
        let mut taken = self.taken.lock();
        if taken.given_up {
            return Front::GivenUp;
        }
        let mut running = 0;
        while running < most
            && let Some(job) = taken.jobs.get(running)
        {
            if start(job) {
                running += 1;
            } else if let Some(job) = taken.jobs.remove(running) {
                elsewhere(job);
            }
        }
        taken.running = running;
        if running > 0 { Front::Started } else { Front::Nothing }
    }

    /// Nothing is with the token any more: what it was not told of was not begun.
    pub(super) fn stop(&self) {
        self.taken.lock().running = 0;
    }

    /// The token is through with the front job: takes it out. `None` where the watchdog took it meanwhile.
    pub(super) fn finish(&self, is_done: bool) -> Option<Job> {
        let mut taken = self.taken.lock();
        taken.served += usize::from(is_done);
        taken.running = taken.running.saturating_sub(1);
        if taken.given_up { None } else { taken.jobs.pop_front() }
    }

    /// Puts the job just finished back to be tried again by this session. The watchdog may have given the session up
    /// since: then it is handed back.
    pub(super) fn again(&self, job: Job) -> Option<Job> {
        let mut taken = self.taken.lock();
        if taken.given_up {
            return Some(job);
        }
        taken.jobs.push_front(job);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_given_up_in_a_call_without_a_job_learns_of_it() {
        let watch = Watch::new();
        watch.begin_call(Instant::now());
        assert_eq!(watch.has_jobs(), Some(false));
        let Left { hung, unstarted } = watch.give_up();
        assert!(hung.is_empty() && unstarted.is_empty());
        watch.end_call();
        assert_eq!(watch.has_jobs(), None);
    }
}
