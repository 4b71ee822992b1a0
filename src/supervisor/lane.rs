//! The one bounded queue of a pool. [`Lane::push`] accepts or refuses at once; session threads [`Lane::pull`] the next
//! jobs, in the order of the [`Schedule`], among those whose key set contains their member: one queue with many servers
//! balances itself, and a stuck server simply stops pulling.
//!
//! Performance-critical: no I/O and no logging in here; the lock is held for a few list operations and never across a
//! wait of another kind. Who sleeps here is woken by name: one session for one job, and one that can do it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::job::Job;
pub(super) use super::lane_limits::{LaneLimits, Wake};
use super::lane_limits::{overloaded, too_large};
use super::resting::Resting;
use super::route::{KeyRoute, MemberId};
use super::seats::{Bell, Place, Seat, Seats};
use super::shut::Shut;
use super::sync::{Condvar, Mutex, MutexGuard};
use crate::model::held::Measure;
use crate::model::schedule::{Fit, Item, Schedule, TenantId};
use crate::model::{Class, Dice, Fault, Namespace};

#[path = "lane_retries.rs"]
mod retries;
#[path = "lane_seats.rs"]
mod seating;

/// Device time below which work is not divided among sessions, in nanoseconds: to wake another one costs about as much.
const SLICE: u64 = 20_000;

/// Jobs of one pull after which others are let have the processor before the session sleeps. Where there are fewer, it may be the
/// next one that waits for it to come back, and waits as long as those others please.
const MANY: usize = if cfg!(feature = "shuttle") { 1 } else { 8 };

/// What a pull comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    /// There are jobs to do.
    Jobs,
    /// There was nothing to do for so long that the session should exercise a key.
    Idle,
    /// The seat is void, or the lane closed and empty: the session ends.
    End,
}

/// One pool's queue.
pub(super) struct Lane {
    limits: LaneLimits,
    weights: Arc<HashMap<Namespace, u32>>,
    state: CachePadded<Mutex<State>>,
    /// Jobs that sessions have taken and not answered: each may come back, so no session may end before.
    in_flight: CachePadded<AtomicUsize>,
    /// As in the state; read where a job ends, without the lock.
    closed: AtomicBool,
}

struct State {
    schedule: Schedule<Job>,
    /// Failed jobs whose next try comes later.
    resting: Resting<Job>,
    seats: Seats,
    shut: Shut,
    /// Retries each tenant may still make, in hundredths.
    budgets: HashMap<TenantId, u32>,
    wake: Wake,
    closed: bool,
    dice: Dice,
}

impl Lane {
    pub(super) fn new(limits: LaneLimits, weights: Arc<HashMap<Namespace, u32>>) -> Arc<Lane> {
        let state = State {
            schedule: Schedule::new(),
            resting: Resting::new(),
            seats: Seats::default(),
            shut: Shut::default(),
            budgets: HashMap::new(),
            wake: limits.wake,
            closed: false,
            dice: Dice::new(),
        };
        let (in_flight, closed) = (CachePadded::new(AtomicUsize::new(0)), AtomicBool::new(false));
        Arc::new(Lane { limits, weights, state: CachePadded::new(Mutex::new(state)), in_flight, closed })
    }

    /// The place of a namespace here, for the routes of its keys.
    pub(super) fn tenant(&self, namespace: &Namespace) -> TenantId {
        self.state.lock().schedule.tenant(namespace, self.weight(namespace))
    }

    /// What the share of a namespace weighs.
    pub(super) fn weight(&self, namespace: &Namespace) -> u32 {
        self.weights.get(namespace).copied().unwrap_or(1)
    }

    /// Queues a job, or refuses it at once.
    pub(super) fn push(&self, job: Job) -> Result<(), Fault> {
        let mut pushed_out = Vec::new();
        let mut state = self.state.lock();
        let entered = self.enter(&mut state, job, &mut pushed_out);
        self.wake(state);
        pushed_out.into_iter().for_each(|(job, fault)| job.refuse(fault));
        entered.map_err(|(job, fault)| {
            job.refuse(fault.clone());
            fault
        })
    }

