//! What becomes of a job that a member could not do: who tries it next, and when.

use std::time::Instant;

use super::super::job::{Job, Work};
use super::super::resting::pause;
use super::super::route::MemberId;
use super::super::seats::Seat;
use super::{Lane, State, answer_all, judge};
use crate::model::Fault;
use crate::model::schedule::{Fit, Item};

/// When a job that failed is tried once more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Further {
    AtOnce,
    /// By its member once that is up again; at once by others.
    BroughtUp,
    /// After a rest, when all have had it that hold its key.
    Rested,
}

impl Lane {
    /// Has a job that `failed` once more tried, by another member if one holds its key: within its deadline, its number
    /// of tries and its namespace's budget. Else it is answered with `fault`. True if it will be tried.
    pub(in super::super) fn retry(&self, job: Job, fault: Fault, failed: MemberId) -> bool {
        self.again(job, fault, failed, Further::AtOnce).is_some()
    }

    /// The same of one whose member has to be brought up anew before it can have any job: that was no failure of this one.
    pub(in super::super) fn retry_brought_up(&self, job: Job, fault: Fault, failed: MemberId) -> bool {
        self.again(job, fault, failed, Further::BroughtUp).is_some()
    }

    /// The same of one that is better not tried at once by who failed it: when all have that hold its key, it rests for a while
    /// before they have it once more. Answers when it is due, for [`Lane::nudge`]; `None` where it is not tried.
    pub(in super::super) fn retry_later(&self, job: Job, fault: Fault, failed: MemberId) -> Option<Instant> {
        self.again(job, fault, failed, Further::Rested)
    }

    fn again(&self, mut job: Job, fault: Fault, failed: MemberId, further: Further) -> Option<Instant> {
        job.avoid = Some(failed);
        let (key, now) = (job.hand_over(), Instant::now());
        let mut state = self.state.lock();
        if let Err(fault) = self.grant(&mut state, &mut job, fault, further, now) {
            drop(state);
            self.come_back(key.as_slice());
            job.answer(Err(fault));
            return None;
        }
        let well = 1 + job.key.others(failed, |other| state.shut.is_well(other, now));
        let (rounds, is_round_over) = (usize::from(job.attempts) / well, usize::from(job.attempts) % well == 0);
        let due = if further == Further::Rested && is_round_over {
            let due = now + pause(rounds, job.room(now), &mut state.dice);
            state.resting.put(due, job.tenant(), job.bytes(), job);
            due
        } else {
            state.schedule.put_back(job.tenant(), job);
            now
        };
        drop(state);
        self.come_back(key.as_slice());
        Some(due)
    }

    /// Whether a session that waits with a job had better hand it back: its member holds the key no more, another may do it
    /// sooner (unless it is that one which is to `avoid` the job), there is something more urgent to do, or what is queued may
    /// have to be given up soon.
    pub(in super::super) fn prefers_another(&self, seat: &Seat, waits: &Work, avoid: Option<MemberId>) -> bool {
        if waits.key.handle(seat.place).is_none() {
            return true;
        }
        let (now, state) = (Instant::now(), self.state.lock());
        let State { schedule, shut, .. } = &*state;
        let fits = |job: &Job| matches!(judge(job, seat.place, shut, now), Fit::Take);
        state.closed
            || (avoid.is_none() && state.is_awaited_elsewhere(&waits.key, seat.place.member, now))
            || schedule.any(&mut |job: &Job| match job.class() < waits.terms.class && fits(job) {
                true => Fit::<()>::Take,
                false => Fit::Skip,
            })
    }

    /// Puts jobs back that a member could not begin, for want of leave: to be taken by another that has nothing to do, if there is
    /// one. Once: a job that failed elsewhere does not go there again for that, nor one to and fro.
    pub(in super::super) fn hand_back(&self, jobs: impl DoubleEndedIterator<Item = Job>, member: MemberId) {
        let now = Instant::now();
        let handed = |mut job: Job| {
            if job.avoid.is_none() && self.state.lock().is_awaited_elsewhere(&job.key, member, now) {
                job.avoid = Some(member);
            }
            job
        };
        self.put_back(jobs.map(handed).collect::<Vec<_>>().into_iter());
    }

