//! The one bounded queue of a pool. [`Lane::push`] accepts or refuses at once; session threads [`Lane::pull`] the next
//! jobs among those whose key set contains their member, so that one queue with many servers balances itself and a
//! stuck server simply stops pulling.
//!
//! Performance-critical: no I/O and no logging in here; the lock is held for a few list operations and never across a
//! wait of another kind.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::job::Job;
use super::route::MemberId;
use crate::model::{Fault, Namespace};

/// How far from the head a pull looks for a job its member may take. Bounds the time under the lock.
const LOOK_AHEAD: usize = 256;

/// The bounds of one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneLimits {
    /// Jobs queued in all.
    pub(super) jobs: usize,
    /// Jobs queued of one namespace.
    pub(super) jobs_per_namespace: usize,
    /// Jobs of one pull.
    pub(super) batch_max: usize,
    /// Expected device time of one pull.
    pub(super) batch_time: Duration,
}

/// A session's place at the lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) member: MemberId,
    /// The member's epoch when the session was opened; once the lane knows a later one, the seat is void.
    pub(super) epoch: u64,
}

/// One pool's queue.
pub(super) struct Lane {
    limits: LaneLimits,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    queued_of: HashMap<Namespace, usize>,
    /// The present epoch of each member, and how many of its sessions sit here.
    members: HashMap<MemberId, Membership>,
    serving: usize,
    waiting: usize,
    /// One was woken and has not come yet. It will wake the next if it leaves work behind, so that a burst of jobs
    /// costs as many wake-ups as sessions are needed for it, and not one a job.
    waking: bool,
    closed: bool,
}

#[derive(Default)]
struct Membership {
    epoch: u64,
    sessions: usize,
}

impl Lane {
    pub(super) fn new(limits: LaneLimits) -> Arc<Lane> {
        Arc::new(Lane { limits, state: Mutex::default(), work: Condvar::new() })
    }

