//! One logged-in session on one OS thread: pulls jobs, runs them back to back, answers them together.
//!
//! Performance-critical: between two jobs of a batch there is no lock that anyone else holds for long, no wake-up, no
//! log line and no allocation of ours but the answer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use foldhash::fast::RandomState;

use super::checks::decrypt_again;
use super::computing::Computing;
use super::control::Proven;
use super::job::{Job, JobResult, Work};
use super::lane::{Lane, Pulled};
use super::learning::Learning;
use super::pool::SESSIONS_AT_REST;
use super::presence::Presence;
use super::proof;
use super::seats::Seat;
use super::seen::{Seen, note};
use super::watch::{Front, Left, Watch};
use crate::backend::{BackendError, BatchJob, Closed, Device, Fate, LEFT_ALONE, Session, WORKER_DIED};
use crate::config::VerifyAfterSign;
use crate::model::{Fault, KeyOperation};
use crate::telemetry::MemberMetrics;

#[path = "admission.rs"]
mod admission;

/// First and longest pause of a session whose device is too busy.
const REST_FIRST: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

/// What a session thread tells its slot actor.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// It has its session and pulls work.
    Opened,
    /// It met this error, and gives its session up for another; so many operations it had done in it.
    Evicted { error: BackendError, served: usize },
    /// The handle of this managed key means nothing any more.
    KeyLost(String),
    /// A job that failed is to be tried again then.
    Rests(Instant),
    /// There is work that no session of the member is free for.
    Short,
    /// It has ended: retired, or with the error that ended it.
    Ended(Option<BackendError>),
}

/// Everything a session thread works with.
pub(super) struct SessionThread {
    pub(super) seat: Arc<Seat>,
    pub(super) lane: Arc<Lane>,
    pub(super) device: Arc<dyn Device>,
    pub(super) watch: Arc<Watch>,
    pub(super) metrics: Arc<MemberMetrics>,
    pub(super) computing: Arc<Computing>,
    pub(super) verify: VerifyAfterSign,
    /// Whether flow control gives leave for each operation. Then a failed call is no reason to ask less of the device: what asks
    /// less is flow control, and the job rests, not the session. Nor are there handles of a session's own: one is its device's, and
    /// another key is another handle, so that what the member proved of it, as it came up or found it, stands in all sessions.
    pub(super) flow_control: bool,
    /// Without work for so long, it exercises a key, or ends if it is one more than are kept at rest; `None` is never.
    pub(super) keep_alive: Option<Duration>,
    /// The key to exercise: one the member has proven to hold.
    pub(super) exercised: Arc<ArcSwapOption<Proven>>,
    pub(super) report: Box<dyn Fn(SessionEvent) + Send>,
    /// Dropped last: after the session and the device.
    pub(super) _presence: Presence,
}

/// Results kept until the batch is done, so that each asker's connection is woken once.
type Outbox = Vec<(Job, JobResult)>;

/// What one job's error means for the thread.
enum After {
    GoOn,
    Reopen(BackendError),
    End(BackendError),
    GivenUp,
}

/// A job as its call needs it: the job itself stays where the watchdog finds it.
struct Started {
    work: Arc<Work>,
    handle: u64,
    /// When its call is given up at the latest.
    end: Instant,
}

impl Started {
    fn as_batch_job(&self) -> BatchJob<'_> {
        BatchJob { handle: self.handle, kind: self.work.key.identity().kind(), operation: &self.work.operation }
    }
}

/// What a thread keeps from job to job.
struct Running {
    session: Box<dyn Session>,
    outbox: Outbox,
    /// The jobs that are with the token.
    started: Vec<Started>,
    results: Vec<Result<Bytes, BackendError>>,
    /// What was seen in this session to be right: by a signature, or by a proof. A key that is found anew is another handle.
    seen: HashSet<Seen, RandomState>,
    /// Keys whose handles were found and proven anew because they were not these keys here.
    doubted: HashSet<usize, RandomState>,
    learning: Learning,
    operations: u64,
    /// Operations done since the session was opened.
    served: usize,
    rest: Duration,
    /// When the last call ended, the batch was taken, or whatever else takes long was done: the next call begins then.
    now: Instant,
}

