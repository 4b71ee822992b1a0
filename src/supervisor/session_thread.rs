//! One logged-in session on one OS thread: pulls jobs, runs them back to back, answers them together.
//!
//! Performance-critical: between two jobs of a batch there is no lock that anyone else holds for long, no wake-up, no
//! log line and no allocation of ours but the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::job::{Job, JobResult};
use super::lane::{Lane, Seat};
use crate::backend::{BackendError, Device, Fate, Session};
use crate::model::{Fault, KeyOperation};
use crate::telemetry::Telemetry;

/// What a session thread tells its slot actor.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// It has its session and pulls work.
    Opened,
    /// It has ended: retired, or with the error that ended it.
    Ended(Option<BackendError>),
}

/// What the watchdog sees of a session thread.
pub(super) struct Watch {
    started: Instant,
    /// When the call that is going on began, in microseconds since `started`, plus one; 0 between calls.
    call_since: AtomicU64,
    /// Jobs taken but not started: the watchdog takes them back when the session stalls.
    taken: Mutex<VecDeque<Job>>,
    /// Set when it was given up for stuck: should its call return after all, it ends.
    given_up: AtomicBool,
}

impl Watch {
    pub(super) fn new() -> Arc<Watch> {
        Arc::new(Watch {
            started: Instant::now(),
            call_since: AtomicU64::new(0),
            taken: Mutex::default(),
            given_up: AtomicBool::new(false),
        })
    }

    /// How long the native call that is going on has taken.
    pub(super) fn in_call(&self) -> Option<Duration> {
        match self.call_since.load(Ordering::Acquire) {
            0 => None,
            since => Some(self.started.elapsed().saturating_sub(Duration::from_micros(since - 1))),
        }
    }

    /// Gives the thread up; answers the jobs it has taken and not started.
    pub(super) fn give_up(&self) -> VecDeque<Job> {
        self.given_up.store(true, Ordering::Release);
        std::mem::take(&mut *self.taken.lock())
    }

    fn begin_call(&self) -> Instant {
        let now = Instant::now();
        let micros = u64::try_from((now - self.started).as_micros()).unwrap_or(u64::MAX - 1);
        self.call_since.store(micros + 1, Ordering::Release);
        now
    }

    fn end_call(&self) {
        self.call_since.store(0, Ordering::Release);
    }
}

/// Everything a session thread works with.
pub(super) struct SessionThread {
    pub(super) seat: Seat,
    pub(super) lane: Arc<Lane>,
    pub(super) device: Arc<dyn Device>,
    pub(super) watch: Arc<Watch>,
    pub(super) telemetry: Telemetry,
    pub(super) report: Box<dyn Fn(SessionEvent) + Send>,
}

/// Results kept until the batch is done, so that each asker's connection is woken once.
type Outbox = Vec<(Job, JobResult)>;

/// What one job's error means for the thread.
enum After {
    GoOn,
    Reopen,
    End(BackendError),
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
        let mut session = self.open()?;
        self.lane.sit(self.seat);
        (self.report)(SessionEvent::Opened);
        let end = self.serve(&mut session);
        self.lane.leave(self.seat);
        // Whatever was taken and not started goes to another session.
        let rest = std::mem::take(&mut *self.watch.taken.lock());
        self.lane.put_back(rest.into_iter());
        end
    }

    fn open(&self) -> Result<Box<dyn Session>, BackendError> {
        self.watch.begin_call();
        let session = self.device.open_session();
        self.watch.end_call();
        session
    }

    fn serve(&self, session: &mut Box<dyn Session>) -> Result<(), BackendError> {
        let mut batch = VecDeque::new();
        let mut outbox = Outbox::new();
        while self.has_work(&mut batch) {
            let after = self.run_taken(session.as_mut(), &mut outbox);
            let capped = outbox.iter().fold(false, |capped, (job, _)| job.key.end() | capped);
            for (job, result) in outbox.drain(..) {
                job.answer(result);
            }
            if capped {
                self.lane.nudge();
            }
            match after {
                After::GoOn => {}
                After::Reopen => *session = self.open()?,
                After::End(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for jobs, unless some taken ones are left from before the session was reopened. False: the thread ends.
    fn has_work(&self, batch: &mut VecDeque<Job>) -> bool {
        if self.watch.given_up.load(Ordering::Acquire) {
            return false;
        }
        if !self.watch.taken.lock().is_empty() {
            return true;
        }
        let more = self.lane.pull(self.seat, batch);
        self.watch.taken.lock().append(batch);
        more
    }

    fn run_taken(&self, session: &mut dyn Session, outbox: &mut Outbox) -> After {
        loop {
            let Some(job) = self.watch.taken.lock().pop_front() else { return After::GoOn };
            if job.abandoned() || job.terms.deadline.passed(Instant::now()) {
                outbox.push((job, Err(Fault::DeadlineExceeded { stage: "queued" })));
                continue;
            }
            let Some(handle) = job.key.handle(self.seat.member, self.seat.epoch) else {
                // The proof was withdrawn since the pull; another member may have it.
                job.key.end();
                self.lane.put_back(std::iter::once(job));
                continue;
            };
            match self.perform(session, handle, &job) {
                Ok(answer) => outbox.push((job, Ok(answer))),
                Err(error) => match self.judge(job, error, outbox) {
                    After::GoOn => {}
                    after => return after,
                },
            }
        }
    }

    fn perform(&self, session: &mut dyn Session, handle: u64, job: &Job) -> Result<Bytes, BackendError> {
        let KeyOperation::Sign { .. } = job.operation;
        let began = self.watch.begin_call();
        let result = session.perform(handle, job.key.kind(), &job.operation);
        let took = began.elapsed();
        self.watch.end_call();
        job.key.learn(took);
        self.telemetry.job_finished(began - job.queued_at, took, job.terms.class, result.is_ok());
        result
    }

    /// Decides what becomes of the job and of this session. A job is tried once more where the session was at fault.
    fn judge(&self, mut job: Job, error: BackendError, outbox: &mut Outbox) -> After {
        let again = error.fate != Fate::Keep && error.fate != Fate::Retire && !job.retried;
        let lost = matches!(error.fate, Fate::Reopen | Fate::FindAgain) && job.retried;
        if again {
            job.key.end();
            job.retried = true;
            self.lane.put_back(std::iter::once(job));
        } else {
            outbox.push((job, Err(error.fault.clone())));
        }
        match error.fate {
            Fate::Keep => After::GoOn,
            // A fresh session did not mend it: the handles, or the login, are gone. Bring the member up anew.
            Fate::Reopen | Fate::FindAgain if lost => After::End(error),
            Fate::Reopen | Fate::FindAgain => After::Reopen,
            Fate::LoginAgain | Fate::Reinitialize | Fate::BackOff | Fate::Retire => After::End(error),
        }
    }
}

/// Tells the slot actor of the thread's end, even if it panics.
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
            let fault = Fault::internal("a session thread panicked");
            self.report(Some(BackendError::new(Fate::BackOff, fault)));
        }
    }
}