    /// Queues jobs, or answers at once those that it refuses.
    pub(super) fn push_all(&self, jobs: impl Iterator<Item = Job>) {
        let mut refused = Vec::new();
        let mut state = self.state.lock();
        for job in jobs {
            if let Err(own) = self.enter(&mut state, job, &mut refused) {
                refused.push(own);
            }
        }
        self.wake(state);
        refused.into_iter().for_each(|(job, fault)| job.refuse(fault));
    }

    /// Queues a job, and adds to `pushed_out` those that had to go for it; or hands it back with the reason.
    fn enter(&self, state: &mut State, job: Job, pushed_out: &mut Vec<(Job, Fault)>) -> Result<(), (Job, Fault)> {
        if job.terms.deadline.passed(job.queued_at) {
            return Err((job, Fault::DeadlineExceeded { stage: "arriving" }));
        }
        if state.closed {
            let what = "Keyway is shutting down, or the key's token is let go of; try again".into();
            return Err((job, Fault::Unavailable { what }));
        }
        if let Some(fault) = state.shut.too_late(&job, job.queued_at) {
            return Err((job, fault));
        }
        if let Err(fault) = self.admit(state, &job, pushed_out) {
            return Err((job, fault));
        }
        if let Some(budget) = state.budgets.get_mut(&job.tenant()) {
            *budget = (*budget + self.limits.retry_percent).min(self.limits.retry_burst.saturating_mul(100));
        }
        state.schedule.push(job.tenant(), job);
        Ok(())
    }

    /// Makes room for one more job of its namespace, or says which bound forbids it. A full lane makes room for who has
    /// less than its share by pushing out the newest jobs of who has most, so many as it takes; none if that would not be
    /// enough. Tells only of the caller's own namespace.
    fn admit(&self, state: &mut State, job: &Job, pushed_out: &mut Vec<(Job, Fault)>) -> Result<(), Fault> {
        let LaneLimits { all, per_namespace, .. } = &self.limits;
        let (tenant, State { schedule, resting, .. }) = (job.tenant(), state);
        if job.bytes() > per_namespace.bytes {
            return Err(too_large(job.bytes(), per_namespace.bytes));
        }
        let own = schedule.held_of(tenant).and(resting.held_of(tenant));
        let (queued, before) = (schedule.held(), schedule.held().and(resting.held()));
        let adds = [(Measure::Jobs, 1), (Measure::Bytes, job.bytes())];
        let adds = adds.into_iter().filter(|(_, more)| *more > 0);
        for (by, more) in adds.clone() {
            if own.of(by) + more > per_namespace.of(by) {
                return Err(overloaded(schedule.namespace(tenant), per_namespace, by));
            }
        }
        // What was put back, or rests, may be beyond the bound: a newcomer makes room for itself only.
        let needed = |by, more: usize| (before.of(by) + more).saturating_sub(all.of(by)).min(more);
        for (by, more) in adds.clone() {
            let needed = needed(by, more);
            if needed > 0 && needed > schedule.excess(tenant, more, by) {
                return Err(overloaded(schedule.namespace(tenant), all, by));
            }
        }
        for (by, more) in adds {
            while queued.of(by) - schedule.held().of(by) < needed(by, more) {
                let Some((other, out)) = schedule.push_out(tenant, more, by) else { break };
                pushed_out.push((out, overloaded(schedule.namespace(other), all, by)));
            }
        }
        Ok(())
    }

    // === taking ===