impl Running {
    fn new(session: Box<dyn Session>) -> Running {
        let (outbox, started, results) = (Outbox::new(), Vec::new(), Vec::new());
        let (seen, doubted) = (HashSet::default(), HashSet::default());
        let (learning, operations, served) = (Learning::default(), 0, 0);
        let (rest, now) = (REST_FIRST, Instant::now());
        Running { session, outbox, started, results, seen, doubted, learning, operations, served, rest, now }
    }
}

impl SessionThread {
    /// Starts the thread.
    pub(super) fn start(self) -> Result<(), Fault> {
        std::thread::Builder::new()
            .name("keyway-session".into())
            .spawn(move || {
                let guard = EndGuard { thread: &self, reported: AtomicBool::new(false) };
                let end = self.run();
                guard.report(end.err());
            })
            .map(drop)
            .map_err(|error| Fault::Unavailable { what: format!("cannot start a session thread: {error}") })
    }

    fn run(&self) -> Result<(), BackendError> {
        let session = self.open()?;
        self.lane.sit(&self.seat);
        (self.report)(SessionEvent::Opened);
        let mut running = Running::new(session);
        let end = self.serve(&mut running);
        self.lane.leave(&self.seat);
        // Whatever was taken and not started goes to another session.
        let Left { hung, unstarted } = self.watch.give_up();
        self.lane.put_back(hung.into_iter().chain(unstarted).collect::<VecDeque<_>>().into_iter());
        end
    }

    fn open(&self) -> Result<Box<dyn Session>, BackendError> {
        self.watch.begin_call(Instant::now());
        let session = self.device.open_session();
        self.watch.end_call();
        session
    }

    /// Gives a session up that met this error, and goes on with another, in which a handle may name what it did not. That is closed
    /// first: the token may have no room for both.
    fn reopen(&self, running: &mut Running, error: BackendError) -> Result<(), BackendError> {
        self.metrics.evicted(error.cause);
        (self.report)(SessionEvent::Evicted { error, served: std::mem::take(&mut running.served) });
        running.seen.clear();
        self.watch.begin_call(Instant::now());
        running.session = Box::new(Closed);
        let opened = self.device.open_session();
        self.watch.end_call();
        running.session = opened?;
        Ok(())
    }

    fn serve(&self, running: &mut Running) -> Result<(), BackendError> {
        let mut batch = VecDeque::new();
        loop {
            // Given up while it opened its session or exercised a key: it ends, so that it counts as stuck no longer.
            let Some(has_jobs) = self.watch.has_jobs() else { return Ok(()) };
            if !has_jobs {
                match self.lane.pull(&self.seat, &mut batch, self.keep_alive) {
                    Pulled::End => return Ok(()),
                    Pulled::Idle if self.flow_control => {
                        if self.lane.leave_if_spare(&self.seat, SESSIONS_AT_REST) {
                            return Ok(());
                        }
                        continue;
                    }
                    Pulled::Idle => {
                        self.exercise(running)?;
                        continue;
                    }
                    Pulled::Jobs => {
                        if !self.watch.take_over(&mut batch) {
                            self.lane.put_back(batch.drain(..));
                            return Ok(());
                        }
                    }
                }
            }
            let after = self.run_taken(running);
            self.answer(&mut running.outbox);
            match after {
                After::GoOn => {}
                After::GivenUp => return Ok(()),
                After::Reopen(error) => {
                    self.reopen(running, error)?;
                }
                After::End(error) => {
                    self.metrics.evicted(error.cause);
                    return Err(error);
                }
            }
        }
    }

    fn answer(&self, outbox: &mut Outbox) {
        let capped = outbox.iter_mut().fold(false, |capped, (job, _)| job.end() | capped);
        for (job, result) in outbox.drain(..) {
            job.answer(result);
        }
        if capped {
            self.lane.nudge();
        }
    }

    /// Runs what was taken, until nothing is left or something must be done about the session.
    fn run_taken(&self, running: &mut Running) -> After {
        let after = self.run_each(running);
        running.session.withdraw();
        running.learning.tell();
        if let Some(here) = running.session.computes_here() {
            self.computing.note(here);
        }
        after
    }