    /// Queues a job, or refuses it at once.
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        if job.terms.deadline.passed(job.queued_at) {
            job.answer(Err(Fault::DeadlineExceeded { stage: "arriving" }));
            return Err(Fault::DeadlineExceeded { stage: "arriving" });
        }
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Err(Fault::Unavailable { what: "Keyway is shutting down; try again".into() });
        }
        if let Err(fault) = self.admit(&mut state, &job.terms.namespace) {
            drop(state);
            return Err(fault);
        }
        state.queue.push_back(job);
        self.wake(state);
        Ok(())
    }

    /// Counts one more job of `namespace`, or says which bound forbids it. Tells only of the caller's own namespace.
    fn admit(&self, state: &mut State, namespace: &Namespace) -> Result<(), Fault> {
        let full = state.queue.len() >= self.limits.jobs;
        let own = state.queued_of.get_mut(namespace);
        let own_full = own.as_ref().is_some_and(|queued| **queued >= self.limits.jobs_per_namespace);
        if full || own_full {
            let limit = if own_full { self.limits.jobs_per_namespace } else { self.limits.jobs };
            return Err(Fault::Overloaded { namespace: namespace.clone(), limit, retry_after: Duration::from_secs(1) });
        }
        match own {
            Some(queued) => *queued += 1,
            None => {
                state.queued_of.insert(namespace.clone(), 1);
            }
        }
        Ok(())
    }

    /// Takes a seat. The session may pull from now on.
    pub(super) fn sit(&self, seat: Seat) {
        let mut state = self.state.lock();
        let member = state.members.entry(seat.member).or_default();
        if member.epoch == seat.epoch {
            member.sessions += 1;
            state.serving += 1;
        }
    }

    /// Leaves a seat.
    pub(super) fn leave(&self, seat: Seat) {
        let mut state = self.state.lock();
        if let Some(member) = state.members.get_mut(&seat.member)
            && member.epoch == seat.epoch
            && member.sessions > 0
        {
            member.sessions -= 1;
            state.serving -= 1;
        }
    }

    /// Begins a new epoch of `member`: the seats of older ones are void, and their sessions leave.
    pub(super) fn begin_epoch(&self, member: MemberId, epoch: u64) {
        let mut state = self.state.lock();
        let membership = state.members.entry(member).or_default();
        let gone = std::mem::take(&mut membership.sessions);
        membership.epoch = epoch;
        state.serving -= gone;
        drop(state);
        self.work.notify_all();
    }

    /// Waits for jobs this seat may take and moves them to `batch`: `clamp(queued / serving, 1, batch_max)`, and never
    /// more than `batch_time` of expected device time. Jobs whose deadline has passed or whose asker has left are
    /// finished here. False when the seat is void or the lane closed and drained: the session ends.
    pub(super) fn pull(&self, seat: Seat, batch: &mut VecDeque<Job>) -> bool {
        let mut finished = Vec::new();
        let mut state = self.state.lock();
        loop {
            if state.members.get(&seat.member).is_none_or(|member| member.epoch != seat.epoch) {
                self.wake(state);
                return false;
            }
            self.take(&mut state, seat, batch, &mut finished);
            if !batch.is_empty() || !finished.is_empty() {
                self.wake(state);
                answer_all(&mut finished);
                if !batch.is_empty() {
                    return true;
                }
                state = self.state.lock();
                continue;
            }
            if state.closed && state.queue.is_empty() {
                return false;
            }
            self.wait(&mut state);
        }
    }

    /// Where work is left: wakes one waiting session, or all if the one woken might not be able to take it.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.queue.is_empty() || state.waiting == 0 {
            return;
        }
        if state.members.len() > 1 {
            drop(state);
            self.work.notify_all();
        } else if !std::mem::replace(&mut state.waking, true) {
            drop(state);
            self.work.notify_one();
        }
    }

    fn wait(&self, state: &mut MutexGuard<'_, State>) {
        state.waiting += 1;
        self.work.wait(state);
        state.waiting -= 1;
        state.waking = false;
    }

    fn take(&self, state: &mut State, seat: Seat, batch: &mut VecDeque<Job>, finished: &mut Vec<(Job, Fault)>) {
        let now = Instant::now();
        let most = (state.queue.len() / state.serving.max(1)).clamp(1, self.limits.batch_max);
        let mut planned = Duration::ZERO;
        let mut index = 0;
        while batch.len() < most && index < state.queue.len().min(LOOK_AHEAD) {
            let verdict = judge(&state.queue[index], seat, now);
            if let Verdict::Skip = verdict {
                index += 1;
                continue;
            }
            let cost = state.queue[index].key.expected().unwrap_or(self.limits.batch_time);
            if let Verdict::Take = verdict {
                if !batch.is_empty() && planned + cost > self.limits.batch_time {
                    break;
                }
                if !state.queue[index].key.begin() {
                    index += 1;
                    continue;
                }
            }
            let Some(job) = remove(state, index) else { break };
            match verdict {
                Verdict::Finish(fault) => finished.push((job, fault)),
                _ => {
                    planned += cost;
                    batch.push_back(job);
                }
            }
        }
    }

    /// Puts jobs back at the head, in their order: taken by a session that did not start them, or that failed in a way
    /// another try may mend. They were admitted once and keep their place whatever the bounds.
    pub(super) fn put_back(&self, jobs: impl DoubleEndedIterator<Item = Job>) {
        let mut state = self.state.lock();
        for job in jobs.rev() {
            *state.queued_of.entry(job.terms.namespace.clone()).or_default() += 1;
            state.queue.push_front(job);
        }
        drop(state);
        self.work.notify_all();
    }

    /// Wakes sessions that passed over a capped key: a place has become free, or a key set has grown.
    pub(super) fn nudge(&self) {
        if self.state.lock().waiting > 0 {
            self.work.notify_all();
        }
    }

    /// Answers every job whose key set has become empty.
    pub(super) fn sweep(&self) {
        let mut finished = Vec::new();
        let mut state = self.state.lock();
        let mut index = 0;
        while index < state.queue.len() {
            match state.queue[index].key.absence() {
                Some(fault) => {
                    if let Some(job) = remove(&mut state, index) {
                        finished.push((job, fault));
                    }
                }
                None => index += 1,
            }
        }
        drop(state);
        answer_all(&mut finished);
    }

    /// Accepts nothing more. Sessions finish what is queued and end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// Answers everything still queued as unavailable: the drain's time is up.
    pub(super) fn abandon(&self) {
        let jobs: Vec<Job> = {
            let mut state = self.state.lock();
            state.queued_of.clear();
            state.queue.drain(..).collect()
        };
        drop(jobs);
    }

    /// Sessions that wait for work.
    #[cfg(test)]
    pub(super) fn asleep(&self) -> usize {
        self.state.lock().waiting
    }

    /// Jobs queued now.
    pub(super) fn depth(&self) -> usize {
        self.state.lock().queue.len()
    }
}

/// What a pull does with a job.
enum Verdict {
    Take,
    Skip,
    Finish(Fault),
}

fn judge(job: &Job, seat: Seat, now: Instant) -> Verdict {
    if job.abandoned() || job.terms.deadline.passed(now) {
        return Verdict::Finish(Fault::DeadlineExceeded { stage: "queued" });
    }
    if job.key.handle(seat.member, seat.epoch).is_some() {
        return Verdict::Take;
    }
    job.key.absence().map_or(Verdict::Skip, Verdict::Finish)
}

fn remove(state: &mut State, index: usize) -> Option<Job> {
    // Nearly always the head: constant time there.
    let job = state.queue.remove(index)?;
    if let Some(queued) = state.queued_of.get_mut(&job.terms.namespace) {
        *queued -= 1;
        if *queued == 0 && state.queued_of.len() > 64 {
            state.queued_of.remove(&job.terms.namespace);
        }
    }
    Some(job)
}

fn answer_all(finished: &mut Vec<(Job, Fault)>) {
    for (job, fault) in finished.drain(..) {
        job.answer(Err(fault));
    }
}