    /// Waits for jobs this seat may take and moves them to `batch`: its share of them, `queued / serving`, and as many more
    /// as it takes for [`SLICE`] of expected device time; at most `batch_max` jobs, and `batch_time`. Jobs whose deadline has passed or whose asker has left are
    /// finished here. With nothing to do for `idle`, says so.
    pub(super) fn pull(&self, seat: &Seat, batch: &mut VecDeque<Job>, idle: Option<Duration>) -> Pulled {
        let mut finished = Vec::new();
        let mut state = self.state.lock();
        loop {
            if !state.seats.is_present(seat) {
                self.wake(state);
                return Pulled::End;
            }
            self.take(&mut state, seat, batch, &mut finished);
            if !batch.is_empty() || !finished.is_empty() {
                self.wake(state);
                answer_all(&mut finished);
                if !batch.is_empty() {
                    seat.taken.store(batch.len(), Ordering::Relaxed);
                    return Pulled::Jobs;
                }
                state = self.state.lock();
                continue;
            }
            if self.is_finished(&state) {
                let asleep = state.seats.everyone();
                drop(state);
                asleep.iter().for_each(|bell| ring(bell));
                return Pulled::End;
            }
            if !state.seats.is_seated(seat) {
                self.wake(state);
                return Pulled::End;
            }
            // Whoever was woken for a job that this session cannot do wakes one that can.
            if let Some(bell) = state.next_bell() {
                ring(&bell);
            }
            if state.wake == Wake::Chain && seat.taken.swap(0, Ordering::Relaxed) >= MANY {
                state = self.step_aside(state);
                continue;
            }
            if !sleep(&mut state, seat, idle) {
                return Pulled::Idle;
            }
        }
    }

    /// Lets whoever waits for this processor have it once before a session sleeps that had much to do: where processors are few,
    /// that is mostly who brings its next jobs, and then nobody has to wake it for them. It counts as coming meanwhile.
    fn step_aside<'l>(&'l self, mut state: MutexGuard<'l, State>) -> MutexGuard<'l, State> {
        state.seats.steps_aside();
        drop(state);
        std::thread::yield_now();
        let mut state = self.state.lock();
        state.seats.comes_back();
        state
    }

    fn take(&self, state: &mut State, seat: &Seat, batch: &mut VecDeque<Job>, finished: &mut Vec<(Job, Fault)>) {
        let now = Instant::now();
        state.wake_up(now);
        let State { schedule, shut, seats, .. } = state;
        let share = (schedule.len() / seats.serving().max(1)).max(1);
        let batch_time = nanoseconds(self.limits.batch_time);
        let mut planned = 0;
        while batch.len() < self.limits.batch_max && (batch.len() < share || planned < SLICE) {
            let first = batch.is_empty();
            let mut fit = |job: &Job| match judge(job, seat.place, shut, now) {
                Fit::Take if !first && planned + job.cost() > batch_time => Fit::Skip,
                fit => fit,
            };
            let Some(mut job) = schedule.take(&mut fit, finished) else { break };
            planned += job.cost();
            job.begin();
            batch.push_back(job);
        }
    }

    /// Puts jobs back before those of their keys, in their order: taken by a session that did not start them. They were
    /// admitted once and keep their place whatever the bounds.
    pub(super) fn put_back(&self, jobs: impl DoubleEndedIterator<Item = Job>) {
        let mut keys = Vec::new();
        {
            let mut state = self.state.lock();
            for mut job in jobs.rev() {
                keys.extend(job.hand_over());
                state.schedule.put_back(job.tenant(), job);
            }
        }
        self.come_back(&keys);
    }

    /// Gives the places in flight of jobs back that are queued again: only now, so that a closed lane does not end between.
    fn come_back(&self, keys: &[Arc<KeyRoute>]) {
        for key in keys {
            key.end();
        }
        self.nudge();
    }

    /// Wakes sessions that passed over a capped key: a place has become free, or a key set has grown; or for jobs that have
    /// rested long enough.
    pub(super) fn nudge(&self) {
        self.wake(self.state.lock());
    }