    /// Hands a job on that its member did not begin, since what it leads to is left alone until then: to another that holds its
    /// key, which is no further try. Where there is none, one for which a call was made rests until the next can be, if that
    /// is in time, for which this says when; any other is answered with `fault`.
    pub(in super::super) fn refused(
        &self,
        mut job: Job,
        fault: Fault,
        member: MemberId,
        until: Instant,
    ) -> Option<Instant> {
        let (key, now) = (job.hand_over(), Instant::now());
        let mut state = self.state.lock();
        state.shut.note(member, until);
        job.key.note_failed();
        let (mut due, mut alone) = (None, None);
        let room = job.room(until.max(now));
        if state.is_held_elsewhere(&job, member, now) {
            state.schedule.put_back(job.tenant(), job);
        } else if job.tried && !room.is_zero() {
            let at = until.max(now) + pause(1, room, &mut state.dice);
            state.resting.put(at, job.tenant(), job.bytes(), job);
            due = Some(at);
        } else {
            alone = Some(job);
        }
        drop(state);
        self.come_back(key.as_slice());
        alone.into_iter().for_each(|job| job.answer(Err(fault.clone())));
        due
    }

    /// Puts jobs back whose member is to be left alone until then, by the word of what it leads to. Those that nobody can begin in time
    /// are answered at once, of what is queued, too.
    pub(in super::super) fn pause(
        &self,
        jobs: impl DoubleEndedIterator<Item = Job>,
        fault: Fault,
        member: MemberId,
        until: Instant,
    ) {
        self.state.lock().shut.pause(member, until, fault);
        self.put_back(jobs);
        let mut late = {
            let (now, mut state) = (Instant::now(), self.state.lock());
            let State { schedule, resting, shut, .. } = &mut *state;
            let mut over = |job: &Job| shut.too_late(job, now);
            let mut late = schedule.sweep(&mut over);
            late.extend(resting.sweep(over));
            late
        };
        answer_all(&mut late);
    }

    /// Hands on what its member cannot begin in time: to another that holds its key, once; else it is answered with `fault`.
    pub(in super::super) fn too_late(&self, mut job: Job, fault: Fault, member: MemberId) {
        if job.avoid.is_none() && self.is_held_elsewhere(&job, member) {
            job.avoid = Some(member);
            return self.put_back(std::iter::once(job));
        }
        let key = job.hand_over();
        self.come_back(key.as_slice());
        job.answer(Err(fault));
    }

    /// Whether a job's key is held by another member than this one, which is not left alone.
    pub(in super::super) fn is_held_elsewhere(&self, job: &Job, member: MemberId) -> bool {
        self.state.lock().is_held_elsewhere(job, member, Instant::now())
    }

    /// Counts one more try of a job that failed, by the session that has it. `Err` is what it is to be answered with instead.
    pub(in super::super) fn retry_here(&self, job: &mut Job, fault: Fault, failed: MemberId) -> Result<(), Fault> {
        job.avoid = Some(failed);
        self.grant(&mut self.state.lock(), job, fault, Further::AtOnce, Instant::now())
    }

    /// Every further try is one of at most so many and of its namespace's budget, wherever it is made.
    ///
    /// One that would end after the deadline, by what its key's operations took until now, is not made: the asker learns at
    /// once what went wrong, and not later that it is late. A first try is made whatever is expected of it: an average is no
    /// reason to refuse what may be in time.
    ///
    /// Tries that wait before the next count for themselves: a key that a service does not know for once, at the end of an outage,
    /// ends no job, nor do members that all lost their logins.
    fn grant(
        &self,
        state: &mut State,
        job: &mut Job,
        fault: Fault,
        further: Further,
        now: Instant,
    ) -> Result<(), Fault> {
        let at_once = further == Further::AtOnce;
        job.attempts += 1;
        job.rests += u8::from(!at_once);
        let is_last = match at_once {
            true => job.attempts - job.rests >= self.limits.attempts,
            false => job.attempts >= self.limits.resting_attempts,
        };
        job.tried = true;
        job.key.note_failed();
        let late = job.terms.deadline.passed(now);
        let too_long = job.terms.deadline.passed(now + job.key.learnt(&job.operation));
        let burst = self.limits.retry_burst.saturating_mul(100);
        let budget = state.budgets.entry(job.tenant()).or_insert(burst);
        if too_long || is_last || *budget < 100 || job.abandoned() {
            job.metrics().not_retried();
            return Err(if late { Fault::DeadlineExceeded { stage: "started" } } else { fault });
        }
        *budget -= 100;
        job.metrics().retried();
        Ok(())
    }
}