    fn run_each(&self, running: &mut Running) -> After {
        // Where a call is a message to another process, a batch is one message.
        let most = if running.session.batches() { usize::MAX } else { 1 };
        running.now = Instant::now();
        loop {
            if !self.admitted(running) {
                return After::GoOn;
            }
            match self.start_next(most, running) {
                Front::Started => {}
                Front::Nothing => return After::GoOn,
                Front::GivenUp => return After::GivenUp,
            }
            self.perform(running);
            match self.finish(running) {
                After::GoOn => {}
                after => return after,
            }
        }
    }

    /// Starts the next jobs that somebody still waits for.
    fn start_next(&self, most: usize, running: &mut Running) -> Front {
        let Running { outbox, started, now, .. } = running;
        let now = *now;
        started.clear();
        let mut unproven = Vec::new();
        let front = self.watch.start(
            most,
            |job| {
                if job.abandoned() || job.terms.deadline.passed(now) {
                    return false;
                }
                let Some(handle) = job.key.handle(self.seat.place) else { return false };
                started.push(Started { work: Arc::clone(job.work()), handle, end: self.end_of(job, now) });
                true
            },
            |job| {
                if job.abandoned() || job.terms.deadline.passed(now) {
                    let late = job.late();
                    outbox.push((job, Err(late)));
                } else {
                    unproven.push(job);
                }
            },
        );
        // Its proof was withdrawn since the pull; another member may have it.
        if !unproven.is_empty() {
            self.lane.put_back(unproven.into_iter());
        }
        front
    }

    /// Has the token do what was started.
    fn perform(&self, running: &mut Running) {
        running.results.clear();
        running.session.end_by(running.started.iter().map(|started| started.end).min());
        let stranger = self.first_stranger(running);
        let Running { session, started, results, now, .. } = running;
        let begun = *now;
        self.watch.begin_call(begun);
        let known = &started[..stranger.as_ref().map_or(started.len(), |(place, _)| *place)];
        match known {
            [] => {}
            [one] => {
                results.push(session.perform(one.handle, one.work.key.identity().kind(), &one.work.operation));
            }
            many => {
                let jobs: Vec<BatchJob<'_>> = many.iter().map(Started::as_batch_job).collect();
                session.perform_batch(&jobs, &mut |_, result| results.push(result));
            }
        }
        *now = Instant::now();
        let took = (*now - begun) / u32::try_from(results.len().max(1)).unwrap_or(u32::MAX);
        self.watch.end_call();
        let ended = results.last().is_some_and(|result| result.as_ref().is_err_and(|error| error.fate != Fate::Keep));
        if let Some((_, error)) = stranger.filter(|_| !ended) {
            results.push(Err(error));
        }
        self.look_at(running, begun, took);
    }

    /// The first of the started jobs whose handle turns out not to be its key, before it is used for what nobody can check
    /// afterwards. Signatures are checked when they are made.
    fn first_stranger(&self, running: &mut Running) -> Option<(usize, BackendError)> {
        let Running { session, started, seen, doubted, now, .. } = running;
        for (place, Started { work, handle, .. }) in started.iter().enumerate() {
            let by = Seen::of(work, *handle);
            // Whose calls name the key itself, its handles need no proof here.
            if self.flow_control || matches!(work.operation, KeyOperation::Sign { .. }) || seen.contains(&by) {
                continue;
            }
            let first = !doubted.contains(&work.flow());
            self.watch.begin_call(*now);
            let known = self.is_known(session.as_mut(), work, *handle, first);
            self.watch.end_call();
            // What proofs take is none of the operation's own time.
            *now = Instant::now();
            if let Err(error) = known {
                if matches!(error.fault, Fault::KeyMismatch { .. }) {
                    note(doubted, work.flow());
                }
                return Some((place, error));
            }
            note(seen, by);
        }
        None
    }