    /// The same where there is anything to do: what rests may be due, and who was left alone may be left alone no longer.
    pub(super) fn nudge_if_waiting(&self) {
        let state = self.state.lock();
        if !state.is_empty() {
            self.wake(state);
        }
    }

    /// Wakes who is needed for what is queued.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        match state.wake {
            Wake::Chain => {
                let bell = state.next_bell();
                drop(state);
                bell.iter().for_each(|bell| ring(bell));
            }
            Wake::Each => {
                let mut bells = Vec::new();
                while let Some(bell) = state.next_bell() {
                    bells.push(bell);
                }
                drop(state);
                bells.iter().for_each(|bell| ring(bell));
            }
        }
    }

    // === ends ===

    /// Takes out everything queued, to be queued elsewhere.
    pub(super) fn hand_over(&self) -> Vec<Job> {
        let jobs = self.state.lock().sweep(|_| Some(()));
        jobs.into_iter().map(|(job, ())| job).collect()
    }

    /// Answers every job whose key set has become empty, whose deadline has passed or whose asker has left. Whoever was to
    /// leave a job to a member that holds its key no more is woken for it.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut finished = state.sweep(|job| over(job, now).or_else(|| job.key.absence()));
        let asleep = if self.is_finished(&state) { state.seats.everyone() } else { Vec::new() };
        self.wake(state);
        asleep.iter().for_each(|bell| ring(bell));
        answer_all(&mut finished);
    }

    /// The same where no session pulls, which would find them itself.
    pub(super) fn sweep_if_idle(&self) {
        if self.state.lock().seats.serving() == 0 {
            self.sweep();
        }
    }

    /// Accepts nothing more. Sessions finish what is queued and end.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.closed.store(true, Ordering::SeqCst);
        let asleep = if self.is_finished(&state) { state.seats.everyone() } else { Vec::new() };
        drop(state);
        asleep.iter().for_each(|bell| ring(bell));
    }

    /// Whether it is closed and nothing is left to do: a session would end at once.
    pub(super) fn is_done(&self) -> bool {
        self.closed.load(Ordering::SeqCst) && self.is_finished(&self.state.lock())
    }

    /// Whether nothing is left to do, for good.
    fn is_finished(&self, state: &State) -> bool {
        state.closed && state.is_empty() && self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// A session has taken a job.
    pub(super) fn note_begun(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// A job that was taken has ended, or come back. After the last one of a closed lane its sessions may end.
    pub(super) fn note_ended(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.closed.load(Ordering::SeqCst) {
            let asleep = {
                let mut state = self.state.lock();
                if self.is_finished(&state) { state.seats.everyone() } else { Vec::new() }
            };
            asleep.iter().for_each(|bell| ring(bell));
        }
    }

    /// Answers everything still queued as unavailable: the drain's time is up.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        let jobs = state.sweep(|_| Some(()));
        let asleep = if state.closed { state.seats.everyone() } else { Vec::new() };
        drop(state);
        drop(jobs);
        asleep.iter().for_each(|bell| ring(bell));
    }

    // === seen from outside ===

    /// Sessions that wait for work.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn asleep(&self) -> usize {
        self.state.lock().seats.asleep()
    }

    /// Jobs that rest.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn resting(&self) -> usize {
        self.state.lock().resting.len()
    }

    /// Its bounds.
    pub(super) fn limits(&self) -> &LaneLimits {
        &self.limits
    }

    /// Jobs queued now.
    pub(super) fn depth(&self) -> usize {
        let state = self.state.lock();
        state.schedule.len() + state.resting.len()
    }

    /// Jobs queued now by namespace and class, and the bytes of their messages.
    pub(super) fn depths(&self) -> Vec<(Namespace, [usize; Class::ALL.len()], usize)> {
        let state = self.state.lock();
        let mut depths = state.schedule.depths();
        for job in state.resting.iter() {
            if let Some((_, by_class, bytes)) = depths.iter_mut().find(|(of, ..)| of == job.key.party().0) {
                by_class[job.class() as usize] += 1;
                *bytes += job.bytes();
            }
        }
        depths
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.schedule.is_empty() && self.resting.is_empty()
    }

    /// Queues what has rested long enough, before the jobs of its keys.
    fn wake_up(&mut self, now: Instant) {
        while let Some(job) = self.resting.take_due(now) {
            self.schedule.put_back(job.tenant(), job);
        }
    }

    /// Takes out every job for which `over` gives a reason.
    fn sweep<F>(&mut self, mut over: impl FnMut(&Job) -> Option<F>) -> Vec<(Job, F)> {
        let mut out = self.schedule.sweep(&mut over);
        out.extend(self.resting.sweep(over));
        out
    }

    /// Whether a session of another member, which is not left alone, waits for jobs of this key.
    fn is_awaited_elsewhere(&self, key: &KeyRoute, member: MemberId, now: Instant) -> bool {
        key.has_another(member, |other| self.shut.is_well(other, now) && self.seats.sleeps(other))
    }

    fn is_held_elsewhere(&self, job: &Job, member: MemberId, now: Instant) -> bool {
        job.key.has_another(member, |other| self.shut.is_well(other, now))
    }

    /// The bell of a sleeping session that is needed: it can do a job that nobody woken will come for. It is taken off the
    /// list, and counts as coming.
    fn next_bell(&mut self) -> Option<Bell> {
        if !self.resting.is_empty() {
            self.wake_up(Instant::now());
        }
        let most = match self.wake {
            Wake::Chain => 1,
            Wake::Each => self.schedule.len(),
        };
        if self.schedule.is_empty() || self.seats.coming() >= most || !self.seats.has_sleepers() {
            return None;
        }
        let now = Instant::now();
        let State { seats, schedule, shut, .. } = self;
        seats.next(|place| schedule.any(&mut |job: &Job| judge(job, place, shut, now)))
    }
}

