//! One queued operation and the two ends of its answer.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::route::{KeyRoute, MemberId};
use crate::model::schedule::{Charge, Item, TenantId};
use crate::model::{Class, Fault, KeyOperation, QUEUED_BY_QUOTA, QUEUED_UNPROVEN, Terms};
use crate::telemetry::TenantMetrics;

/// Where a job is at its deadline whose service throttles, by who does not know whether a session has begun it meanwhile.
const KEPT_BY_QUOTA: &str = "running, while the service of its key throttles";

/// What a job comes to.
pub(super) type JobResult = Result<Bytes, Fault>;

/// What is to be done: the same however often it is tried, and by whom.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) operation: KeyOperation,
    pub(super) key: Arc<KeyRoute>,
    pub(super) terms: Terms,
    pub(super) queued_at: Instant,
}

/// A private-key operation in a lane. Answered exactly once: by [`Job::answer`], or when it is dropped. Small, since it is
/// handed on often.
pub(super) struct Job {
    work: Arc<Work>,
    /// How often it was tried, and failed through no fault of its own.
    pub(super) attempts: u8,
    /// How many of those tries are not followed by another at once: see [`super::lane::LaneLimits`].
    pub(super) rests: u8,
    /// Whether a call was made for it, so that it waits for what is left alone meanwhile, as long as it may.
    pub(super) tried: bool,
    /// The member that failed it last: another one is to try, if there is one.
    pub(super) avoid: Option<MemberId>,
    /// Whether it counts among those in flight, of its key and of the lane.
    begun: bool,
    charge: Charge,
    asker: Option<oneshot::Sender<JobResult>>,
}

impl Job {
    /// A job and the asker's end of it.
    pub(super) fn new(operation: KeyOperation, key: Arc<KeyRoute>, terms: Terms) -> (Job, Pending) {
        let (asker, answer) = oneshot::channel();
        let queued_at = Instant::now();
        let (begun, charge, asker) = (false, Charge::default(), Some(asker));
        let work = Arc::new(Work { operation, key, terms, queued_at });
        let pending = Pending { answer, work: Arc::clone(&work), is_polled: false };
        let job = Job { work, attempts: 0, rests: 0, tried: false, avoid: None, begun, charge, asker };
        (job, pending)
    }

    /// What is to be done, for whoever does it while the job itself lies elsewhere.
    pub(super) fn work(&self) -> &Arc<Work> {
        &self.work
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn abandoned(&self) -> bool {
        self.asker.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// What it is answered with where its deadline passed before a session (once more) started it.
    pub(super) fn late(&self) -> Fault {
        // What a breaker refused was no try, and may have been preceded by a call.
        let stage = match self.tried {
            true => "started",
            false if self.key.was_throttled_since(self.queued_at) => QUEUED_BY_QUOTA,
            false if self.key.holders() == 0 => QUEUED_UNPROVEN,
            false => "queued",
        };
        Fault::DeadlineExceeded { stage }
    }

    /// How long after `from` it may be begun, to be done in time.
    pub(super) fn room(&self, from: Instant) -> Duration {
        self.terms.deadline.instant().saturating_duration_since(from + self.key.learnt(&self.operation))
    }

    /// A session has taken it: it counts among those in flight.
    pub(super) fn begin(&mut self) {
        self.begun = true;
        self.key.begin();
    }

    /// It counts no more. True where somebody may be waiting for its place among its key's.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.begun) && self.key.end()
    }

    /// It is queued again, and its place in flight is the answer's: to be given back once the queue is let go of.
    pub(super) fn hand_over(&mut self) -> Option<Arc<KeyRoute>> {
        std::mem::take(&mut self.begun).then(|| Arc::clone(&self.key))
    }

    /// It goes where its key is served now. Only while it is queued.
    pub(super) fn follow(&mut self) {
        Arc::make_mut(&mut self.work).key = self.work.key.latest();
        self.avoid = None;
    }

    /// Its namespace's place in the lane.
    pub(super) fn tenant(&self) -> TenantId {
        self.key.tenant()
    }

    /// Where its namespace's jobs are counted.
    pub(super) fn metrics(&self) -> &TenantMetrics {
        self.key.metrics()
    }

    /// Answers it that the lane does not take it.
    pub(super) fn refuse(self, fault: Fault) {
        if matches!(fault, Fault::Overloaded { .. }) {
            self.metrics().refused();
        }
        self.answer(Err(fault));
    }

    /// Answers it.
    pub(super) fn answer(mut self, result: JobResult) {
        if let Some(asker) = self.asker.take() {
            // The asker may have left meanwhile; then nobody wants the answer.
            let _ = asker.send(result);
        }
    }
}

impl Deref for Job {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.work
    }
}

impl Work {
    /// Which key it is for.
    pub(super) fn flow(&self) -> usize {
        self.key.number()
    }
}

impl Item for Job {
    fn flow(&self) -> usize {
        self.work.flow()
    }

    fn class(&self) -> Class {
        self.terms.class
    }

    fn cost(&self) -> u64 {
        self.key.expected_ns(&self.operation)
    }

    fn bytes(&self) -> usize {
        self.operation.bytes()
    }

    fn charge(&mut self) -> &mut Charge {
        &mut self.charge
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end();
        if let Some(asker) = self.asker.take() {
            let _ = asker
                .send(Err(Fault::Unavailable { what: "the request was dropped before it ran; send it again".into() }));
        }
    }
}

/// A job on its way; answered exactly once. Dropping it takes the job back if no session has started it.
pub struct Pending {
    answer: oneshot::Receiver<JobResult>,
    /// What it is of: nobody else counts on this but who does it, so that this costs no other processor anything.
    work: Arc<Work>,
    is_polled: bool,
}

/// Not what it is of, which may be secret.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl Future for Pending {
    type Output = Result<Bytes, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
            return Poll::Ready(answer.unwrap_or_else(|_| Err(Fault::internal("a job ended without an answer"))));
        }
        // Nearly all are looked at once before they are answered, and what that costs is each operation's.
        if !std::mem::replace(&mut self.is_polled, true) {
            return Poll::Pending;
        }
        // Whoever waits no longer than to the deadline looks here once more then, mostly before any session looks at the job.
        let Work { key, terms, queued_at, .. } = &*self.work;
        if terms.deadline.passed(Instant::now()) && key.latest().was_throttled_since(*queued_at) {
            return Poll::Ready(Err(Fault::DeadlineExceeded { stage: KEPT_BY_QUOTA }));
        }
        Poll::Pending
    }
}