    /// Counts what was done, and looks at some of it before anybody gets it.
    fn look_at(&self, running: &mut Running, began: Instant, took: Duration) {
        let Running { session, started, results, seen, doubted, learning, operations, now, .. } = running;
        for (Started { work, handle, .. }, result) in started.iter().zip(results.iter_mut()) {
            if result.is_ok() {
                learning.note(work, took);
            }
            if let Err(error) = result
                && error.fate == Fate::Reopen
                && matches!(work.operation, KeyOperation::Decrypt { .. })
            {
                let error = error.clone();
                self.watch.begin_call(*now);
                *result = decrypt_again(session.as_mut(), work, *handle, error);
                self.watch.end_call();
                *now = Instant::now();
            }
            let class = work.terms.class;
            if result.as_ref().is_err_and(|error| error.fate == Fate::Throttled) {
                continue;
            }
            self.metrics.job_finished(took, class, result.is_ok());
            let tenant = work.key.metrics();
            tenant.job_started(began.saturating_duration_since(work.queued_at), class);
            tenant.job_finished(took);
            if let Ok(answer) = result {
                let by = Seen::of(work, *handle);
                let signs = matches!(work.operation, KeyOperation::Sign { .. });
                let first = (signs || !self.flow_control) && !seen.contains(&by);
                if !first && !self.is_sampled(operations) {
                    continue;
                }
                let first = first && !doubted.contains(&work.flow());
                let checked = match &work.operation {
                    KeyOperation::Sign { .. } => self.check(work, answer, first),
                    KeyOperation::Encrypt { .. } | KeyOperation::Decrypt { .. } | KeyOperation::Mac { .. } => {
                        self.watch.begin_call(*now);
                        let known = self.is_known(session.as_mut(), work, *handle, first);
                        self.watch.end_call();
                        known
                    }
                };
                match checked {
                    Ok(()) if signs || !self.flow_control => {
                        // A proper PSS signature is a signature, too.
                        note(seen, by.as_any_signature());
                        note(seen, by);
                    }
                    Ok(()) => {}
                    Err(error) => {
                        note(doubted, work.flow());
                        *result = Err(error);
                    }
                }
                *now = Instant::now();
            }
        }
    }

    /// Takes out what the token has done. Only the last of the results asks for something to be done about the session,
    /// unless the process behind it is gone: then all do.
    fn finish(&self, running: &mut Running) -> After {
        let mut after = After::GoOn;
        let mut results = std::mem::take(&mut running.results);
        let last = results.len().saturating_sub(1);
        let is_short = results.len() < running.started.len();
        for (place, result) in results.drain(..).enumerate() {
            let Some(job) = self.watch.finish(result.is_ok()) else { return After::GivenUp };
            if is_short && place == last {
                // The token was told of no more: what is left can be done by others while this session rests or reopens.
                self.watch.stop();
            }
            match result {
                Ok(answer) => {
                    running.rest = REST_FIRST;
                    running.served += 1;
                    running.outbox.push((job, Ok(answer)));
                }
                Err(error) => {
                    let judged = self.judge(job, error, running);
                    if matches!(after, After::GoOn) {
                        after = judged;
                    }
                    running.now = Instant::now();
                }
            }
        }
        running.results = results;
        after
    }