fn ring(bell: &Condvar) {
    bell.notify_one();
}

/// Sleeps until the seat's bell rings; false if it did not for so long.
fn sleep(state: &mut MutexGuard<'_, State>, seat: &Seat, idle: Option<Duration>) -> bool {
    state.seats.falls_asleep(seat);
    loop {
        let timed_out = match idle {
            Some(idle) => seat.bell.wait_for(state, idle).timed_out(),
            None => {
                seat.bell.wait(state);
                false
            }
        };
        if state.seats.was_called(seat, timed_out) {
            return true;
        }
        if timed_out {
            return false;
        }
        // Woken by nobody.
    }
}

fn judge(job: &Job, place: Place, shut: &Shut, now: Instant) -> Fit<Fault> {
    if let Some(fault) = over(job, now) {
        return Fit::Finish(fault);
    }
    if job.key.handle(place).is_none() {
        return job.key.absence().map_or(Fit::Skip, Fit::Finish);
    }
    if shut.is_paused(place.member, now) {
        // It may have come back since those were answered that cannot wait so long.
        return shut.too_late(job, now).map_or(Fit::Skip, Fit::Finish);
    }
    // Who failed it tries it again only where nobody else can; and whoever is left alone tries nothing that others can.
    let is_others = job.avoid == Some(place.member) || shut.has(place.member, now);
    if is_others && job.key.has_another(place.member, |other| shut.is_well(other, now)) {
        return Fit::Skip;
    }
    if job.key.has_room() { Fit::Take } else { Fit::Skip }
}

/// Why nobody needs this job any more.
fn over(job: &Job, now: Instant) -> Option<Fault> {
    (job.abandoned() || job.terms.deadline.passed(now)).then(|| job.late())
}

fn answer_all(finished: &mut Vec<(Job, Fault)>) {
    for (job, fault) in finished.drain(..) {
        job.answer(Err(fault));
    }
}

/// As a whole number that fits.
pub(super) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