    /// Decides what becomes of the job and of this session.
    fn judge(&self, mut job: Job, error: BackendError, running: &mut Running) -> After {
        let member = self.seat.place.member;
        match error.fate {
            Fate::Keep => {
                running.outbox.push((job, Err(error.fault)));
                After::GoOn
            }
            // The first time, a fresh session of our own is the nearest to try again.
            Fate::Reopen if job.avoid != Some(member) => {
                match self.lane.retry_here(&mut job, error.fault.clone(), member) {
                    Ok(()) => {
                        if let Some(job) = self.watch.again(job) {
                            self.lane.put_back(std::iter::once(job));
                            return After::GivenUp;
                        }
                    }
                    Err(fault) => running.outbox.push((job, Err(fault))),
                }
                After::Reopen(error)
            }
            Fate::Reopen => {
                self.lane.retry(job, error.fault.clone(), member);
                After::Reopen(error)
            }
            Fate::FindAgain => {
                // In this order: the proof that the report asks for puts the member back.
                job.key.suspend_holder_at(self.seat.place);
                (self.report)(SessionEvent::KeyLost(job.key.uuid().to_owned()));
                self.metrics.evicted(error.cause);
                self.lane.retry(job, error.fault, member);
                After::GoOn
            }
            Fate::Throttled => {
                self.metrics.throttled();
                job.key.note_throttled();
                self.lane.put_back(std::iter::once(job));
                After::GoOn
            }
            Fate::BackOff if error.cause == LEFT_ALONE => self.wait_for_breaker(job),
            // A service throttles in a word of its own; whatever else a call meets there is a failure.
            Fate::BackOff if self.flow_control => {
                self.metrics.call_failed(error.cause);
                if let Some(due) = self.lane.retry_later(job, error.fault, member) {
                    (self.report)(SessionEvent::Rests(due));
                }
                After::GoOn
            }
            // Too much is asked of the device: ask less of it.
            Fate::BackOff => {
                self.metrics.throttled();
                self.lane.retry(job, error.fault, member);
                // Nothing of what was asked is kept while it rests.
                running.learning.tell();
                self.answer(&mut running.outbox);
                self.rest(&mut running.rest);
                After::GoOn
            }
            Fate::LoginAgain | Fate::Reinitialize => {
                // All sessions of the member meet this: whoever comes first tells, and jobs wait for it to come back.
                job.key.suspend_holder_at(self.seat.place);
                match error.cause {
                    // It may be the job that the library does not bear.
                    WORKER_DIED => self.lane.retry(job, error.fault.clone(), member),
                    _ => self.lane.retry_brought_up(job, error.fault.clone(), member),
                };
                After::End(error)
            }
            Fate::Retire => {
                self.lane.retry(job, error.fault.clone(), member);
                After::End(error)
            }
        }
    }

    /// What a breaker refuses is no try: the job comes back when that lets it.
    fn wait_for_breaker(&self, mut job: Job) -> After {
        job.tried = true;
        self.lane.put_back(std::iter::once(job));
        After::GoOn
    }

    /// Lets the device catch up: twice as long each time, by a spread of its own so that sessions do not march in step.
    fn rest(&self, pause: &mut Duration) {
        let spread = u32::try_from(Arc::as_ptr(&self.watch).addr() / 64 % 50).unwrap_or(0);
        // Others may take meanwhile what this session has taken.
        self.lane.put_back(self.watch.reclaim().into_iter());
        std::thread::sleep(*pause * (75 + spread) / 100);
        *pause = (*pause * 2).min(REST_MAX);
    }

    /// Has a key prove itself, so that the token does not forget a session nobody uses; and learns so of what
    /// broke before a client does. Where the token holds none of the keys, the session itself is asked after.
    fn exercise(&self, running: &mut Running) -> Result<(), BackendError> {
        let proven = self.exercised.load_full();
        running.session.end_by(None);
        self.watch.begin_call(Instant::now());
        let result = match &proven {
            Some(proven) => proof::exercise(running.session.as_mut(), proven),
            None => running.session.check_alive(),
        };
        self.watch.end_call();
        let Err(error) = result else { return Ok(()) };
        if matches!(error.fault, Fault::KeyMismatch { .. }) {
            self.metrics.wrong_signature();
        }
        match error.fate {
            // The key may be bound to uses of its own.
            Fate::Keep | Fate::BackOff | Fate::Throttled => Ok(()),
            Fate::Reopen => self.reopen(running, error),
            Fate::FindAgain | Fate::LoginAgain | Fate::Reinitialize | Fate::Retire => {
                self.metrics.evicted(error.cause);
                Err(error)
            }
        }
    }
}

/// Tells the slot actor of the thread's end, even if it panics; and leaves its seat then.
struct EndGuard<'a> {
    thread: &'a SessionThread,
    reported: AtomicBool,
}

impl EndGuard<'_> {
    fn report(&self, error: Option<BackendError>) {
        self.reported.store(true, Ordering::Relaxed);
        (self.thread.report)(SessionEvent::Ended(error));
    }
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !self.reported.load(Ordering::Relaxed) {
            self.thread.lane.leave(&self.thread.seat);
            let fault = Fault::internal("a session thread panicked");
            self.report(Some(BackendError::new(Fate::BackOff, fault)));
        }
    }
}
